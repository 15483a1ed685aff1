"""Where annotations of a known format are, and the records of COCO's form that a reader makes of them.

A reader says what a file says: numbers that are none, boxes of no size and names of files that are not there stay in,
for the checks that follow to find and to count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from piip.data.report import CheckReport
from piip.data.run_lengths import lengths_of
from piip.data.values import as_name, as_number

Source = Path | tuple[Path, ...]
"""where a split's images are: a folder, and in YOLO's data also a list of images (.txt), or several of these"""

Points = Sequence[tuple[float, float]]
"""corners (x, y) of a polygon, in pixels"""

Content = tuple[dict[str, Any], Path]
"""a COCO dictionary, and the folder that its file names are below"""

FEWEST_CORNERS = 3


class Format(NamedTuple):
    """How one split is written."""

    name: str
    """as people call it"""
    read: Callable[[Path, Source, CheckReport], Content]
    """from the two places of a `Split`"""


class Split(NamedTuple):
    """One part of a data set."""

    annotation_file: Path
    """or the folder of the files, where every image has its own"""
    image_folder: Source
    """the folder below which the images are; of YOLO's also a list of images, or several of both"""

    @property
    def format(self) -> Format | None:
        """None: COCO's, or YOLO's if the file is a .yaml."""
        return None


class FormatSplit(Split):
    """A part in another format than COCO's and YOLO's."""

    _format: Format

    def __new__(cls, annotation_file: Path, image_folder: Source, format: Format) -> FormatSplit:
        """`format` goes with the two places, which are all that a split unpacks to."""
        split = super().__new__(cls, annotation_file, image_folder)
        split._format = format
        return split

    @property
    def format(self) -> Format:
        """How it is written."""
        return self._format


class Records:
    """Images and objects, in the order in which they are read, with classes by their names."""

    def __init__(self, report: CheckReport, classes: Iterable[str] = ()) -> None:
        """`classes`: those that the files declare, in their order; others follow in the order of their names."""
        self.report = report
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.declared = dict.fromkeys(classes)
        self.groups: dict[tuple[Any, ...], dict[str, Any]] = {}

    def image(self, name: str, width: Any = None, height: Any = None) -> int:
        """A new image and its id."""
        image_id = len(self.images) + 1
        record = {"id": image_id, "file_name": name}
        sides = as_number(width), as_number(height)
        if None not in sides and 0 not in sides:
            record |= {"width": sides[0], "height": sides[1]}
        self.images.append(record)
        return image_id

    def box(self, image_id: int, name: Any, corners: Sequence[Any], crowd: bool = False) -> None:
        """An object with the box (x1, y1, x2, y2) in pixels."""
        numbers = [as_number(value) for value in corners]
        good = [number for number in numbers if number is not None]
        if len(good) < 4:
            self._add(image_id, name, {"bbox": list(corners), "iscrowd": int(crowd)})
            return
        x1, y1, x2, y2 = good
        box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": max(x2 - x1, 0.0) * max(y2 - y1, 0.0)}
        self._add(image_id, name, box | {"iscrowd": int(crowd)})

    def polygon(self, image_id: int, name: Any, points: Points, group: Any = None) -> None:
        """An object with an outline; polygons of one `group` and class on one image are parts of one object."""
        if len(points) < FEWEST_CORNERS:
            self.leave_out("polygon with fewer than three points", image_id, name)
            return
        flat = [float(side) for point in points for side in point]
        group = as_name(group)
        key = (image_id, as_name(name), group)
        if group is not None and key in self.groups:
            _join(self.groups[key], flat)
            return
        record = self._add(image_id, name, {"segmentation": [flat], "iscrowd": 0} | _around([flat]))
        if record is not None and group is not None:
            self.groups[key] = record

    def runs(self, image_id: int, name: Any, mask: dict[str, Any], box: Sequence[float]) -> None:
        """An object with COCO's run lengths for an outline, within a box (x1, y1, x2, y2)."""
        x1, y1, x2, y2 = box
        sides = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": sum(lengths_of(mask)[1::2])}
        self._add(image_id, name, {"segmentation": mask, "iscrowd": 0} | sides)

    def leave_out(self, kind: str, image_id: int, what: Any = "") -> None:
        """Count an object that is passed over."""
        name = self.images[image_id - 1]["file_name"]
        self.report.add("left out", kind, f"{name}: {what!s:.80}" if what else name)

    def content(self, folder: Path) -> Content:
        """The records in COCO's form, with category ids from 1."""
        rest = {record["category_id"] for record in self.annotations} - self.declared.keys()
        names = [*self.declared, *sorted(rest)]
        ids = {name: number for number, name in enumerate(names, start=1)}
        annotations = [record | {"category_id": ids[record["category_id"]]} for record in self.annotations]
        categories = [{"id": number, "name": name} for name, number in ids.items()]
        return {"images": self.images, "annotations": annotations, "categories": categories}, folder

    def _add(self, image_id: int, name: Any, sides: dict[str, Any]) -> dict[str, Any] | None:
        text = as_name(name)
        if text is None:
            self.leave_out("object without a class", image_id)
            return None
        record = {"id": len(self.annotations) + 1, "image_id": image_id, "category_id": text.strip()} | sides
        self.annotations.append(record)
        return record


def _join(record: dict[str, Any], polygon: list[float]) -> None:
    record["segmentation"].append(polygon)
    record |= _around(record["segmentation"])


def _around(polygons: list[list[float]]) -> dict[str, Any]:
    """Box and area of polygons (x, y, x, y, ...)."""
    xs = [x for polygon in polygons for x in polygon[::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return {"bbox": box, "area": sum(polygon_area(polygon[::2], polygon[1::2]) for polygon in polygons)}


def polygon_area(xs: list[float], ys: list[float]) -> float:
    """Square pixels within a polygon."""
    following = zip(xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True)
    return abs(sum(x * y2 - x2 * y for x, y, (x2, y2) in zip(xs, ys, following, strict=True))) / 2
