"""The objects found in one image, as users get them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from piip import config
from piip.data.object_masks import Masks
from piip.files import atomic_write, free_file, json_text
from piip.heads.mask_rcnn.mask import kept_masks
from piip.pictures.objects import draw_detections, draw_readable
from piip.prediction.coco import CocoResult, detections_to_coco
from piip.prediction.exports import save_picture, supervision_detections
from piip.prediction.familiar import Boxes, DenseMasks, Familiar
from piip.prediction.picture import Picture
from piip.structures import Prediction

if TYPE_CHECKING:
    from supervision import Detections


@dataclass(frozen=True, eq=False, init=False)
class Result(Familiar):
    """The objects found in one image, best first; everything in pixels of the upright image, on the CPU.

    `len(result)` is the number of objects; `result[0]`, `result[:5]` and `result[result.scores > 0.5]` are
    results with some of them, and iterating gives one result per object.
    """

    boxes: Boxes
    """[N, 4] float32 (x1, y1, x2, y2), a tensor that also has `.xyxy`, `.xywh`, `.conf`, `.cls`"""
    scores: Tensor
    """[N] float32, 0 to 1"""
    labels: Tensor
    """[N] int64, 0-based: `names[label]` is the class"""
    names: tuple[str, ...]
    """class names of the model"""
    picture: Picture
    """the image, as `.image` gives it"""
    run_lengths: Masks | None
    """the objects' masks as they are kept; None for a model without masks"""
    path: Path | None
    """the file, where the image came from one"""
    category_ids: tuple[int, ...] | None
    """the training data's own ids of the classes, in label order; None: labels + 1"""

    FURTHER_LISTS: ClassVar[tuple[str, ...]] = ("coco_results",)
    FURTHER_FOLDERS: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        boxes: Tensor,
        scores: Tensor,
        labels: Tensor,
        names: tuple[str, ...],
        image: np.ndarray | Picture,
        masks: Tensor | Masks | None = None,
        path: Path | None = None,
        category_ids: tuple[int, ...] | None = None,
    ) -> None:
        """`image`: [H, W, 3] uint8 RGB, upright, or where it is; `masks`: [N, H, W] bool, or as they are kept."""
        picture = Picture.of(image)
        kept = Masks.of(masks) if isinstance(masks, Tensor) else masks
        boxes = Boxes.of(boxes, scores, labels, picture.size)
        for name, value in zip(
            ("boxes", "scores", "labels", "names", "picture", "run_lengths", "path", "category_ids"),
            (boxes, scores, labels, names, picture, kept, path, category_ids),
            strict=True,
        ):
            object.__setattr__(self, name, value)

    @cached_property
    def masks(self) -> DenseMasks | None:
        """[N, H, W] bool, made when it is first asked for; a tensor that also has outlines, `.xy`. None without masks.

        A byte for each pixel and object: for hundreds in a large image use `run_lengths`, whose `crops()` give one
        object's pixels after the other.
        """
        return None if self.run_lengths is None else DenseMasks.of(self.run_lengths)

    @classmethod
    def of(
        cls,
        prediction: Prediction,
        described: config.Model,
        image: np.ndarray | Picture,
        path: Path | None = None,
        threshold: float = 0.0,
    ) -> Result:
        """The objects of one image (uint8 [H, W, 3], upright) with a score of at least `threshold`, best first."""
        scores = prediction["scores"].float()
        order = scores.argsort(descending=True, stable=True)
        order = order[scores[order] >= threshold]
        boxes, labels = prediction["boxes"].float(), prediction["labels"]
        picture = Picture.of(image)
        masks = kept_masks({name: part[order] for name, part in prediction.items()}, picture.size)
        found = (boxes[order], scores[order], labels[order])
        return cls(*found, described.classes, picture, masks, path, described.category_ids)

    @property
    def count(self) -> int:
        """Objects."""
        return len(self)

    @property
    def class_names(self) -> list[str]:
        """The class of each object."""
        return [self.names[label] for label in self.labels.tolist()]

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: int | slice | list[int] | list[bool] | Tensor | np.ndarray) -> Result:
        index = index.numpy() if isinstance(index, Tensor) else index
        chosen = torch.from_numpy(np.atleast_1d(np.arange(len(self))[index]).copy())
        masks = None if self.run_lengths is None else self.run_lengths[chosen.tolist()]
        kept = (self.boxes[chosen], self.scores[chosen], self.labels[chosen])
        return Result(*kept, self.names, self.picture, masks, self.path, self.category_ids)

    def __iter__(self) -> Iterator[Result]:
        return (self[i] for i in range(len(self)))

    @property
    def found(self) -> str:
        """How many objects of which class, in words."""
        counts: dict[str, int] = {}
        for name in self.class_names:
            counts[name] = counts.get(name, 0) + 1
        return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"

    def __repr__(self) -> str:
        height, width = self.orig_size
        return f"Result({self.found} in {self.path or 'an image'}, {width}x{height} pixels)"

    def plot(self) -> np.ndarray:
        """A copy of the image with the objects drawn on it, [H, W, 3] uint8 RGB."""
        return draw_detections(self.image, self.boxes, self.labels, self.scores, self.run_lengths, self.names)

    def save(self, path: str | Path) -> Path:
        """Write the picture to an image file; the suffix (.jpg, .png, .webp) says which kind.

        It is as `plot()` makes it, but a small image is enlarged to at least 640 pixels first, so that one can read it,
        and where nothing was found it says so.

        Raises:
            ValueError: a suffix of no image format
        """
        return save_picture(self.readable, Path(path))

    def readable(self) -> np.ndarray:
        """What `save` writes, [H, W, 3] uint8 RGB."""
        return draw_readable(self.image, self.boxes, self.labels, self.scores, self.run_lengths, self.names)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings: path, width, height and a list of objects.

        Boxes are rounded to 1/100 pixel, scores to 1/10000. Masks are uncompressed COCO run lengths.
        """
        height, width = self.orig_size
        rows = zip(self.labels.tolist(), self.class_names, self.scores.tolist(), self.boxes.tolist(), strict=True)
        objects: list[dict[str, Any]] = [
            {"label": label, "name": name, "score": round(score, 4), "box": [round(side, 2) for side in box]}
            for label, name, score, box in rows
        ]
        if self.run_lengths is not None:
            for entry, runs in zip(objects, self.run_lengths.runs, strict=True):
                entry["segmentation"] = {"size": [height, width], "counts": runs.tolist()}
        path = None if self.path is None else str(self.path)
        return {"path": path, "width": width, "height": height, "objects": objects}

    def save_txt(self, path: str | Path, save_conf: bool = False) -> Path:
        """Write YOLO labels, a line for each object: label, centre, width and height in parts of the image[, score].

        What is in the file is written over.
        """
        lines = []
        for label, box, score in zip(
            self.labels.tolist(), self.boxes.xywhn.tolist(), self.scores.tolist(), strict=True
        ):
            numbers = [*box, score] if save_conf else box
            lines.append(" ".join((str(label), *(f"{number:.6g}" for number in numbers))) + "\n")
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text("".join(lines))
        return path

    def save_crop(self, folder: str | Path, name: str | None = None) -> list[Path]:
        """Write the part of the image in each box to `folder`/CLASS/NAME.jpg, with a number where that is taken.

        `name`: None: the image's. Boxes of no pixel are left out.
        """
        stem = name or ("image" if self.path is None else self.path.stem)
        image = self.image if len(self) else None
        written = []
        for label, box in zip(self.labels.tolist(), self.boxes.tolist(), strict=True):
            left, top, right, bottom = (max(0, round(side)) for side in box)
            assert image is not None
            crop = image[top:bottom, left:right]
            if 0 not in crop.shape:
                place = Path(folder) / "".join(c if c.isalnum() or c in " -_" else "_" for c in self.names[label])
                written.append(save_picture(crop.copy, free_file(place / f"{stem}.jpg")))
        return written

    def to_json(self) -> str:
        """`to_dict` as a JSON text."""
        return json_text(self.to_dict())

    def to_coco(self, image_id: int, category_ids: tuple[int, ...] | None = None) -> list[CocoResult]:
        """Entries of a COCO result file; `category_ids[label]` is the id written for a label, None for the result's."""
        ids = category_ids or self.category_ids or tuple(range(1, len(self.names) + 1))
        prediction: Prediction = {"boxes": self.boxes, "scores": self.scores, "labels": self.labels}
        return detections_to_coco(prediction, image_id, ids, masks=self.run_lengths)

    def further_entries(self, number: int) -> dict[str, list[dict[str, Any]]]:
        """What `piip predict` writes into each of `FURTHER_LISTS` for the image of that number, counted from 1."""
        return {"coco_results": self.to_coco(number)}

    def save_further(self, folder: Path, stem: str) -> dict[str, str]:
        """Writes this result's files of its own kind; there are none."""
        return {}

    def to_supervision(self) -> Detections:
        """The objects as `supervision.Detections`.

        Raises:
            ImportError: supervision is not installed
        """
        return supervision_detections()(
            xyxy=self.boxes.numpy(),
            mask=None if self.run_lengths is None else self.run_lengths.dense().numpy(),
            confidence=self.scores.numpy(),
            class_id=self.labels.numpy(),
            data={"class_name": np.array(self.class_names, dtype=str)},
        )
