"""Weights of a model whose classes are others: by name, row by row, what both know is kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from piip import config
from piip.console import Terminal, say, shortened
from piip.heads import build_head
from piip.model import PIIPModel

LISTED = 10
"""names at most in a message"""


class Transfer(NamedTuple):
    """What starts with fresh weights."""

    classes: list[str]
    """of the new model, which the weights do not know"""
    keys: list[str]
    """whole tensors that the weights do not have, or have in another shape"""


@torch.no_grad()
def transfer(model: PIIPModel, weights: PIIPModel, part: tuple[str, ...] = ("",)) -> Transfer:
    """Copy into `model` the weights that fit: tensors of equal name and shape, and of what there is per class the rows
    of the classes that both know by name. Tensors whose names begin with none of `part` are left alone.
    """
    old, new, rows = weights.state_dict(), model.state_dict(), class_rows(model.config)
    known = {name: index for index, name in enumerate(weights.config.classes)}
    pairs = [(index, known[name]) for index, name in enumerate(model.config.classes) if name in known]
    counts = len(model.config.classes), len(weights.config.classes)
    fresh = []
    for key, target in new.items():
        if not key.startswith(part):
            continue
        source = old.get(key)
        if key in rows and source is not None and fits(target, source, rows[key], *counts):
            copy_rows(target, source, rows[key], pairs, counts[0])
        elif key not in rows and source is not None and source.shape == target.shape:
            target.copy_(source)
        else:
            fresh.append(key)
    unknown = [name for name in model.config.classes if name not in known and any(key.startswith(part) for key in rows)]
    return Transfer(unknown, fresh)


def note_transfer(model: PIIPModel, weights: PIIPModel, part: tuple[str, ...] = ("",)) -> None:
    """`transfer`, and say what starts fresh."""
    fresh = transfer(model, weights, part)
    console = Terminal(stderr=True)
    if fresh.classes:
        unknown = shortened(fresh.classes, LISTED)
        say(console, f"starting with fresh weights for classes that the weights do not know: {unknown}")
    if fresh.keys:
        say(console, f"starting with fresh weights where they do not fit: {shortened(fresh.keys, LISTED)}")


def class_rows(model: config.Model) -> dict[str, int]:
    """The tensors with rows for each class, and how many of their rows a class has.

    One that is no class (background) has its rows after all others. Found by the shapes of a head with a class more.
    """
    sizes = [_lengths(model, len(model.classes) + more) for more in (0, 1)]
    return {key: sizes[1][key] - length for key, length in sizes[0].items() if sizes[1][key] != length}


def _lengths(model: config.Model, classes: int) -> dict[str, int]:
    names = tuple(str(index) for index in range(classes))
    with torch.device("meta"):
        head = build_head(model.model_copy(update={"classes": names, "category_ids": None}))
    return {f"head.{key}": len(value) for key, value in head.state_dict().items() if value.ndim}


def fits(target: Tensor, source: Tensor, rows: int, classes: int, source_classes: int) -> bool:
    """Whether both have `rows` rows for each of their classes, equally many others, and rows of one shape."""
    others, source_others = len(target) - classes * rows, len(source) - source_classes * rows
    return target.shape[1:] == source.shape[1:] and others == source_others >= 0


def copy_rows(target: Tensor, source: Tensor, rows: int, pairs: Iterable[tuple[int, int]], classes: int) -> None:
    """The rows of each pair (new class, old class), and, after those of all `classes`, what is no class's."""
    for index, other in pairs:
        target[index * rows : (index + 1) * rows] = source[other * rows : (other + 1) * rows]
    others = len(target) - classes * rows
    target[len(target) - others :] = source[len(source) - others :]
