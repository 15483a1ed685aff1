"""The class of every pixel of one image, as users get it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from PIL import Image

from piip import config
from piip.files import atomic_write, json_text
from piip.pictures.colours import Colour, area_colour
from piip.pictures.label_map import draw_labels, draw_labels_of_frame, draw_readable_labels, shares
from piip.prediction.exports import save_picture, supervision_detections
from piip.prediction.familiar import Familiar
from piip.prediction.picture import Picture
from piip.structures import Prediction

if TYPE_CHECKING:
    from supervision import Detections


@dataclass(frozen=True, eq=False, init=False)
class SegmentationResult(Familiar):
    """The class of every pixel of one upright image."""

    labels: np.ndarray
    """[H, W] int32, 0-based: `names[label]` is the class"""
    scores: np.ndarray
    """[H, W] float32: the probability of each pixel's class"""
    names: tuple[str, ...]
    """class names of the model"""
    picture: Picture
    """the image, as `.image` gives it"""
    values: tuple[int, ...] | None
    """the value of each class in a mask file; None: the label"""
    path: Path | None
    """the file, where the image came from one"""
    colours: tuple[Colour | None, ...] | None
    """of the classes in pictures and masks, as the training data names them"""

    FURTHER_LISTS: ClassVar[tuple[str, ...]] = ()
    FURTHER_FOLDERS: ClassVar[tuple[str, ...]] = ("masks",)

    def __init__(
        self,
        labels: np.ndarray,
        scores: np.ndarray,
        names: tuple[str, ...],
        picture: np.ndarray | Picture,
        values: tuple[int, ...] | None = None,
        path: Path | None = None,
        colours: tuple[Colour | None, ...] | None = None,
    ) -> None:
        """`picture`: [H, W, 3] uint8 RGB, upright, or where it is."""
        for name, value in zip(
            ("labels", "scores", "names", "picture", "values", "path", "colours"),
            (labels, scores, names, Picture.of(picture), values, path, colours),
            strict=True,
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
    ) -> SegmentationResult:
        """The label map of one image (uint8 [H, W, 3], upright); no `threshold`: every pixel has its best class."""
        labels, scores = prediction["labels"].to(torch.int32).numpy(), prediction["scores"].float().numpy()
        return cls(labels, scores, described.classes, image, described.category_ids, path, described.colours)

    @property
    def count(self) -> None:
        """Label maps have no objects to count."""

    @property
    def shares(self) -> dict[str, float]:
        """Share of the image of each class that is there, the largest first."""
        return {self.names[label]: share for label, share in shares(self.labels).items()}

    def mask(self, name: str) -> np.ndarray:
        """[H, W] bool: the pixels of the class of that name."""
        if name not in self.names:
            raise ValueError(f"there is no class {name!r}; the classes are {', '.join(self.names)}")
        return np.asarray(self.labels == self.names.index(name))

    def plot(self) -> np.ndarray:
        """The image under the colours of its classes with a legend at its right, [H, W', 3] uint8 RGB."""
        return draw_labels(self.image, self.labels, self.names, self.colours)

    def plot_frame(self) -> np.ndarray:
        """As `plot`; of one size for all frames of a clip."""
        return draw_labels_of_frame(self.image, self.labels, self.names, self.colours)

    def save(self, path: str | Path) -> Path:
        """Write the picture to an image file; the suffix (.jpg, .png, .webp) says which kind.

        It is as `plot()` makes it, of a small image enlarged to at least 640 pixels.

        Raises:
            ValueError: a suffix of no image format
        """
        return save_picture(self.readable, Path(path))

    def readable(self) -> np.ndarray:
        """What `save` writes, [H, W, 3] uint8 RGB."""
        return draw_readable_labels(self.image, self.labels, self.names, self.colours)

    def to_mask(self) -> Image.Image:
        """An index mask: the value of each pixel's class, with a palette where the values are below 256."""
        values = np.asarray(range(len(self.names)) if self.values is None else self.values)
        mask = values[self.labels]
        if values.max() > 255:
            return Image.fromarray(mask.astype(np.uint16))
        picture = Image.fromarray(mask.astype(np.uint8), mode="L")
        palette = np.zeros((256, 3), dtype=np.uint8)
        for label, value in enumerate(values.tolist()):
            palette[value] = area_colour(label, self.colours)
        picture.putpalette(palette.tobytes())
        return picture

    def save_mask(self, path: str | Path) -> Path:
        """Write `to_mask()` as PNG."""
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise ValueError(f"{path}: masks are saved as .png, which keeps every value as it is")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            self.to_mask().save(temporary, format="PNG")
        return path

    def further_entries(self, number: int) -> dict[str, list[dict[str, Any]]]:
        """What `piip predict` writes into each of `FURTHER_LISTS`: there are none."""
        return {}

    def save_further(self, folder: Path, stem: str) -> dict[str, str]:
        """Writes `masks/STEM.png` below `folder`, and says so for the image's entry."""
        mask = self.save_mask(folder / "masks" / f"{stem}.png")
        return {"mask": f"masks/{mask.name}"}

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings: path, width, height, and of each class that is there share and mean score."""
        height, width = self.orig_size
        classes = []
        for label, share in shares(self.labels).items():
            score = float(self.scores[self.labels == label].mean())
            value = label if self.values is None else self.values[label]
            classes.append(
                {
                    "label": label,
                    "value": value,
                    "name": self.names[label],
                    "share": round(share, 6),
                    "score": round(score, 4),
                }
            )
        path = None if self.path is None else str(self.path)
        return {"path": path, "width": width, "height": height, "classes": classes}

    def to_json(self) -> str:
        """`to_dict` as a JSON text."""
        return json_text(self.to_dict())

    def to_supervision(self) -> Detections:
        """One `supervision.Detections` entry per class that is there: its mask and the box around it.

        Raises:
            ImportError: supervision is not installed
        """
        detections = supervision_detections()
        labels = list(shares(self.labels))
        masks = np.array([self.labels == label for label in labels]).reshape(-1, *self.orig_size)
        scores = [self.scores[mask].mean() for mask in masks]
        return detections(
            xyxy=np.array([_box(mask) for mask in masks], dtype=np.float32).reshape(-1, 4),
            mask=masks,
            confidence=np.array(scores, dtype=np.float32),
            class_id=np.array(labels, dtype=np.int64),
            data={"class_name": np.array([self.names[label] for label in labels], dtype=str)},
        )

    @property
    def found(self) -> str:
        """The classes that cover most, in words."""
        return ", ".join(f"{name} {share:.0%}" for name, share in list(self.shares.items())[:5])

    def __repr__(self) -> str:
        height, width = self.orig_size
        return f"SegmentationResult({self.found} in {self.path or 'an image'}, {width}x{height} pixels)"


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(x1, y1, x2, y2) of the smallest box around the pixels of a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
