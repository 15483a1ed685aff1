"""The probabilities of all classes for one image, as users get them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from piip import config
from piip.files import json_text
from piip.pictures.probabilities import draw_probabilities, draw_readable_probabilities
from piip.prediction.exports import save_picture
from piip.prediction.familiar import Familiar
from piip.prediction.picture import Picture
from piip.structures import Prediction

TOP = 5


@dataclass(frozen=True, eq=False, init=False)
class ClassificationResult(Familiar):
    """The probabilities of all classes for one upright image, on the CPU."""

    probs: Tensor
    """[K] float32, summing to 1"""
    names: tuple[str, ...]
    """class names of the model, in label order"""
    picture: Picture
    """the image, as `.image` gives it"""
    path: Path | None
    """the file, where the image came from one"""

    FURTHER_LISTS: ClassVar[tuple[str, ...]] = ()
    FURTHER_FOLDERS: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, probs: Tensor, names: tuple[str, ...], picture: np.ndarray | Picture, path: Path | None = None
    ) -> None:
        """`picture`: [H, W, 3] uint8 RGB, upright, or where it is."""
        for name, value in zip(
            ("probs", "names", "picture", "path"), (probs, names, Picture.of(picture), path), strict=True
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def of(
        cls,
        prediction: Prediction,
        described: config.Model,
        image: np.ndarray | Picture,
        path: Path | None = None,
        threshold: float = 0.0,
    ) -> ClassificationResult:
        """The classes of one image (uint8 [H, W, 3], upright); no `threshold`: there always is a most probable one."""
        return cls(prediction["probs"], described.classes, image, path)

    @property
    def count(self) -> None:
        """Probabilities have no objects to count."""

    @property
    def top1(self) -> str:
        """Name of the most probable class."""
        return self.names[int(self.probs.argmax())]

    @property
    def top5(self) -> list[str]:
        """Names of the five most probable classes (of all, where there are fewer), the best first."""
        return [name for name, _ in self.top(TOP)]

    def top(self, count: int = TOP) -> list[tuple[str, float]]:
        """Names and probabilities of the `count` most probable classes, the best first."""
        return [(name, probability) for _, name, probability in self._ranked(count)]

    def _ranked(self, count: int) -> list[tuple[int, str, float]]:
        values, labels = self.probs.topk(min(count, len(self.names)))
        return [
            (label, self.names[label], value) for label, value in zip(labels.tolist(), values.tolist(), strict=True)
        ]

    def plot(self) -> np.ndarray:
        """The image with the most probable classes written below it, [H', W', 3] uint8 RGB."""
        return draw_probabilities(self.image, self._ranked(TOP))

    def save(self, path: str | Path) -> Path:
        """Write the picture to an image file; the suffix (.jpg, .png, .webp) says which kind.

        It is as `plot()` makes it, of a small image enlarged to at least 640 pixels.

        Raises:
            ValueError: a suffix of no image format
        """
        return save_picture(self.readable, Path(path))

    def readable(self) -> np.ndarray:
        """What `save` writes, [H, W, 3] uint8 RGB."""
        return draw_readable_probabilities(self.image, self._ranked(TOP))

    def further_entries(self, number: int) -> dict[str, list[dict[str, Any]]]:
        """What `piip predict` writes into each of `FURTHER_LISTS`: there are none."""
        return {}

    def save_further(self, folder: Path, stem: str) -> dict[str, str]:
        """Writes this result's files of its own kind; there are none."""
        return {}

    def to_dict(self, count: int = TOP) -> dict[str, Any]:
        """Plain numbers and strings: path, width, height and the `count` most probable classes."""
        height, width = self.orig_size
        top = [{"label": label, "name": name, "probability": round(p, 4)} for label, name, p in self._ranked(count)]
        path = None if self.path is None else str(self.path)
        return {"path": path, "width": width, "height": height, "top": top}

    def to_json(self) -> str:
        """`to_dict` as a JSON text."""
        return json_text(self.to_dict())

    @property
    def found(self) -> str:
        """The most probable classes, in words."""
        return ", ".join(f"{name} {probability:.2f}" for name, probability in self.top(3))

    def __repr__(self) -> str:
        height, width = self.orig_size
        return f"ClassificationResult({self.found} in {self.path or 'an image'}, {width}x{height} pixels)"
