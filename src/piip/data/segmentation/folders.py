"""Finding the image and mask folders of a segmentation data set, and what their values mean.

Recognised, whatever the capitals, with `masks`, `annotations`, `labels` or `SegmentationClass` for the folder of masks:

- `images/train` + `masks/train` (and `val`, `test`; ADE20K writes `training`, `validation`, COCO `train2017`);
- `train/images` + `train/masks`;
- `images` + `masks`, which is one split, "train".

What the values mean is told by `classes.json` or `data.yaml` in the same folder, see `read_description`; ADE20K's own
folder needs none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pydantic
from pydantic import Field

from piip.config import Frozen
from piip.config.model import Colour
from piip.data.image_files import SUFFIXES
from piip.data.layout import (
    IMAGE_FOLDERS,
    NAMES,
    SplitName,
    child,
    child_folder,
    comparable,
    holds_images,
    split_folders,
)
from piip.data.names.ade20k import ADE20K_CLASSES
from piip.data.report import DataError
from piip.data.segmentation.own_colours import colours_of
from piip.data.text_files import LARGEST_DESCRIPTION, read_json, read_yaml
from piip.data.values import as_name

MASK_FOLDERS = ("masks", "mask", "annotations", "labels", "SegmentationClass")
MASK_SUFFIXES = (".png", ".apng", ".tif", ".tiff", ".gif", ".bmp")
"""of formats that keep a mask's values"""
ONLY_MASKS = ("masks", "mask", "SegmentationClass")
"""folders whose images are taken for masks in any format, so that the reader says why one does not do"""
NOTHING = (None, "", "null", "~")
"""what stands for no value, in JSON and in YAML"""
DESCRIPTIONS = ("classes.json", "data.yaml", "data.yml")
LARGEST_VALUE = 65_535
"""of a mask"""
LOOKED_FOR = (
    "images with label masks (images/train and masks/train, train/images and train/masks, images and masks, ADE20K's "
    "images/training and annotations/training)"
)


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
    colours: tuple[Colour | None, ...] | None = None
    """of each class in pictures, where the description names any"""

    @property
    def labels(self) -> dict[int, int]:
        """From a value in the masks to the 0-based label."""
        return {value: label for label, value in enumerate(self.values)}


def find_mask_splits(root: str | Path) -> dict[SplitName, MaskSplit]:
    """The splits of a folder of images and masks; empty where it holds none."""
    root = Path(root)
    found: dict[SplitName, MaskSplit] = {}
    for split in NAMES:
        images = next(_split_folders(root, IMAGE_FOLDERS, split), None)
        masks = next((place for place in _split_folders(root, MASK_FOLDERS, split) if _holds_masks(place)), None)
        if images is not None and masks is not None:
            found[split] = MaskSplit(images, masks)
    if found:
        return found
    images = child_folder(root, IMAGE_FOLDERS)
    masks = next((place for place in _folders(root, MASK_FOLDERS) if _holds_masks(place)), None)
    return {} if images is None or masks is None else {"train": MaskSplit(images, masks)}


def read_description(root: str | Path) -> Description | None:
    """The description beside the data, or None where there is none; DataError for one that cannot be used.

    Keys: `classes` (or `names`), a list of names or a mapping from mask value to name; `ignore_index`, one value, a
    list of them, or null (there is nothing to ignore); `reduce_zero_label`: true where a list's first class has the
    value 1 and 0 is ignored, as in ADE20K; `colors`, see `own_colours`.
    """
    file = child(Path(root), DESCRIPTIONS)
    if file is None or not file.is_file():
        return None
    if file.suffix.lower() == ".json":
        content = read_json(file, LARGEST_DESCRIPTION)
    else:
        content = read_yaml(file)
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
    zero = content.get("reduce_zero_label", False) in (True, 1, "true", "True", "yes")
    if isinstance(names, dict):
        if zero:
            raise ValueError("reduce_zero_label is for a list of classes; a mapping says each value itself")
        pairs = [(_value(value), _name(name)) for value, name in names.items()]
    else:
        pairs = [(value, _name(name)) for value, name in enumerate(names, start=int(zero))]
    ignored = content.get("ignore_index", 0 if zero else None)
    ignored = [] if ignored in NOTHING else ignored if isinstance(ignored, list) else [ignored]
    values = tuple(value for value, _ in pairs)
    both = sorted(set(values) & {_value(value) for value in ignored})
    if both or len(set(values)) < len(values):
        raise ValueError(f"mask values {both or sorted(values)} stand for two things at once")
    every = {_value(value) for value in ignored} | ({0} if zero else set())
    described = Description(classes=tuple(name for _, name in pairs), values=values, ignored=frozenset(every))
    return described.model_copy(update={"colours": colours_of(content, described.classes, values)})


def _value(value: Any) -> int:
    """A mask value; JSON writes the keys of a mapping as text, and YAML's are read as text."""
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,20}", str(value)) or int(value) > LARGEST_VALUE:
        raise ValueError(f"{value!r:.40} is no mask value: use whole numbers from 0 to {LARGEST_VALUE}")
    return int(value)


def _name(name: Any) -> str:
    text = as_name(name)
    if text is None:
        raise ValueError(f"{name!r:.40} is no name of a class: names must be texts")
    return text


def _split_folders(root: Path, kinds: tuple[str, ...], split: SplitName) -> Iterator[Path]:
    """The folders of one split for images or masks, inside a folder that is called so, or the other way round."""
    for kind in kinds:
        base = child_folder(root, (kind,))
        yield from [] if base is None else split_folders(base, split)
        inside = (child_folder(folder, (kind,)) for folder in split_folders(root, split))
        yield from (folder for folder in inside if folder is not None)


def _folders(root: Path, names: tuple[str, ...]) -> Iterator[Path]:
    found = (child_folder(root, (name,)) for name in names)
    return (folder for folder in found if folder is not None)


def _holds_masks(folder: Path) -> bool:
    called = {comparable(name) for name in (folder.name, folder.parent.name)}
    any_format = bool(called & {comparable(name) for name in ONLY_MASKS})
    return holds_images(folder, SUFFIXES if any_format else MASK_SUFFIXES)
