"""What was found in the tiles of one image, in its pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from piip.data.object_masks import Crop, Masks
from piip.heads.mask_rcnn.mask import kept_masks
from piip.structures import Prediction, Size
from piip.tiles.grid import Tile

MARGIN = 0.02
"""of a tile's side: an object that ends so near to its border may go on beyond it"""


@dataclass(frozen=True, eq=False)
class Found:
    """N objects of an image, each seen in one tile."""

    boxes: np.ndarray
    """[N, 4] float64 (x1, y1, x2, y2) in pixels of the image"""
    scores: np.ndarray
    """[N] float64"""
    labels: np.ndarray
    """[N] int64"""
    tiles: np.ndarray
    """[N, 4] int64: the tile of each"""
    tile: np.ndarray
    """[N] int64: its position in the list of tiles"""
    size: Size
    """of the image"""
    masks: Masks | None = None

    @classmethod
    def of(cls, found: Iterable[tuple[Tile, Prediction]], size: Size) -> Found:
        """Of the predictions of an image's tiles, each in pixels of its tile; masks become run lengths at once."""
        boxes, scores, labels, tiles = [], [], [], []
        runs: list[np.ndarray] = []
        with_masks = False
        for tile, prediction in found:
            corner = np.array([tile.left, tile.top] * 2)
            boxes.append(prediction["boxes"].double().numpy().reshape(-1, 4) + corner)
            scores.append(prediction["scores"].double().numpy())
            labels.append(prediction["labels"].numpy())
            tiles.append(tile)
            masks = kept_masks(prediction, (tile.bottom - tile.top, tile.right - tile.left))
            if masks is not None:
                with_masks = True
                moved = (Crop(crop.pixels, crop.top + tile.top, crop.left + tile.left) for crop in masks.crops())
                runs += Masks.of_crops(moved, size).runs
        counts = [len(one) for one in boxes]
        return cls(
            np.concatenate(boxes),
            np.concatenate(scores),
            np.concatenate(labels),
            np.repeat(np.array(tiles), counts, axis=0),
            np.repeat(np.arange(len(tiles)), counts),
            size,
            Masks(size, tuple(runs)) if with_masks else None,
        )

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def cut(self) -> np.ndarray:
        """[N, 4] bool: left, top, right, bottom; whether the object may go on beyond that border of its tile."""
        height, width = self.size
        sides = self.tiles[:, 2:] - self.tiles[:, :2]
        margin = np.maximum(2, MARGIN * np.concatenate((sides, sides), axis=1))
        inner = self.tiles != np.array([0, 0, width, height])
        return inner & (np.abs(self.boxes - self.tiles) <= margin)

    def as_prediction(self, order: np.ndarray) -> tuple[Prediction, Masks | None]:
        """The objects of these numbers as a prediction, and their masks."""
        prediction = {
            "boxes": torch.from_numpy(self.boxes[order]).float(),
            "scores": torch.from_numpy(self.scores[order]).float(),
            "labels": torch.from_numpy(self.labels[order]),
        }
        return prediction, None if self.masks is None else self.masks[order.tolist()]
