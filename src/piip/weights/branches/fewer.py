"""A pretrained ViT as a branch that has fewer parts: its first blocks alone, its LayerScale in the layers before it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

BLOCK = re.compile(r"vit\.blocks\.(\d+)\.")
SCALE = re.compile(r"(vit\.blocks\.\d+)\.(ls1|ls2)\.gamma")
SCALED = {"ls1": "attn.proj", "ls2": "mlp.fc2"}
"""LayerScale and the layer whose result it scales"""


def first_blocks(theirs: Mapping[str, Tensor], depth: int) -> tuple[dict[str, Tensor], str | None]:
    """The tensors of the first `depth` blocks and of all that is no block, and what was left out, if anything.

    The features of an early block of a deep model are those of a shallower pretrained one.
    """
    numbers = {name: int(match[1]) for name in theirs if (match := BLOCK.match(name))}
    last = max(numbers.values(), default=-1)
    if last < depth or set(numbers.values()) != set(range(last + 1)):
        return dict(theirs), None
    kept = {name: tensor for name, tensor in theirs.items() if numbers.get(name, -1) < depth}
    return kept, f"blocks {depth} to {last}: the branch has {depth} of the {last + 1}"


def without_layer_scale(theirs: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """The same function where the branch has no LayerScale: the layer before each is scaled; and how many were.

    `wanted`: the branch's tensors.
    """
    folded, count = dict(theirs), 0
    for name, gamma in theirs.items():
        match = SCALE.fullmatch(name)
        if match is None or name in wanted:
            continue
        layer = f"{match[1]}.{SCALED[match[2]]}"
        parts = [whole for part in ("weight", "bias") if (whole := f"{layer}.{part}") in theirs]
        if not parts or any(theirs[part].shape[:1] != gamma.shape for part in parts):
            continue  # no such block: it stays, and is refused
        for part in parts:
            value = theirs[part].float()
            folded[part] = value * (gamma.float()[:, None] if value.ndim == 2 else gamma.float())
        del folded[name]
        count += 1
    return folded, count
