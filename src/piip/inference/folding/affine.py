"""The arithmetic: scales and shifts per channel move into the weights of the linear layer before or after them.

Products are computed in float64 and rounded once, to the layer's own dtype; on the CPU where a device has no float64
(Apple's GPUs).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

WITH_FLOAT64 = ("cpu", "cuda", "xpu", "meta")


def precise(tensor: Tensor) -> Tensor:
    """As float64, on the same device if it can be."""
    tensor = tensor.detach()
    return (tensor if tensor.device.type in WITH_FLOAT64 else tensor.cpu()).double()


def rounded(values: Tensor, like: Tensor) -> Tensor:
    """Float64 `values` in the dtype and on the device of `like`."""
    return values.to(like.dtype).to(like.device)


def replace(layer: Any, weight: Tensor, bias: Tensor | None) -> None:
    """Give `layer` new float64 weights, rounded to its dtype."""
    like = layer.weight
    layer.weight = nn.Parameter(rounded(weight, like), requires_grad=False)
    layer.bias = None if bias is None else nn.Parameter(rounded(bias, like), requires_grad=False)


def scale_outputs(layer: Any, scale: Tensor, shift: Tensor | None = None) -> None:
    """`scale * layer(x) + shift` becomes `layer(x)`: a linear layer or convolution with outputs in dimension 0."""
    factor = precise(scale)
    bias = None if layer.bias is None else precise(layer.bias) * factor
    if shift is not None:
        bias = precise(shift) if bias is None else bias + precise(shift)
    replace(layer, precise(layer.weight) * _along(factor, 0, layer.weight), bias)


def absorb_affine(norm: Any, layers: Sequence[Any]) -> bool:
    """`layer(norm(x))` for all of `layers`, which alone read the norm, without the norm's weight and bias.

    Works for Linear layers and for convolutions without padding: zeros around a map come after the norm, they have no
    shift. Returns whether anything was done.
    """
    weight, shift = getattr(norm, "weight", None), getattr(norm, "bias", None)
    if weight is None or not layers or not all(_is_plain(layer) for layer in layers):
        return False
    for layer in layers:
        kernel = precise(layer.weight)
        bias = None if layer.bias is None else precise(layer.bias)
        if shift is not None:
            own = (kernel * _along(precise(shift), 1, kernel)).flatten(1).sum(1)
            bias = own if bias is None else bias + own
        replace(layer, kernel * _along(precise(weight), 1, kernel), bias)
    for name in ("weight", "bias"):
        if getattr(norm, name, None) is not None:
            setattr(norm, name, None)
    return True


def absorb_batch_norm(conv: Any, norm: nn.modules.batchnorm._BatchNorm) -> None:
    """`norm(conv(x))` of a BatchNorm that uses its stored statistics becomes `conv(x)`."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (precise(norm.running_var) + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * precise(norm.weight)
    shift = -precise(norm.running_mean) * scale
    if norm.bias is not None:
        shift = shift + precise(norm.bias)
    scale_outputs(conv, scale, shift)


def _is_plain(layer: Any) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.padding in (0, (0, 0))
    return isinstance(layer, nn.Linear)


def _along(values: Tensor, dimension: int, like: Tensor) -> Tensor:
    """[C] with trailing and leading dimensions of 1, so that it multiplies `dimension` of `like`."""
    shape = [1] * like.ndim
    shape[dimension] = len(values)
    return values.reshape(shape)


def compose(first: Any, second: Any) -> tuple[Tensor, Tensor | None]:
    """Weight and bias, in float64, of `second(first(x))` for two Linear layers."""
    weight, outer = precise(first.weight), precise(second.weight)
    bias = None if first.bias is None else outer @ precise(first.bias)
    if second.bias is not None:
        bias = precise(second.bias) if bias is None else bias + precise(second.bias)
    return outer @ weight, bias


def linear(weight: Tensor, bias: Tensor | None, like: nn.Linear) -> nn.Linear:
    """A Linear layer of these float64 weights, in the dtype and on the device of `like`."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta", dtype=like.weight.dtype)
    made.weight = nn.Parameter(rounded(weight, like.weight), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(rounded(bias, like.weight), requires_grad=False)
    return made
