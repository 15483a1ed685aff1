"""Boxes that are written as two corners (x1, y1, x2, y2) where COCO has a corner and the sides; outlines prove it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from piip.data.report import CheckReport
from piip.data.values import as_number

TOLERANCE = 2.0
"""pixels that a box may be away from its outline's bounds"""
LEAST = 0.5
"""share of the outlined objects whose boxes are corners"""


def as_sides(records: Sequence[Any], report: CheckReport) -> Sequence[Any]:
    """The records with boxes as COCO has them.

    They are changed where no box fits its outline as it is written, and at least half of them do as two corners.
    """
    outlined = as_corners = 0
    for written, corners in (fit for record in records if (fit := _fit(record)) is not None):
        if written and not corners:
            return records
        outlined += 1
        as_corners += corners and not written
    if not as_corners or as_corners < LEAST * outlined:
        return records
    changed = []
    for record in records:
        box = _numbers(record.get("bbox")) if isinstance(record, dict) else None
        if box is not None and len(box) == 4:
            x1, y1, x2, y2 = box
            record = record | {"bbox": [x1, y1, x2 - x1, y2 - y1]}
            where = f"annotation {record.get('id')!r:.40} of image {record.get('image_id')!r:.40}"
            report.add("repaired", "box written as two corners, as the outlines show", f"{where}: {box}")
        changed.append(record)
    return changed


def _fit(record: Any) -> tuple[bool, bool] | None:
    """Whether the box fits the outline, as it is written and as two corners; None where there are not both."""
    if not isinstance(record, dict) or not isinstance(record.get("segmentation"), list):
        return None
    box = _numbers(record.get("bbox"))
    parts = [_numbers(part) for part in record["segmentation"]]
    flat = [part for part in parts if part is not None]
    if box is None or len(box) != 4 or not flat or len(flat) < len(parts) or any(len(part) < 6 for part in flat):
        return None
    xs, ys = [x for part in flat for x in part[::2]], [y for part in flat for y in part[1::2]]
    x1, y1, x2, y2 = min(xs), min(ys), max(xs), max(ys)
    return _near(box, [x1, y1, x2 - x1, y2 - y1]), _near(box, [x1, y1, x2, y2])


def _near(one: list[float], other: list[float]) -> bool:
    return all(abs(a - b) <= TOLERANCE for a, b in zip(one, other, strict=True))


def _numbers(values: Any) -> list[float] | None:
    found = [as_number(value) for value in values] if isinstance(values, list) else [None]
    good = [number for number in found if number is not None]
    return good if len(good) == len(found) else None
