"""Image records in three runs of bytes instead of millions of objects; the records are made when they are asked for.

800,000 objects with outlines of 29 points take 0.45 GB so.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from piip.data.detection.image_records import Box, CocoImage
from piip.data.detection.packed_objects import CROWD, FIELDS, LABEL, OBJECT, PackedObjects, whole
from piip.data.detection.packer import COUNTS, IMAGE, SIZES, Buffers, Packer
from piip.data.packed import Packed


class PackedImages(Packed[CocoImage]):
    """Images with their objects, as a list of `CocoImage` would have them.

    Its bytes are rows of images, rows of objects in the order of the images, and texts and outlines.
    """

    ROW = IMAGE

    def packed(self, records: Iterable[CocoImage]) -> Buffers:
        """As of `Packed`."""
        packer = Packer()
        for image in records:
            position = packer.add_image(image)
            for obj in image.objects:
                packer.add(position, obj)
        return packer.buffers()

    def record(self, row: tuple[Any, ...]) -> CocoImage:
        """As of `Packed`: a row of `IMAGE`."""
        low, high, height, width, upright, place, length, first, count = row
        _, rows, texts = self.parts
        path = Path(os.fsdecode(bytes(texts[place : place + length])))
        objects = PackedObjects(rows[first * OBJECT.size : (first + count) * OBJECT.size], texts) if count else ()
        return CocoImage(whole(low, high), path, (height, width), upright, objects)

    def places(self, index: int) -> tuple[Path, list[tuple[int, Box]]]:
        """The file of an image, and label and box of its objects that are no crowds: without making their outlines."""
        *_, place, length, first, count = IMAGE.unpack_from(self.parts[0], range(len(self))[index] * IMAGE.size)
        path = Path(os.fsdecode(bytes(self.parts[2][place : place + length])))
        rows = self.parts[1][first * OBJECT.size : (first + count) * OBJECT.size]
        return path, [(row[LABEL], row[:4]) for row in OBJECT.iter_unpack(rows) if not row[CROWD]]

    def sizes(self) -> np.ndarray:
        """[images, 2] int64: height and width."""
        fields = np.frombuffer(self.parts[0], SIZES)
        return np.stack((fields["height"], fields["width"]), axis=1)

    def labels(self) -> np.ndarray:
        """Of all objects that are not crowds, [N] int32, in the order of the images."""
        fields = np.frombuffer(self.parts[1], FIELDS)
        return fields["label"][~fields["crowd"]]

    def relabelled(self, labels: Sequence[int]) -> PackedImages:
        """The same with `labels[label]` in place of each object's label, crowds' too."""
        fields = np.frombuffer(self.parts[1], FIELDS).copy()
        fields["label"] = np.array(labels, np.int32)[fields["label"]] if len(fields) else 0
        return PackedImages.of_buffers((self.parts[0], fields.tobytes(), self.parts[2]))

    def used_labels(self) -> set[int]:
        """Of all objects, crowds' too."""
        return set(np.unique(np.frombuffer(self.parts[1], FIELDS)["label"]).tolist())

    def object_counts(self) -> np.ndarray:
        """[images, 2] int64: the objects of each image, and those that are not crowds."""
        crowds = np.frombuffer(self.parts[1], FIELDS)["crowd"]
        until = np.concatenate(([0], np.cumsum(~crowds)))
        rows = np.frombuffer(self.parts[0], COUNTS)
        first, count = rows["first"], rows["count"]
        return np.stack((count, until[first + count] - until[first]), axis=1)
