"""Parameters, gradients, optimizer and running average in equal parts on all processes, by torch's `fully_shard`.

A block's weights are gathered for its own forward and backward pass only. Single numbers, such as the weights of the
merge, cannot be cut: every process has them, and their gradients are averaged by `average_single_numbers`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from piip import processes
from piip.backbone.called_alone import called_alone
from piip.model import PIIPModel
from piip.training.optim import keep_of
from piip.weights.files import read_one_by_one


def shard(model: PIIPModel, losses: nn.Module, device: torch.device) -> None:
    """Leave to each process its part of the parameters of `model`, on `device`; they are the main process's.

    In the others the model may be on the meta device, as nothing of it is read. It gets its memory block by block, and
    a model on the CPU goes to the device block by block: never more of it is there than what stays, and a block.

    `losses` is what is called: the module around the model. It keeps what no block has (embeddings, the head) whole
    from its forward to its backward pass.
    """
    # Of losses that are views, which nothing here writes to.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (processes.count(),))
    single = [parameter for parameter in model.parameters() if parameter.ndim == 0]
    for tensor in chain(single, model.buffers()):
        _from_main(tensor, device)
    for module in chain(called_alone(model.backbone), [losses]):
        for parameter in module.parameters():
            if parameter.ndim > 0 and not isinstance(parameter, DTensor):
                _from_main(parameter, device)
        fully_shard(module, mesh=mesh, ignored_params=set(single))


def _from_main(tensor: Tensor, device: torch.device) -> None:
    """Give a tensor, wherever it is, the main process's values on `device`; it stays the same object, tied or not."""
    if tensor.is_meta:
        there = torch.empty_like(tensor, device=device)
        if isinstance(tensor, nn.Parameter):
            there = nn.Parameter(there, tensor.requires_grad)
        torch.utils.swap_tensors(tensor, there)  # before it is sent: gloo lets go of tensors some time later
    else:
        tensor.data = tensor.detach().to(device)
    dist.broadcast(tensor.detach(), 0)


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, in the same memory; any other tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a sharded tensor, gathered from all processes, which must all ask; any other tensor itself."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def fill_shards(model: nn.Module, weights: Path) -> None:
    """Give a sharded model the weights of a file, of which no process has more than one whole tensor at a time."""
    state = model.state_dict()
    with torch.no_grad():
        for name, tensor in read_one_by_one(weights):
            mine = state[name]
            part = tensor
            if isinstance(mine, DTensor):
                part = distribute_tensor(tensor.to(mine.device), mine.device_mesh, mine.placements, src_data_rank=None)
            local(mine).copy_(local(part))


def forget_forward_passes(losses: nn.Module) -> None:
    """Forget what FSDP has noted of passes that no backward pass followed, and let go of what is gathered.

    By these notes it gathers ahead in the next backward pass, old weights then, and where the processes made other
    passes, each of them others: they would wait for each other for ever.
    """
    root = cast(FSDPModule, losses)
    if hasattr(root, "reset_iter_state"):  # torch 2.14
        root.reset_iter_state()
        return
    for module in losses.modules():
        if isinstance(module, FSDPModule):
            state = module._get_fsdp_state()
            state._comm_ctx.post_forward_order.clear()
            for group in getattr(state, "_fsdp_param_groups", None) or filter(None, [state._fsdp_param_group]):
                group._post_forward_indices.clear()
            module.reshard()


def average_single_numbers(parameters: Iterable[nn.Parameter]) -> None:
    """Make the gradients of what is not sharded their mean over the processes."""
    gradients = [p.grad for p in parameters if p.grad is not None and not isinstance(p.grad, DTensor)]
    if gradients:
        means = torch.stack(gradients)
        dist.all_reduce(means)
        for gradient, mean in zip(gradients, means / processes.count(), strict=True):
            gradient.copy_(mean)


def norm_of_shards(gradients: Sequence[Tensor]) -> Tensor:
    """The norm of gradients of which some are sharded, a number; the same on all processes, which must all ask."""
    sharded = [gradient.to_local() for gradient in gradients if isinstance(gradient, DTensor)]
    others = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    squares = nn.utils.get_total_norm(sharded).double().square()
    dist.all_reduce(squares)
    rest = nn.utils.get_total_norm(others).to(squares) if others else torch.zeros_like(squares)
    return (squares + rest.square()).sqrt().float()


def clip_shards(gradients: Sequence[Tensor], largest: float, norm: Tensor) -> None:
    """As `torch.nn.utils.clip_grads_with_norm_`."""
    torch._foreach_mul_([local(gradient) for gradient in gradients], (largest / (norm + 1e-6)).clamp(max=1.0))


class ShardedAverage:
    """The running average of `optim.build_average`, of this process's parts alone; what is frozen is not in it."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.trained = list(trained)
        parameters = dict(model.named_parameters())
        kept = {name: value for name, value in model.state_dict().items() if name not in parameters}
        self.tensors: dict[str, Tensor] = {name: value.detach().clone() for name, value in (trained | kept).items()}
        """by the model's names: trained parameters, and buffers, which are not averaged but copied"""

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """After a step."""
        now = model.state_dict()
        means = [local(self.tensors[name]) for name in self.trained]
        values = [local(now[name]) for name in self.trained]
        if self.updates == 0:
            torch._foreach_copy_(means, values)
        else:
            torch._foreach_lerp_(means, values, 1 - keep_of(self.decay, self.updates))
        for name in self.tensors.keys() - set(self.trained):
            self.tensors[name].copy_(now[name])
        self.updates += 1

    @torch.no_grad()
    def exchange(self, model: nn.Module) -> None:
        """Put the averages into the model, and its own values here until the next call; every tensor stays in place."""
        now = model.state_dict()
        for name, mean in self.tensors.items():
            mine, other = local(mean), local(now[name])
            value = other.clone()
            other.copy_(mine)
            mine.copy_(value)
