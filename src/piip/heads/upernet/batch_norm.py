"""BatchNorm over the images of all processes, on any device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from piip import processes


class BatchNorm(nn.BatchNorm2d):
    """The statistics are those of the step's images on all processes, as in the official configs.

    A few images of one process would know too little. Where they have one value per channel in all (one image, pooled
    to one cell) there is no variance: then the running statistics.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        if self.training and processes.count() > 1:
            return self._over_processes(x)
        if not self.training or x.shape[0] * x.shape[2] * x.shape[3] > 1:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

    def _over_processes(self, x: Tensor) -> Tensor:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        values = processes.counted(x.new_tensor(float(x.shape[0] * x.shape[2] * x.shape[3])))
        sums = _Sum.apply(torch.cat((processes.counted(x.sum((0, 2, 3))), values[None])))
        count, some = sums[-1].detach(), sums[-1].detach() > 1
        mean = sums[:-1] / count
        squares = (x - mean[:, None, None]).square().sum((0, 2, 3))
        variance = _Sum.apply(processes.counted(squares)) / count  # in a second pass: no difference of large numbers
        with torch.no_grad():
            share = some * self.momentum
            unbiased = variance * count / (count - 1).clamp(min=1)
            running_mean, running_variance = self.running_mean.clone(), self.running_var.clone()
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share.to(self.running_mean.dtype))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), share.to(self.running_var.dtype))
            self.num_batches_tracked += some
        mean = torch.where(some, mean, running_mean)
        scale = self.weight * (torch.where(some, variance, running_variance) + self.eps).rsqrt()
        return (x - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]


class _Sum(torch.autograd.Function):
    """The sum over all processes; what each of them makes of it comes back to all."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:
        total = mine.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone()
        distributed.all_reduce(total)
        return total
