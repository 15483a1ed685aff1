"""Deformable attention with one level on CUDA devices, by the kernels of `sampling_kernels` where they work.

What samples is chosen anew in each call, as `RowSampling` does it: the kernels are a matter of speed, and a model that
was trained with them is the same model without them.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.graph import saved_tensors_hooks

from piip.ops.deformable_attention import DeformableSampling, check_sizes, deformable_attention
from piip.structures import HALF, Size

enabled = True
"""False: the plain path for the whole process"""
DEVICES = ("cuda",)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LARGEST = 2**31 - 2**16
"""numbers per image and rows (queries times heads times images) that the kernels' 32-bit indices reach"""
MOST_POINTS = 32
"""that a kernel is written out for"""
AGREES, AGREES_IN_HALF = 1e-3, 0.02
"""largest difference from the plain path in the trial, over the largest number"""


class KernelSampling(DeformableSampling):
    """One kernel where Triton works, the definition elsewhere: on other devices, for several levels, for exporters.

    Sums are in float32 and the result has the dtype of `value`, as in the plain path, under autocast too. Gradients of
    `value` are added up in no fixed order; so with `torch.use_deterministic_algorithms` the plain path trains.
    """

    def forward(self, value: Tensor, sizes: Sequence[Size], points: Tensor, weights: Tensor) -> Tensor:
        """See `deformable_attention`."""
        check_sizes(value, sizes, points)
        if not kernel_is_used(value, points, weights):
            return super().forward(value, sizes, points, weights)
        height, width = sizes[0]
        out: Tensor = sample_level(value, points, weights, height, width)
        return out


class Signature(NamedTuple):
    """What a kernel is compiled for; `samples` are points per query and head."""

    device: torch.device
    value: torch.dtype
    points: torch.dtype
    weights: torch.dtype
    heads: int
    channels: int
    samples: int
    backward: bool


def kernel_is_used(value: Tensor, points: Tensor, weights: Tensor) -> bool:
    """For these inputs, here and now."""
    levels, count = points.shape[3:5]
    if not can_be_asked_for(value, points, weights, count) or levels != 1:
        return False
    inputs = (value, points, weights)
    backward = wants_gradients(*inputs)
    if backward and torch.are_deterministic_algorithms_enabled():
        return False
    dtypes = (tensor.dtype for tensor in inputs)
    return works(value.device, *dtypes, value.shape[2], value.shape[3], count, backward)


def can_be_asked_for(value: Tensor, places: Tensor, weights: Tensor, count: int) -> bool:
    """Whether the kernels take value [B, S, H, D], places [B, Q, H, ...] and weights of `count` points at all."""
    if not enabled or value.device.type not in DEVICES or torch.compiler.is_exporting() or torch.jit.is_tracing():
        return False
    if count > MOST_POINTS or not {value.dtype, places.dtype, weights.dtype} <= set(DTYPES):
        return False
    return max(value.shape[1:].numel(), places.shape[:3].numel()) <= LARGEST


def wants_gradients(*tensors: Tensor) -> bool:
    """Whether a backward pass may come."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


@torch.compiler.assume_constant_result
def works(*signature: Any) -> bool:
    """Whether the kernels of a `Signature` compile here and give the plain path's numbers, tried once in a process."""
    asked = Signature(*signature)
    return tried(asked, asked.device, lambda: _difference(asked))


def tried(asked: tuple[Any, ...], device: torch.device, difference: Callable[[], float]) -> bool:
    """Whether a kernel works and is not far from the plain path, found out when first asked for in a process."""
    if kernels() is None:
        return False
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return asked in _TRIED and _TRIED[asked]  # nothing can be tried while a graph is captured
    if asked not in _TRIED:
        if isinstance(torch.empty(0), FakeTensor):
            return False  # for now: numbers that are none show nothing
        _TRIED[asked] = _try(difference, AGREES_IN_HALF if HALF.intersection(asked) else AGREES)
    return _TRIED[asked]


_TRIED: dict[Any, bool] = {}


@cache
def kernels() -> ModuleType | None:
    """The module of the kernels; None without Triton."""
    if importlib.util.find_spec("triton") is None:
        return None
    try:
        return importlib.import_module("piip.lean.gpu.sampling_kernels")
    except Exception as error:
        _warn(error)
        return None


def _try(difference: Callable[[], float], limit: float) -> bool:
    try:
        # A checkpoint that happens to be around this must not count what the trial saves for its own gradients.
        with saved_tensors_hooks(_itself, _itself):
            worst = difference()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        _warn(error)
        return False
    if not worst <= limit:
        _warn(f"the result is off by {worst:.2g}")
        return False
    return True


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _warn(reason: object) -> None:
    lines = str(reason).strip().splitlines() or [type(reason).__name__]
    message = f"a Triton kernel does not work here, plain operations run instead: {lines[0]}"
    warnings.warn(message, stacklevel=2)


def _difference(asked: Signature) -> float:
    """The largest from the plain path, over the largest number, for a small input; nothing random is drawn."""
    with torch.inference_mode(False), torch.autocast(asked.device.type, enabled=False):
        size, queries = (3, 4), 5
        value = waves(2, 12, asked.heads, asked.channels, like=asked.value, device=asked.device)
        shape = (2, queries, asked.heads, 1, asked.samples)
        points = 0.5 + 0.6 * waves(*shape, 2, like=asked.points, device=asked.device)
        weights = waves(*shape, like=asked.weights, device=asked.device)
        found = [loaded().forward(value, size, points, weights)]
        with torch.set_grad_enabled(asked.backward):
            leaves = [tensor.requires_grad_(asked.backward) for tensor in (value, points, weights)]
            plain = deformable_attention(leaves[0], [size], *leaves[1:])
        expected = [plain.detach()]
        if asked.backward:
            gradient = waves(*plain.shape, like=asked.value, device=asked.device)
            expected.extend(torch.autograd.grad(plain, leaves, gradient))
            found.extend(loaded().backward(gradient, leaves[0].detach(), size, *(one.detach() for one in leaves[1:])))
        return largest_difference(found, expected)


def largest_difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Of all pairs, each over the largest number that is expected of it; NaN if there is any."""
    each = [
        (one.float() - other.float()).abs().max() / other.float().abs().max().clamp(min=1e-30)
        for one, other in zip(found, expected, strict=True)
    ]
    return float(torch.stack(each).max())  # unlike Python's, tensors' maximum is NaN where one is


def waves(*shape: int, like: torch.dtype, device: torch.device) -> Tensor:
    """Numbers in -1..1 that look like none in particular."""
    numbers = torch.arange(torch.Size(shape).numel(), device=device, dtype=torch.float32)
    return (numbers * 1.7 + 0.3).sin().reshape(shape).to(like)


def loaded() -> Any:
    """The module of the kernels, where `tried` has found that they work."""
    found = kernels()
    assert found is not None, "asked for only where `works` says so"
    return found


# -- for compilers and autograd: operations whose inside they need not know -------------------------------------------


@torch.library.custom_op("piip::sample_level", mutates_args=())
def sample_level(value: Tensor, points: Tensor, weights: Tensor, height: int, width: int) -> Tensor:
    """`deformable_attention` with one level of height x width cells."""
    out: Tensor = loaded().forward(value, (height, width), points, weights)
    return out


@torch.library.custom_op("piip::sample_level_backward", mutates_args=())
def sample_level_backward(
    gradient: Tensor, value: Tensor, points: Tensor, weights: Tensor, height: int, width: int, with_value: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value (empty unless `with_value`), points and weights."""
    found: tuple[Tensor, Tensor, Tensor] = loaded().backward(
        gradient, value, (height, width), points, weights, with_value
    )
    return found


@sample_level.register_fake
def _(value: Tensor, points: Tensor, weights: Tensor, height: int, width: int) -> Tensor:
    return value.new_empty(points.shape[0], points.shape[1], value.shape[2] * value.shape[3])


@sample_level_backward.register_fake
def _(
    gradient: Tensor, value: Tensor, points: Tensor, weights: Tensor, height: int, width: int, with_value: bool
) -> tuple[Tensor, Tensor, Tensor]:
    for_value = value.new_empty(value.shape if with_value else 0)
    return for_value, points.new_empty(points.shape), weights.new_empty(weights.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.height, ctx.width = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad
    found = sample_level_backward(gradient, *ctx.saved_tensors, ctx.height, ctx.width, needs[0])
    return *(one if need else None for one, need in zip(found, needs, strict=False)), None, None


sample_level.register_autograd(_differentiate, setup_context=_keep)
