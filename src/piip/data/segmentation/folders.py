"""Finding the image and mask folders of a segmentation data set, and what their values mean.

Recognised, with `masks`, `annotations`, `labels` or `SegmentationClass` for the folder of PNG masks:

- `images/train` + `masks/train` (and `val`, `test`; ADE20K writes `training`, `validation`, COCO `train2017`);
- `train/images` + `train/masks`;
- `images` + `masks`, which is one split, "train".

What the values mean is told by `classes.json` or `data.yaml` in the same folder, see `read_description`; ADE20K's own
folder needs none.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pydantic
import yaml
from pydantic import Field

from piip.config import Frozen
from piip.data.detection.splits import NAMES, SplitName
from piip.data.names.ade20k import ADE20K_CLASSES
from piip.data.report import DataError

IMAGE_FOLDERS = ("images", "image", "imgs", "JPEGImages")
MASK_FOLDERS = ("masks", "mask", "annotations", "labels", "SegmentationClass")
DESCRIPTIONS = ("classes.json", "data.yaml", "data.yml")
MASK_SUFFIX = ".png"


class MaskSplit(NamedTuple):
    """One part of a data set."""

    images: Path
    masks: Path


class Description(Frozen):
    """`classes.json` or `data.yaml`: what the values in the masks stand for."""

    classes: tuple[str, ...] = Field(min_length=1)
    """names, in label order"""
    values: tuple[int, ...]
    """the value in the masks of each class"""
    ignored: frozenset[int]
    """values of pixels that belong to no class"""

    @property
    def labels(self) -> dict[int, int]:
        """From a value in the masks to the 0-based label."""
        return {value: label for label, value in enumerate(self.values)}


def find_mask_splits(root: str | Path) -> dict[SplitName, MaskSplit]:
    """The splits of a folder of images and masks; empty where it holds none."""
    root = Path(root)
    found: dict[SplitName, MaskSplit] = {}
    for split in NAMES:
        images, masks = _split_folder(root, IMAGE_FOLDERS, split), _split_folder(root, MASK_FOLDERS, split)
        if images is not None and masks is not None and _holds_masks(masks):
            found[split] = MaskSplit(images, masks)
    if found:
        return found
    images, masks = _first(root, IMAGE_FOLDERS), _first(root, MASK_FOLDERS)
    if images is not None and masks is not None and _holds_masks(masks):
        return {"train": MaskSplit(images, masks)}
    return {}


def read_description(root: str | Path) -> Description | None:
    """The description beside the data, or None where there is none; DataError for one that cannot be used.

    Keys: `classes` (or `names`), a list of names or a mapping from mask value to name; `ignore_index`, one value, a
    list of them, or null (there is nothing to ignore); `reduce_zero_label`: true where a list's first class has the
    value 1 and 0 is ignored, as in ADE20K.
    """
    file = next((Path(root) / name for name in DESCRIPTIONS if (Path(root) / name).is_file()), None)
    if file is None:
        return None
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{file}: not readable: {error}") from error
    try:
        return _description(content)
    except (TypeError, ValueError, pydantic.ValidationError) as error:
        raise DataError(f"{file}: {error}") from error


def ade20k_description(root: str | Path) -> Description | None:
    """ADE20K's classes, if the folder is laid out like it (`annotations/training`, with values up to 150)."""
    root = Path(root)
    if not ((root / "annotations" / "training").is_dir() and (root / "images" / "training").is_dir()):
        return None
    values = tuple(range(1, len(ADE20K_CLASSES) + 1))
    return Description(classes=ADE20K_CLASSES, values=values, ignored=frozenset({0}))


def _description(content: Any) -> Description:
    if isinstance(content, list):
        content = {"classes": content}
    names = content.get("classes", content.get("names")) if isinstance(content, dict) else None
    if not isinstance(names, list | dict) or not names:
        raise ValueError('no "classes"; write a list of names, or names by mask value, for example '
                         '{"classes": ["road", "car"], "ignore_index": 255}')  # fmt: skip
    zero = bool(content.get("reduce_zero_label", False))
    if isinstance(names, dict):
        if zero:
            raise ValueError("reduce_zero_label is for a list of classes; a mapping says each value itself")
        pairs = [(_value(value), str(name)) for value, name in names.items()]
    else:
        pairs = [(value, str(name)) for value, name in enumerate(names, start=int(zero))]
    ignored = content.get("ignore_index", 0 if zero else None)
    ignored = [] if ignored is None else ignored if isinstance(ignored, list) else [ignored]
    values = tuple(value for value, _ in pairs)
    both = sorted(set(values) & {_value(value) for value in ignored})
    if both or len(set(values)) < len(values):
        raise ValueError(f"mask values {both or sorted(values)} stand for two things at once")
    every = {_value(value) for value in ignored} | ({0} if zero else set())
    return Description(classes=tuple(name for _, name in pairs), values=values, ignored=frozenset(every))


def _value(value: Any) -> int:
    """A mask value; JSON writes the keys of a mapping as text."""
    if isinstance(value, bool) or not re.fullmatch(r"\d+", str(value)):
        raise ValueError(f"{value!r} is no mask value: use whole numbers from 0 on")
    return int(value)


def _split_folder(root: Path, kinds: tuple[str, ...], split: SplitName) -> Path | None:
    for kind in kinds:
        base = root / kind
        inside = [*(base / name for name in NAMES[split]), *sorted(base.glob(f"{split}20[0-9][0-9]"))]
        for folder in (*inside, *(root / name / kind for name in NAMES[split])):
            if folder.is_dir():
                return folder
    return None


def _first(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _holds_masks(folder: Path) -> bool:
    return next(folder.glob(f"*{MASK_SUFFIX}"), None) is not None
