"""What a classification of one image returns to the user."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from piip.pictures.probabilities import draw_probabilities
from piip.prediction.objects import save_picture
from piip.structures import Size

TOP = 5


@dataclass(frozen=True, eq=False)
class ClassificationResult:
    """The probabilities of all classes for one upright image, on the CPU."""

    probs: Tensor
    """[K] float32, summing to 1"""
    names: tuple[str, ...]
    """class names of the model, in label order"""
    image: np.ndarray
    """[H, W, 3] uint8 RGB, upright"""
    path: Path | None = None
    """the file, where the image came from one"""

    @property
    def orig_size(self) -> Size:
        """(height, width) of the image."""
        return self.image.shape[0], self.image.shape[1]

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
        """Write `plot()` to an image file; the suffix (.jpg, .png, .webp) says which kind.

        Raises:
            ValueError: a suffix of no image format
        """
        return save_picture(self.plot, Path(path))

    def to_dict(self, count: int = TOP) -> dict[str, Any]:
        """Plain numbers and strings: path, width, height and the `count` most probable classes."""
        height, width = self.orig_size
        top = [{"label": label, "name": name, "probability": round(p, 4)} for label, name, p in self._ranked(count)]
        path = None if self.path is None else str(self.path)
        return {"path": path, "width": width, "height": height, "top": top}

    def to_json(self) -> str:
        """`to_dict` as a JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def __repr__(self) -> str:
        found = ", ".join(f"{name} {probability:.2f}" for name, probability in self.top(3))
        height, width = self.orig_size
        return f"ClassificationResult({found} in {self.path or 'an image'}, {width}x{height} pixels)"
