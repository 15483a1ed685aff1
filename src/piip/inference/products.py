"""Linear layers in inference whose results are added, in place, to what they belong to.

`x += layer(inputs)` as a matrix product that accumulates: there is no result in between to write and to read again, and
no bias to copy into it first.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Product(NamedTuple):
    """A linear layer's numbers."""

    weight: Tensor
    """[O, I]"""
    bias: Tensor | None
    """[O]"""


def product_of(layer: nn.Module | None) -> Product | None:
    """Of a Linear layer of at least single precision; None for anything else."""
    if type(layer) is not nn.Linear or layer.weight.dtype not in (torch.float32, torch.float64):
        return None
    return Product(layer.weight, layer.bias)


class Output(NamedTuple):
    """gamma * layer(x), to be added to something."""

    product: Product
    gamma: Tensor | None
    """[O], or None where it is in the product already"""

    def after_shift(self, shift: Tensor) -> Output:
        """The same of x + shift [I], for which it takes x."""
        weight, bias = self.product
        moved = weight @ shift
        return self._replace(product=Product(weight, moved if bias is None else bias + moved))


def output_of(layer: nn.Module | None, gamma: Tensor | None, rows: int) -> Output | None:
    """Of a layer that has a product and will be given `rows` rows; None for a layer that has none.

    Whatever is less, weights or results, is scaled.
    """
    product = product_of(layer)
    if product is None or gamma is None:
        return None if product is None else Output(product, None)
    weight, bias = product
    if rows < weight.shape[1]:
        return Output(product, gamma)
    return Output(Product(weight * gamma[:, None], None if bias is None else bias * gamma), None)


def add_output(x: Tensor, inputs: Tensor, output: Output) -> None:
    """Add the output for `inputs` [..., I] to a contiguous `x` [..., O]."""
    weight, bias = output.product
    if output.gamma is not None:
        x.addcmul_(F.linear(inputs, weight, bias), output.gamma)
        return
    rows = x.view(-1, x.shape[-1])
    if bias is not None:
        rows.add_(bias)
    rows.addmm_(inputs.reshape(-1, inputs.shape[-1]), weight.t())


def add_layer(x: Tensor, inputs: Tensor, layer: nn.Module, gamma: Tensor | None, output: Output | None) -> None:
    """Add gamma * layer(inputs) to a contiguous `x`; `output` is the layer's `output_of`."""
    if output is not None:
        add_output(x, inputs, output)
    elif gamma is None:
        x.add_(layer(inputs))
    else:
        x.addcmul_(layer(inputs), gamma)


class Scratch:
    """Memory for one result at a time, used over and over; for float tensors like `like`."""

    def __init__(self, like: Tensor) -> None:
        self._like, self._memory = like, like.new_empty(0)

    def multiply(self, inputs: Tensor, product: Product) -> Tensor:
        """The product [N, O] of `inputs` [N, I], until the next call."""
        rows, columns = len(inputs), len(product.weight)
        if self._memory.numel() < rows * columns:
            self._memory = self._like.new_empty(rows * columns)
        out = self._memory[: rows * columns].view(rows, columns)
        if product.bias is None:
            return torch.mm(inputs, product.weight.t(), out=out)
        return torch.addmm(product.bias, inputs, product.weight.t(), out=out)
