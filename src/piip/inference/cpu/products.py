"""Linear layers in inference whose results are added, in place, to what they belong to.

`x += layer(inputs)` as a matrix product that accumulates: there is no result in between to write and to read again, and
no bias to copy into it first.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Product(NamedTuple):
    """A linear layer's numbers."""

    weight: Tensor
    """[O, I]"""
    bias: Tensor | None
    """[O]"""

    def after_shift(self, shift: Tensor) -> Product:
        """The same of x + shift [I], for which it takes x."""
        moved = self.weight @ shift
        return Product(self.weight, moved if self.bias is None else self.bias + moved)


def product_of(layer: nn.Module | None) -> Product | None:
    """Of a Linear layer of at least single precision; None for anything else."""
    if type(layer) is not nn.Linear or layer.weight.dtype not in (torch.float32, torch.float64):
        return None
    return Product(layer.weight, layer.bias)


def add_product(x: Tensor, inputs: Tensor, product: Product) -> None:
    """Add the product of `inputs` [..., I] to a contiguous `x` [..., O]."""
    rows = x.view(-1, x.shape[-1])
    if product.bias is not None:
        rows.add_(product.bias)
    rows.addmm_(inputs.reshape(-1, inputs.shape[-1]), product.weight.t())


def add_layer(x: Tensor, inputs: Tensor, layer: nn.Module, product: Product | None) -> None:
    """Add layer(inputs) to a contiguous `x`; `product` is what to take for the layer, None if it has none."""
    if product is None:
        x.add_(layer(inputs))
    else:
        add_product(x, inputs, product)


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
