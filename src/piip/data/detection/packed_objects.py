"""Objects of images as rows of bytes, and what is made of a row when it is asked for."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from piip.data.detection.image_records import CocoObject
from piip.data.detection.packed_outlines import unpacked_outline

Buffer = bytes | bytearray | memoryview

OBJECT = struct.Struct("<4ddQbii?qq")
"""box, area, id (lower 64 bits and the rest), label, parts of the outline, crowd, place and length of the outline"""
FIELDS = np.dtype(
    [
        ("box", "<f8", 4),
        ("area", "<f8"),
        ("low", "<u8"),
        ("high", "i1"),
        ("label", "<i4"),
        ("parts", "<i4"),
        ("crowd", "?"),
        ("start", "<i8"),
        ("length", "<i8"),
    ]
)
"""the same for numpy"""
LABEL, CROWD = 7, 9
"""where they are in a row of `OBJECT`"""
_LOW = (1 << 64) - 1


def halves(number: int) -> tuple[int, int]:
    """An id as its lower 64 bits and what is above them: some are just beyond 64 bits."""
    return number & _LOW, number >> 64


def whole(low: int, high: int) -> int:
    """The id of these `halves`."""
    return (high << 64) + low


class PackedObjects(Sequence[CocoObject]):
    """The objects of one image, each made when it is asked for."""

    __slots__ = ("_outlines", "_rows")

    def __init__(self, rows: Buffer, outlines: Buffer) -> None:
        self._rows, self._outlines = rows, outlines

    def __len__(self) -> int:
        return len(self._rows) // OBJECT.size

    def __iter__(self) -> Iterator[CocoObject]:
        return (self._object(*row) for row in OBJECT.iter_unpack(self._rows))

    @overload
    def __getitem__(self, index: int) -> CocoObject: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[CocoObject, ...]: ...
    def __getitem__(self, index: int | slice) -> CocoObject | tuple[CocoObject, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        place = range(len(self))[index]
        return self._object(*OBJECT.unpack_from(self._rows, place * OBJECT.size))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (list(self),)

    def _object(
        self,
        x1: float,
        y1: float,
        x2: float,
        y2: float,
        area: float,
        low: int,
        high: int,
        label: int,
        parts: int,
        crowd: bool,
        start: int,
        length: int,
    ) -> CocoObject:
        outline = unpacked_outline(parts, self._outlines[start : start + length])
        return CocoObject((x1, y1, x2, y2), label, outline, crowd, whole(low, high), area)
