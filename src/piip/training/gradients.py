"""The norm of the gradients of a step and their clipping, of a model in one piece and of a sharded one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def total_norm(parameters: Sequence[nn.Parameter], sharded: bool) -> Tensor:
    """Of all gradients, a number on their device. `sharded`: all processes must ask; see `shard`."""
    if not sharded:
        return nn.utils.get_total_norm(_gradients(parameters))
    from piip.training.shard import average_single_numbers, norm_of_shards

    average_single_numbers(parameters)
    return norm_of_shards(_gradients(parameters))


def clip(parameters: Sequence[nn.Parameter], largest: float, norm: Tensor, sharded: bool) -> None:
    """Scale the gradients down to the `largest` norm if theirs, `norm`, is larger."""
    if not sharded:
        nn.utils.clip_grads_with_norm_(parameters, largest, norm)
        return
    from piip.training.shard import clip_shards

    clip_shards(_gradients(parameters), largest, norm)


def _gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
