"""Image records in three runs of bytes instead of millions of objects; the records are made when they are asked for.

800,000 objects with outlines of 29 points take 0.45 GB so. A process that is started to read images, or that shares a
training, uses the same memory: a file in the temporary folder, see `shared_file`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from piip.data.detection.image_records import CocoImage
from piip.data.detection.packed_objects import FIELDS, OBJECT, PackedObjects, whole
from piip.data.detection.packer import COUNTS, IMAGE, Buffers, Packer
from piip.data.shared_file import SharedFile, passing, shared


class PackedImages(Sequence[CocoImage]):
    """Images with their objects, as a list of `CocoImage` would have them; cannot be changed.

    Pickled, it is the bytes; on the way to another process of the machine, the name of a file that both use.
    """

    def __init__(self, images: Iterable[CocoImage] = ()) -> None:
        packer = Packer()
        for image in images:
            position = packer.add_image(image)
            for obj in image.objects:
                packer.add(position, obj)
        self._hold(packer.buffers())

    @classmethod
    def of(cls, images: Iterable[CocoImage]) -> PackedImages:
        """Those, or what is made of them."""
        return images if isinstance(images, cls) else cls(images)

    @classmethod
    def of_buffers(cls, buffers: Buffers) -> PackedImages:
        """What `Packer.buffers` gives."""
        images = cls.__new__(cls)
        images._hold(buffers)
        return images

    @classmethod
    def of_file(cls, name: str, lengths: Sequence[int]) -> PackedImages:
        """What another process has put into a file."""
        images = cls.__new__(cls)
        images._use(SharedFile(name, lengths))
        return images

    def _hold(self, buffers: Buffers) -> None:
        self._images, self._objects, self._texts = (memoryview(buffer).toreadonly() for buffer in buffers)
        self._file: SharedFile | None = None

    def _use(self, file: SharedFile) -> None:
        self._images, self._objects, self._texts = file.parts
        self._file = file

    def __len__(self) -> int:
        return len(self._images) // IMAGE.size

    def __iter__(self) -> Iterator[CocoImage]:
        return (self._image(*row) for row in IMAGE.iter_unpack(self._images))

    @overload
    def __getitem__(self, index: int) -> CocoImage: ...
    @overload
    def __getitem__(self, index: slice) -> PackedImages: ...
    def __getitem__(self, index: int | slice) -> CocoImage | PackedImages:
        if isinstance(index, slice):
            return PackedImages(self[i] for i in range(*index.indices(len(self))))
        place = range(len(self))[index]
        return self._image(*IMAGE.unpack_from(self._images, place * IMAGE.size))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} images>"

    def labels(self) -> np.ndarray:
        """Of all objects that are not crowds, [N] int32, in the order of the images."""
        fields = np.frombuffer(self._objects, FIELDS)
        return fields["label"][~fields["crowd"]]

    def relabelled(self, labels: Sequence[int]) -> PackedImages:
        """The same with `labels[label]` in place of each object's label, crowds' too."""
        fields = np.frombuffer(self._objects, FIELDS).copy()
        fields["label"] = np.array(labels, np.int32)[fields["label"]] if len(fields) else 0
        return PackedImages.of_buffers((self._images, fields.tobytes(), self._texts))

    def used_labels(self) -> set[int]:
        """Of all objects, crowds' too."""
        return set(np.unique(np.frombuffer(self._objects, FIELDS)["label"]).tolist())

    def object_counts(self) -> np.ndarray:
        """[images, 2] int64: the objects of each image, and those that are not crowds."""
        crowds = np.frombuffer(self._objects, FIELDS)["crowd"]
        until = np.concatenate(([0], np.cumsum(~crowds)))
        rows = np.frombuffer(self._images, COUNTS)
        first, count = rows["first"], rows["count"]
        return np.stack((count, until[first + count] - until[first]), axis=1)

    def __copy__(self) -> PackedImages:
        return self

    def __deepcopy__(self, memo: object) -> PackedImages:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if passing() and self._in_a_file():
            assert self._file is not None
            return PackedImages.of_file, (self._file.name, self._file.lengths)
        return PackedImages.of_buffers, (tuple(bytes(part) for part in (self._images, self._objects, self._texts)),)

    def _in_a_file(self) -> bool:
        """Whether the bytes are in a file now, so that they are not in this process's own memory any more."""
        if self._file is None or not os.path.exists(self._file.name):
            made = shared((self._images, self._objects, self._texts))
            if made is None:
                return False
            self._use(made)
        return True

    def _image(
        self,
        low: int,
        high: int,
        height: int,
        width: int,
        upright: bool,
        place: int,
        length: int,
        first: int,
        count: int,
    ) -> CocoImage:
        path = Path(os.fsdecode(bytes(self._texts[place : place + length])))
        rows = self._objects[first * OBJECT.size : (first + count) * OBJECT.size]
        objects = PackedObjects(rows, self._texts) if count else ()
        return CocoImage(whole(low, high), path, (height, width), upright, objects)
