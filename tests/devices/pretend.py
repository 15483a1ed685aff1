"""A device that is none: tensors on it live in the CPU's memory, but behave like those on a GPU.

What PyTorch refuses of tensors on two devices is refused, and so is float64, which Apple's GPUs do not have. Everything
that makes the host wait for a GPU is counted: reading a number, asking how many elements a mask chooses, copying
between the two. So a machine without a GPU can tell that a training step would run on one, and how often it would wait.

It registers itself with PyTorch for the whole process, by an interface that is still experimental: use it in a
process of its own (`tests.devices.steps`).
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

import piip

NAME = "pretend"
PACKAGE = Path(piip.__file__).parent
"""whose lines ask for waits; a checkout or an environment in a folder `piip` also has the name in its paths"""
aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
MAY_HAVE_HOST_INDICES = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
SIZES = {aten.nonzero.default, aten.masked_select.default, aten.repeat_interleave.Tensor, aten._unique2.default}
"""their results' sizes depend on values, which the host has to wait for"""

waits: Counter[str] = Counter()
"""by kind and place, what the host waited for since the last `waits.clear()`"""


class OnDevice(torch.Tensor):
    """A tensor on the device; `held` are its values."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        if held.dtype == torch.float64:
            raise TypeError("the device has no float64")
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device(NAME, 0),
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def tolist(self) -> Any:
        note("values")
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


class Everywhere(TorchDispatchMode):
    """Also catches what is made on the device from nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


def dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run one of PyTorch's basic operations on the values held, if the tensors are where they may be."""
    flat, spec = pytree.tree_flatten((args, kwargs))
    there = [x for x in flat if isinstance(x, OnDevice)]
    check_places(func, args, flat, there)
    target = kwargs.get("device")
    on_device = bool(there) if target is None else torch.device(target).type == NAME
    if func is aten.copy_.default:
        on_device = isinstance(args[0], OnDevice)
    note_waits(func, args, on_device, there)
    inner_args, inner_kwargs = pytree.tree_unflatten([x.held if isinstance(x, OnDevice) else x for x in flat], spec)
    if target is not None:
        inner_kwargs = inner_kwargs | {"device": torch.device("cpu")}
    if inner_kwargs.get("pin_memory"):
        inner_kwargs["pin_memory"] = False
    out = func(*inner_args, **inner_kwargs)
    if not on_device or func is aten._local_scalar_dense.default:
        return out
    out = pytree.tree_map(lambda x: OnDevice(x) if isinstance(x, Tensor) and not isinstance(x, OnDevice) else x, out)
    return return_and_correct_aliasing(func, args, kwargs, out)


def check_places(func: Any, args: Any, flat: list[Any], there: list[OnDevice]) -> None:
    """RuntimeError for tensors on two devices; scalars of the host, and its indices for tensors there, may be."""
    here = [x for x in flat if isinstance(x, Tensor) and not isinstance(x, OnDevice) and x.dim() > 0]
    if there and here and func not in COPIES and not (func in MAY_HAVE_HOST_INDICES and isinstance(args[0], OnDevice)):
        raise RuntimeError(f"{func}: {len(here)} tensors on the CPU, {len(there)} on the device")


def note_waits(func: Any, args: Any, on_device: bool, there: list[OnDevice]) -> None:
    """Count what the host has to wait for."""
    if func in COPIES and bool(there) != on_device:
        note("copy")
    elif there and func is aten._local_scalar_dense.default:
        note("value")
    elif there and func in SIZES:
        note("size")
    elif there and func in MAY_HAVE_HOST_INDICES:
        for index in args[1]:
            if isinstance(index, Tensor) and (index.dtype == torch.bool or not isinstance(index, OnDevice)):
                note("index")


def note(kind: str) -> None:
    """Count one wait, with the line of the package that asked for it."""
    own = [frame for frame in traceback.extract_stack() if Path(frame.filename).is_relative_to(PACKAGE)]
    place = f"{Path(own[-1].filename).relative_to(PACKAGE).as_posix()}: {own[-1].line}" if own else "?"
    waits[f"{kind} in {place}"] += 1


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return OnDevice(torch.empty_strided(size, stride, dtype=dtype))


def _copy(target: OnDevice, source: Tensor, non_blocking: bool = False) -> Tensor:
    """What `torch.tensor(..., device=...)` and indices in lists do, below the reach of a dispatch mode."""
    note("copy")
    target.held.copy_(source.held if isinstance(source, OnDevice) else source)
    return target


class Module(backend_registration._DummyBackendModule):  # type: ignore[misc]
    """What autocast asks of a device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def register() -> torch.library.Library:
    """Make the device known to PyTorch, for good; keep what is returned."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    library = torch.library.Library("aten", "IMPL")
    library.impl("empty_strided", _empty_strided, "PrivateUse1")
    library.impl("copy_", _copy, "PrivateUse1")
    return library


@contextmanager
def pretend_device() -> Iterator[torch.device]:
    """The device, usable within."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with Everywhere(), torch.autograd.set_multithreading_enabled(False):
            yield torch.device(NAME, 0)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
