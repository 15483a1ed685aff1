"""An outline as bytes, and back."""

from __future__ import annotations

from array import array
from typing import Any

from piip.data.detection.image_records import Segmentation

NONE, TEXT, RUNS = 0, -1, -2
"""instead of the number of polygons: no outline, run lengths as text, run lengths as numbers"""
_WORD = 8
"""bytes of a number"""


def packed_outline(outline: Segmentation | None) -> tuple[int, bytes]:
    """The number of its polygons or one of the other kinds, and the bytes.

    Of several polygons, the lengths come first; of run lengths, the size of the mask.
    """
    if outline is None:
        return NONE, b""
    if isinstance(outline, dict):
        size, counts = array("q", outline["size"]).tobytes(), outline["counts"]
        if isinstance(counts, str):
            return TEXT, size + counts.encode("ascii")
        return RUNS, size + array("q", counts).tobytes()
    sides = b"".join(array("d", polygon).tobytes() for polygon in outline)
    if len(outline) == 1:
        return 1, sides
    return len(outline), array("q", map(len, outline)).tobytes() + sides


def unpacked_outline(parts: int, data: Any) -> Segmentation | None:
    """What `packed_outline` was given, of which the coordinates are floats."""
    if parts == NONE:
        return None
    if parts == 1:
        return [_numbers("d", data)]
    if parts < 0:
        size, counts = _numbers("q", data[: 2 * _WORD]), data[2 * _WORD :]
        return {"size": size, "counts": bytes(counts).decode("ascii") if parts == TEXT else _numbers("q", counts)}
    polygons, start = [], parts * _WORD
    for length in _numbers("q", data[:start]):
        polygons.append(_numbers("d", data[start : start + length * _WORD]))
        start += length * _WORD
    return polygons


def _numbers(kind: str, data: Any) -> list[Any]:
    numbers = array(kind)
    numbers.frombytes(data)
    return numbers.tolist()
