"""Copies of a model that share what is not changed."""

from __future__ import annotations

import copy
from itertools import chain
from typing import TypeVar

from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def with_shared_tensors(model: Module) -> Module:
    """The same tree of modules anew, around the very same parameters and buffers."""
    tensors = chain(model.parameters(), model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def release(copied: nn.Module, original: nn.Module, share: bool) -> None:
    """Cut the copy loose: no gradients, and with `share` off no tensor of the original is left in it.

    Folded tensors are the copy's own already; so each is held once by the original and once by the copy, never more.
    """
    theirs = {id(tensor) for tensor in chain(original.parameters(), original.buffers())}
    new: dict[int, Tensor] = {}  # by the old one's id, so that tied parameters stay tied

    def own(tensor: Tensor) -> Tensor:
        taken = id(tensor) in theirs and not share
        return tensor.detach().clone() if taken else tensor.detach()

    for module in copied.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in new:
                new[id(parameter)] = nn.Parameter(own(parameter), requires_grad=False)
            module.register_parameter(name, new[id(parameter)])  # type: ignore[arg-type]
        for name, buffer in list(module.named_buffers(recurse=False)):
            if id(buffer) not in new:
                new[id(buffer)] = own(buffer)
            module._buffers[name] = new[id(buffer)]


Version = tuple[tuple[object, ...], ...]


def version(model: nn.Module) -> Version:
    """Changes whenever a tensor of `model` is replaced or moved, or written to as an optimizer does.

    What is written past autograd (`parameter.data.add_(1)`) does not show here, see `fingerprint`.
    """
    return tuple(
        (id(tensor), tensor.data_ptr(), tensor.dtype, tensor.device, 0 if tensor.is_inference() else tensor._version)
        for tensor in chain(model.parameters(), model.buffers())
    )
