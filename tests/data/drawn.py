"""A few pictures with objects, written the way each tool writes them."""

import base64
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]
Points = list[tuple[float, float]]


@dataclass
class Picture:
    """An image and what was drawn on it: (class, box) or (class, corners of a polygon)."""

    name: str
    width: int = 60
    height: int = 40
    boxes: list[tuple[str, Box]] = field(default_factory=list)
    polygons: list[tuple[str, Points]] = field(default_factory=list)


def pictures(split: str = "train") -> list[Picture]:
    """One picture with two boxes, one with one, one without any."""
    return [
        Picture(f"{split} a.jpg", boxes=[("cat", (4, 6, 16, 20)), ("traffic light", (30, 0, 60, 40))]),
        Picture(f"{split}_b.jpg", 48, 64, boxes=[("cat", (2.5, 3.5, 40, 60))]),
        Picture(f"{split}_c.jpg"),
    ]


def outlined(split: str = "train") -> list[Picture]:
    """Two pictures with polygons."""
    triangle, other = [(5.0, 5.0), (25.0, 6.0), (14.0, 30.0)], [(30.0, 8.0), (50.0, 8.0), (52.0, 33.0), (31.0, 30.0)]
    return [Picture(f"{split}_a.png", polygons=[("cat", triangle)]),
            Picture(f"{split}_b.png", polygons=[("dog", other), ("cat", triangle)])]  # fmt: skip


def paint(picture: Picture, folder: Path) -> Path:
    """The image file of a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(picture.name.encode()))
    pixels = rng.integers(0, 256, (picture.height, picture.width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / picture.name)
    return folder / picture.name


def write_voc(drawn: Iterable[Picture], labels: Path, images: Path, database: str = "Unknown") -> None:
    labels.mkdir(parents=True, exist_ok=True)
    for picture in drawn:
        paint(picture, images)
        objects = "".join(voc_object(name, box) for name, box in picture.boxes)
        (labels / f"{Path(picture.name).stem}.xml").write_text(
            f"<annotation>\n\t<folder>images</folder>\n\t<filename>{escape(picture.name)}</filename>\n"
            f"\t<source>\n\t\t<database>{database}</database>\n\t</source>\n\t<size>\n\t\t<width>{picture.width}</width>\n"
            f"\t\t<height>{picture.height}</height>\n\t\t<depth>3</depth>\n\t</size>\n{objects}</annotation>\n",
            encoding="utf-8",
        )


def voc_object(name: str, box: tuple[Any, ...], more: str = "") -> str:
    sides = "".join(f"<{tag}>{v}</{tag}>" for tag, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return (f"\t<object>\n\t\t<name>{escape(name)}</name>\n\t\t<pose>Unspecified</pose>\n"
            f"\t\t<bndbox>{sides}</bndbox>{more}\n\t</object>\n")  # fmt: skip


def write_cvat(drawn: Iterable[Picture], file: Path, images: Path, subset: str | None = None, more: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    drawn = list(drawn)
    records = "".join(cvat_image(number, picture, images, subset, more) for number, picture in enumerate(drawn))
    names = dict.fromkeys(name for picture in drawn for name, _ in [*picture.boxes, *picture.polygons])
    labels = "".join(f"<label><name>{escape(name)}</name><type>any</type></label>" for name in reversed(names))
    file.write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta><task><id>7</id>'
        f"<name>t</name><labels>{labels}</labels></task></meta>\n{records}</annotations>\n",
        encoding="utf-8",
    )


def cvat_image(number: int, picture: Picture, images: Path, subset: str | None, more: str) -> str:
    paint(picture, images)
    shapes = ""
    for name, (x1, y1, x2, y2) in picture.boxes:
        sides = f'xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"'
        shapes += f'<box label={quoteattr(name)} occluded="0" {sides} z_order="0"></box>'
    for name, points in picture.polygons:
        corners = ";".join(f"{x:.2f},{y:.2f}" for x, y in points)
        shapes += f'<polygon label={quoteattr(name)} points="{corners}"></polygon>'
    where = "" if subset is None else f'subset="{subset}" '
    return (f'  <image id="{number}" name={quoteattr(picture.name)} {where}width="{picture.width}" '
            f'height="{picture.height}">{shapes}{more}</image>\n')  # fmt: skip


def write_labelme(drawn: Iterable[Picture], labels: Path, images: Path) -> None:
    labels.mkdir(parents=True, exist_ok=True)
    for picture in drawn:
        paint(picture, images)
        shapes = [labelme_shape(name, [box[:2], box[2:]], "rectangle") for name, box in picture.boxes]
        shapes += [labelme_shape(name, points) for name, points in picture.polygons]
        save_labelme(labels / f"{Path(picture.name).stem}.json", picture, shapes)


def save_labelme(file: Path, picture: Picture, shapes: list[dict[str, Any]]) -> None:
    content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"..\\images\\{picture.name}",
               "imageData": None, "imageHeight": picture.height, "imageWidth": picture.width}  # fmt: skip
    file.write_text(json.dumps(content, indent=2), encoding="utf-8")


def labelme_shape(name: str, points: Iterable[Any], kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": name, "points": [list(point) for point in points], "group_id": None, "shape_type": kind,
            "flags": {}} | more  # fmt: skip


def png_base64(mask: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")
