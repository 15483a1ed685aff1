"""Results by the names that hands know from elsewhere. Boxes and masks stay the tensors that they are."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from typing_extensions import Self

from piip.data.object_masks import Masks
from piip.prediction.outlines import outline
from piip.prediction.picture import Picture
from piip.structures import Size

if TYPE_CHECKING:
    from pandas import DataFrame


class Boxes(Tensor):
    """Boxes [N, 4] float32 (x1, y1, x2, y2): a tensor as any other, and what is computed with it is a plain one.

    Beside that `.xyxy`, `.xywh`, `.xyxyn`, `.xywhn`, `.conf` and `.cls`, as they are called elsewhere.
    """

    # What an operation gives are other numbers, which have no longer these scores.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    conf: Tensor
    """[N] scores"""
    cls: Tensor
    """[N] int64 labels"""
    orig_shape: Size
    """(height, width) of the image"""

    @classmethod
    def of(cls, boxes: Tensor, scores: Tensor, labels: Tensor, orig_shape: Size) -> Boxes:
        """The same memory, and what belongs to it."""
        view = boxes.detach().as_subclass(cls)
        view.conf, view.cls, view.orig_shape = scores, labels, orig_shape
        return view

    @property
    def xyxy(self) -> Tensor:
        """[N, 4] (x1, y1, x2, y2), a plain tensor of the same memory."""
        return self[:]

    @property
    def xywh(self) -> Tensor:
        """[N, 4] (centre x, centre y, width, height)."""
        return torch.cat(((self[:, :2] + self[:, 2:]) / 2, self[:, 2:] - self[:, :2]), dim=1)

    @property
    def xyxyn(self) -> Tensor:
        """`xyxy` in parts of the image's width and height."""
        return self.xyxy / self._sides

    @property
    def xywhn(self) -> Tensor:
        """`xywh` in parts of the image's width and height, as YOLO's label files have it."""
        return self.xywh / self._sides

    @property
    def _sides(self) -> Tensor:
        height, width = self.orig_shape
        return torch.tensor([width, height, width, height], dtype=torch.float32)

    def __deepcopy__(self, memo: dict[int, Any]) -> Boxes:
        conf, labels = copy.deepcopy(self.conf, memo), copy.deepcopy(self.cls, memo)
        memo[id(self)] = copied = Boxes.of(self[:].clone(), conf, labels, self.orig_shape)
        return copied


class DenseMasks(Tensor):
    """Masks [N, H, W] bool, with their outlines as `.xy` and `.xyn`."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    kept: Masks

    @classmethod
    def of(cls, kept: Masks) -> DenseMasks:
        """All pixels of masks that are kept as run lengths."""
        view = kept.dense().as_subclass(cls)
        view.kept = kept
        return view

    @property
    def xy(self) -> list[np.ndarray]:
        """[K, 2] float32 (x, y) of each object's largest outline, along the edges of pixels."""
        return [outline(crop) for crop in self.kept.crops()]

    @property
    def xyn(self) -> list[np.ndarray]:
        """`xy` in parts of the image's width and height."""
        height, width = self.kept.size
        return [points / np.array((width, height), dtype=np.float32) for points in self.xy]

    def __deepcopy__(self, memo: dict[int, Any]) -> DenseMasks:
        memo[id(self)] = copied = DenseMasks.of(self.kept)
        return copied


class Familiar:
    """What all results have beside their own."""

    picture: Picture
    names: tuple[str, ...]
    path: Path | None
    speed: Mapping[str, float] = MappingProxyType({})
    """milliseconds of this image: "preprocess" (reading and resizing), "inference", "postprocess"; those of a batch are
    shared out"""
    frame: int | None = None
    """of a clip: the image's number in it, from 0"""
    seconds: float | None = None
    """of a clip: when the image is shown"""

    def of_frame(self, number: int, seconds: float) -> Self:
        """This result, as that of a clip's frame."""
        object.__setattr__(self, "frame", number)
        object.__setattr__(self, "seconds", seconds)
        return self

    def timed(self, preprocess: float, inference: float, postprocess: float) -> Self:
        """This result, with its milliseconds."""
        times = {"preprocess": preprocess, "inference": inference, "postprocess": postprocess}
        object.__setattr__(self, "speed", {name: round(time, 3) for name, time in times.items()})
        return self

    def plot(self) -> np.ndarray:
        """A picture, [H, W, 3] uint8 RGB."""
        raise NotImplementedError

    def plot_frame(self) -> np.ndarray:
        """As `plot`; of one size for all frames of a clip."""
        return self.plot()

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        raise NotImplementedError

    @property
    def image(self) -> np.ndarray:
        """[H, W, 3] uint8 RGB, upright; of a file it is read when it is asked for, each time, and not kept.

        ImageError where the file is gone or has changed since.
        """
        return self.picture.read()

    @property
    def orig_size(self) -> Size:
        """(height, width) of the image."""
        return self.picture.size

    @property
    def orig_img(self) -> np.ndarray:
        """[H, W, 3] uint8 RGB (not BGR), upright: `image`."""
        return self.image

    @property
    def orig_shape(self) -> Size:
        """(height, width) of the image."""
        return self.picture.size

    def show(self) -> None:
        """Show `plot()` in the system's viewer of pictures."""
        Image.fromarray(self.plot()).show()

    def summary(self) -> list[dict[str, Any]]:
        """A row for each object or class, as `to_dict` has them, of plain numbers and strings."""
        return next(value for value in self.to_dict().values() if isinstance(value, list))

    def to_df(self) -> DataFrame:
        """`summary()` as a table of pandas, with the path; ImportError where pandas is not installed."""
        try:
            from pandas import DataFrame
        except ImportError:
            raise ImportError("to_df needs pandas: pip install pandas") from None
        path = None if self.path is None else str(self.path)
        return DataFrame([{"path": path, **_flat(row)} for row in self.summary()])


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row with a number for each cell: the sides of a box apart, masks left out."""
    flat = {name: value for name, value in row.items() if name not in ("box", "segmentation")}
    return flat | dict(zip(("x1", "y1", "x2", "y2"), row.get("box", ()), strict=False))
