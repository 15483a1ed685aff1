"""What a prediction can be told, in one place: names and their other names, what is usual, what is allowed.

A new option is a field of `Options`, a line in `ALLOWED`, its other names in `ALIASES`, and all of its names in
`FurtherOptions`. Whoever predicts passes `Options` on, so that nothing else has to know of it but what uses it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from typing_extensions import Self, TypedDict

from piip.config import ImageSize
from piip.tiles.grid import OVERLAP

Precision = Literal["fp32", "bf16", "fp16"]
AUTO: Literal["auto"] = "auto"
USUAL = 0.25
"""of classes without a threshold of their own"""
Conf = float | Literal["auto"] | Mapping[str, float]
"""a score; "auto": the weights' own, of the best F1 of each class; or scores by class name"""


class Allowed(NamedTuple):
    """The values that an option takes, None among them where that is what is usual."""

    test: Callable[[Any], bool]
    remedy: str
    """what to use instead of a wrong one"""


def _number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _class(value: object) -> bool:
    return isinstance(value, str) or _whole(value)


def _score(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) <= 1


def _scores(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) and _score(value[name]) for name in value)


ALLOWED: dict[str, Allowed] = {
    "conf": Allowed(
        lambda value: value == AUTO if isinstance(value, str) else _score(value) or _scores(value),
        "use a number from 0 to 1, 'auto' for the weights' own, or a number for each class by its name",
    ),
    "batch_size": Allowed(lambda value: _whole(value) and value >= 1, "use a whole number, 1 or more"),
    "precision": Allowed(lambda value: value in get_args(Precision), f"use one of {', '.join(get_args(Precision))}"),
    "image_size": Allowed(
        lambda value: value is None or value == "native" or (_whole(value) and value >= 1),
        "use the longer side in pixels, or 'native' for images as they are",
    ),
    "detections": Allowed(
        lambda value: value is None or (_whole(value) and value >= 1), "use a whole number, 1 or more"
    ),
    "max_pixels": Allowed(
        lambda value: value is None or (_whole(value) and value >= 1), "use a whole number, 1 or more"
    ),
    "workers": Allowed(lambda value: _whole(value) and value >= 0, "use a whole number, 0 or more"),
    "recursive": Allowed(lambda value: isinstance(value, bool), "use True or False"),
    "classes": Allowed(
        lambda value: value is None or (isinstance(value, list | tuple) and all(map(_class, value))),
        "use a list of names or numbers of classes",
    ),
    "bgr": Allowed(lambda value: isinstance(value, bool), "use True or False"),
    "tiles": Allowed(
        lambda value: value is None or (_whole(value) and value >= 1), "use the side of a tile in pixels of the image"
    ),
    "overlap": Allowed(lambda value: _number(value) and 0 <= value < 1, "use a share of a tile's side, 0 to below 1"),
}

ALIASES: dict[str, str] = {
    "threshold": "conf",
    "score_threshold": "conf",
    "confidence": "conf",
    "batch": "batch_size",
    "half": "precision",
    "imgsz": "image_size",
    "max_det": "detections",
    "tile": "tiles",
    "max_detections": "detections",
    "num_workers": "workers",
}
"""names that hands know from elsewhere"""


class FurtherOptions(TypedDict, total=False):
    """For type checkers: what is said by keyword only; None: as is usual."""

    threshold: Conf | None
    score_threshold: Conf | None
    confidence: Conf | None
    batch: int | None
    half: bool | None
    image_size: ImageSize | None
    imgsz: ImageSize | None
    detections: int | None
    max_det: int | None
    max_detections: int | None
    max_pixels: int | None
    workers: int | None
    num_workers: int | None
    recursive: bool | None
    classes: Sequence[str | int] | None
    bgr: bool | None
    tiles: int | None
    tile: int | None
    overlap: float | None


class PredictOptions(FurtherOptions, total=False):
    """For type checkers: what `predict` may be told by keyword beside its source."""

    conf: Conf | None
    save: str | Path | bool | None
    batch_size: int | None
    precision: Precision | None


@dataclass(frozen=True)
class Options:
    """How to predict; ValueError for a value that is not allowed.

    >>> Options.of(threshold=0.5, batch=8) == Options(conf=0.5, batch_size=8)
    True
    """

    conf: Conf = USUAL
    """lowest score of an object that counts, 0 to 1; "auto" for that of the best F1 of each class, as the weights hold
    it; or one for each class by its name, where those without one have the usual; tasks without objects have no use
    for it"""
    batch_size: int = 1
    """images per forward pass, of one padded size, so that results do not depend on it"""
    precision: Precision = "fp32"
    """of the matrix products"""
    image_size: ImageSize | None = None
    """limit of the longer side of the network's input in pixels, "native" for images as they are, None for the model's
    own; the shorter side's limit follows in proportion"""
    detections: int | None = None
    """objects of an image at most, the best; None: as many as the model keeps. A Mask R-CNN looks at as many more
    places; a DINO cannot find more than it has queries. Of `tiles` the whole image's: a tile has as many as the model
    keeps, and up to so many where it is crowded"""
    max_pixels: int | None = None
    """width times height of a file at most, where that is more than usually (`data.image_files.MAX_PIXELS`); larger
    files, and TIFFs of other kinds of pixels, are then read by `data.windows`"""
    workers: int = 0
    """processes that read files beside the model; results do not depend on it"""
    recursive: bool = False
    """of folders, the images in their folders too"""
    classes: Sequence[str | int] | None = None
    """detection: names or labels of those that are wanted; None: all"""
    bgr: bool = False
    """arrays have blue first, as OpenCV reads them"""
    tiles: int | None = None
    """side, in pixels of the image, of tiles that are predicted one by one and joined; None: the whole image at once.
    Each becomes the network's input as an image would, so that tiles of the input's size show an image's own pixels"""
    overlap: float = OVERLAP
    """least share of its side that a tile has in common with the next"""

    def __post_init__(self) -> None:
        for name, allowed in ALLOWED.items():
            _require(name, getattr(self, name), allowed)

    @classmethod
    def of(cls, **given: Any) -> Self:
        """The options that keywords name; of those not given, or None, what is usual.

        Raises:
            TypeError: a keyword that is none, with those that are near; or two for one option.
            ValueError: a value that is not allowed.
        """
        named: dict[str, Any] = {}
        for keyword, value in given.items():
            name = meant(keyword)
            if value is None:
                continue
            if name in named:
                raise TypeError(f"{keyword} and another name of {name} are given; use one of them")
            if keyword == "half":
                value = "fp16" if value else "fp32"
            _require(keyword, value, ALLOWED[name])
            named[name] = value
        return cls(**named)


NAMES = tuple(option.name for option in fields(Options))


def labels_of(classes: Sequence[str | int] | None, names: Sequence[str]) -> list[int] | None:
    """The labels of classes given by name, or by label as a number or its text.

    ValueError, with the near ones, for one that there is not.
    """
    if classes is None:
        return None
    labels = []
    for chosen in classes:
        if isinstance(chosen, str) and chosen not in names and chosen.isdecimal():
            chosen = int(chosen)  # a class that is called "7" comes first
        if isinstance(chosen, str) and chosen not in names:
            near = difflib.get_close_matches(chosen, names, n=3) or names[:5]
            raise ValueError(f"there is no class {chosen!r}; near are {', '.join(near)}")
        label = names.index(chosen) if isinstance(chosen, str) else int(chosen)
        if not 0 <= label < len(names):
            raise ValueError(f"there is no class {label}: the model has {len(names)}, counted from 0")
        labels.append(label)
    return labels


def meant(keyword: str) -> str:
    """The option of this name or alias; TypeError, with the near ones, where there is none."""
    known = {name: name for name in NAMES} | ALIASES
    if keyword not in known:
        near = difflib.get_close_matches(keyword, known, n=2)
        proposed = f"did you mean {' or '.join(near)}?" if near else f"the options are {', '.join(NAMES)}"
        raise TypeError(f"there is no option {keyword!r}; {proposed}")
    return known[keyword]


def _require(name: str, value: object, allowed: Allowed) -> None:
    if not allowed.test(value):
        raise ValueError(f"{name} {value!r}: {allowed.remedy}")


EVERYTHING = Options(conf=0.0)
"""for an evaluation, which counts every object with its score"""
