"""Images and objects on their way into `packed.PackedImages`: rows are put behind each other as a file has them."""

from __future__ import annotations

import os
import struct
from array import array

import numpy as np

from piip.data.detection.image_records import CocoImage, CocoObject
from piip.data.detection.packed_objects import FIELDS, OBJECT, Buffer, PackedObjects, halves
from piip.data.detection.packed_outlines import packed_outline

Buffers = tuple[Buffer, Buffer, Buffer]
"""rows of images, rows of objects in the order of the images, and texts and outlines"""

IMAGE = struct.Struct("<Qbqq?qqqq")
"""id as in `packed_objects`, height, width, upright, place and length of the path, first object, number of objects"""
COUNTS = np.dtype(
    {"names": ["first", "count"], "formats": ["<i8", "<i8"], "offsets": [IMAGE.size - 16, IMAGE.size - 8],
     "itemsize": IMAGE.size}
)  # fmt: skip
"""the last two, for numpy"""
SIZES = np.dtype({"names": ["height", "width"], "formats": ["<i8", "<i8"], "offsets": [9, 17], "itemsize": IMAGE.size})
"""of the images, for numpy"""


class Packer:
    """Images, and objects in any order of these."""

    def __init__(self) -> None:
        self.images = bytearray()
        self.positions = array("q")
        """of the image of each object"""
        self.rows, self.texts = bytearray(), bytearray()

    def add_image(self, image: CocoImage) -> int:
        """Another image without its objects; its position."""
        path = os.fsencode(image.path)
        self.images += IMAGE.pack(*halves(image.id), *image.size, image.upright, len(self.texts), len(path), 0, 0)
        self.texts += path
        return len(self.images) // IMAGE.size - 1

    def add(self, position: int, obj: CocoObject) -> None:
        """Another object of the image at that position."""
        self.positions.append(position)
        self.rows += self.row(obj)

    def add_rows(self, positions: np.ndarray, rows: np.ndarray) -> None:
        """Objects of the images at these positions [N] int64, as `FIELDS` [N]; their outlines are in `texts`."""
        self.positions.frombytes(positions.tobytes())
        self.rows += rows.tobytes()

    def replace(self, place: int, obj: CocoObject) -> None:
        """Another object instead of the one that was added as number `place`."""
        self.rows[place * OBJECT.size : (place + 1) * OBJECT.size] = self.row(obj)

    def object(self, place: int) -> CocoObject:
        """The object that was added as number `place`."""
        start = place * OBJECT.size
        return PackedObjects(bytes(self.rows[start : start + OBJECT.size]), memoryview(self.texts))[0]

    def fields(self) -> np.ndarray:
        """All objects as they were added, `FIELDS` [N]; none can be added while this is in use."""
        return np.frombuffer(self.rows, FIELDS)

    def by_image(self) -> np.ndarray:
        """Numbers of the objects [N] in the order of the images, those of an image as they were added."""
        return np.argsort(np.frombuffer(self.positions, np.int64), kind="stable")

    def buffers(self) -> Buffers:
        """For `PackedImages.of_buffers`."""
        rows = self.fields()[self.by_image()].tobytes()
        number = len(self.images) // IMAGE.size
        counts = np.bincount(np.frombuffer(self.positions, np.int64), minlength=number)
        of_images = np.frombuffer(self.images, COUNTS)
        of_images["first"], of_images["count"] = np.cumsum(counts) - counts, counts
        return self.images, rows, self.texts

    def row(self, obj: CocoObject) -> bytes:
        """The object as `OBJECT`; its outline is put into `texts`."""
        parts, outline = packed_outline(obj.segmentation)
        start = len(self.texts)
        self.texts += outline
        number = halves(obj.annotation_id)
        return OBJECT.pack(*obj.box, obj.area, *number, obj.label, parts, obj.crowd, start, len(outline))
