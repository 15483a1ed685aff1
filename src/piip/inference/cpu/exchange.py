"""One direction of an exchange in inference on a CPU: piece by piece, added to a copy of the receiver's tokens.

Legend: Q receiver's tokens, C their channels, S source tokens, H heads, P points, D channels per head.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from piip.backbone.frames import between
from piip.backbone.interaction import DeformableCrossAttention
from piip.inference.cpu import bags
from piip.inference.cpu.products import add_layer, product_of
from piip.inference.folding.interactions import FoldedInjector
from piip.lean.situation import PIECE, gelu, in_pieces
from piip.ops.deformable_attention import cell_centres
from piip.structures import BranchState, Size


class InjectorInPieces(FoldedInjector):
    """A folded injector that works piece by piece where nothing else is asked of it."""

    def forward(self, receiver: BranchState, source: BranchState) -> BranchState:
        """The receiver's new state."""
        if not self._can_be_in_pieces(receiver, source):
            return super().forward(receiver, source)
        return receiver._replace(tokens=exchange_in_pieces(self, receiver, source))

    def _can_be_in_pieces(self, receiver: BranchState, source: BranchState) -> bool:
        attention = self.attention
        return (
            not self.training
            and isinstance(attention, DeformableCrossAttention)
            and in_pieces(receiver.tokens, source.tokens)
            and bags.fits(source.tokens.dtype, source.size, attention.heads)
        )


def exchange_in_pieces(injector: InjectorInPieces, receiver: BranchState, source: BranchState) -> Tensor:
    """The receiver's new tokens [B, Q, C]: x + attention(x, source), then x + FFN(x)."""
    x = receiver.tokens.clone(memory_format=torch.contiguous_format)
    frame = between(receiver.frame, source.frame)
    for image, (tokens, source_tokens) in enumerate(zip(x, source.tokens, strict=True)):
        places = _places(receiver.size, source.size, None if frame is None else frame[image])
        _add_attention(injector, tokens, places, source_tokens, source.size)
    if injector.ffn is not None:
        _add_ffn(injector, x, receiver.size)
    return x


def _add_attention(injector: Any, tokens: Tensor, places: Tensor, source: Tensor, source_size: Size) -> None:
    """To the receiver's tokens [Q, C] of one image, which are at `places` [2, Q] of the source [S, *]."""
    attention = injector.attention

    def values(piece: Tensor) -> Tensor:
        out: Tensor = attention.value(injector.source_norm(injector.projection(piece)))
        return out

    table = bags.table(source, source_size, attention.heads, values)
    weight, bias = _planes(attention)
    output = product_of(attention.output)
    for start in range(0, len(tokens), PIECE):
        piece = slice(start, start + PIECE)
        planes = torch.addmm(bias, weight, injector.query_norm(tokens[piece]).t()).float()
        x, y, logits = planes.unflatten(0, (3, attention.heads, attention.points))
        x, y = x.add_(places[0, piece]), y.add_(places[1, piece])
        mixed = bags.sample(table, source_size, x, y, logits).to(tokens.dtype)
        add_layer(tokens[piece], mixed, attention.output, output)


def _add_ffn(injector: Any, x: Tensor, size: Size) -> None:
    """To the receiver's tokens [B, Q, C]."""
    ffn, rows = injector.ffn, x.flatten(0, 1)
    output = product_of(ffn.fc2)
    hidden = torch.cat([ffn.fc1(injector.ffn_norm(piece)) for piece in rows.split(PIECE)])
    grid = hidden.unflatten(0, (len(x), *size)).permute(0, 3, 1, 2)
    hidden = gelu(ffn.depthwise(grid)).permute(0, 2, 3, 1).flatten(0, 2)
    for piece, inputs in zip(rows.split(PIECE), hidden.split(PIECE), strict=True):
        add_layer(piece, inputs, ffn.fc2, output)


def _planes(attention: Any) -> tuple[Tensor, Tensor]:
    """Weight [3*H*P, C] and bias [3*H*P, 1] of x of all heads and points, then of y, then of the logits."""
    weights, biases = [], []
    for layer, kinds in ((attention.sampling_offsets, 2), (attention.attention_weights, 1)):
        weights.append(layer.weight.unflatten(0, (-1, kinds)).transpose(0, 1).flatten(0, 1))
        biases.append(layer.bias.unflatten(0, (-1, kinds)).t().flatten())
    return torch.cat(weights), torch.cat(biases)[:, None]


def _places(size: Size, source_size: Size, frame: Tensor | None) -> Tensor:
    """[2, Q]: x and y of an image's cells in the receiver, in cells of the source, as are the offsets.

    `frame` [2, 2]: where in the source's image the receiver's is, None: it is the same.
    """
    places = _common_places(size, source_size)
    if frame is None:
        return places
    height, width = source_size
    scale, shift = frame[..., None]
    return torch.addcmul(shift * shift.new_tensor([[width], [height]]), places, scale)


@lru_cache(maxsize=64)
def _common_places(size: Size, source_size: Size) -> Tensor:
    """The same where both see the same."""
    with torch.inference_mode(False), torch.no_grad():
        height, width = source_size
        return (cell_centres(size, torch.device("cpu")) * torch.tensor([width, height])).t().contiguous()
