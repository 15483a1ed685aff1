"""Classified images: `images/train/` and a table `train.csv` of their paths and classes, whatever these are called."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from piip.data.classification.images import ClassData
from piip.data.conversion.together import copy_all, names_below


def write_classified(splits: Mapping[str, ClassData], out: Path) -> None:
    """A table for each split."""
    for split, data in splits.items():
        names = [f"images/{split}/{_in_utf8(name)}" for name in names_below([image.path for image in data.images])]
        copy_all((image.path, out / name) for image, name in zip(data.images, names, strict=True))
        with (out / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(("path", "label"))
            table.writerows((name, data.classes[label]) for name, (_, label) in zip(names, data.images, strict=True))


def _in_utf8(name: str) -> str:
    """A name that a table can hold: bytes that are no UTF-8, which Python keeps as lone surrogates, as numbers."""
    return "".join(f"_{ord(letter):x}" if "\ud800" <= letter <= "\udfff" else letter for letter in name)
