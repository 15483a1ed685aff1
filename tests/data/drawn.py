"""A few pictures with objects, written the way each tool writes them."""

import base64
import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote
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


def write_label_studio(drawn: Iterable[Picture], file: Path, images: Path, least: bool = False) -> None:
    """`least`: as JSON-MIN."""
    tasks = []
    for number, picture in enumerate(drawn, start=1):
        paint(picture, images)
        results = [label_studio_box(picture, *drawn_box) for drawn_box in picture.boxes]
        for name, points in picture.polygons:
            value = {"points": [[x / picture.width * 100, y / picture.height * 100] for x, y in points]}
            results.append(label_studio_result(picture, "polygon", name, value))
        address = f"/data/upload/3/0badcafe-{quote(picture.name)}"
        if least:
            values = [one["value"] | {k: one[k] for k in ("original_width", "original_height")} for one in results]
            tasks.append({"id": number, "image": address, "label": values, "annotator": 1})
        else:
            tasks.append({"id": number, "annotations": [{"id": 9, "was_cancelled": False, "result": results}],
                          "predictions": [], "data": {"image": address}})  # fmt: skip
    file.write_text(json.dumps(tasks), encoding="utf-8")


def label_studio_box(picture: Picture, name: str, box: Box) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    across, down = 100 / picture.width, 100 / picture.height
    value = {"x": x1 * across, "y": y1 * down, "width": (x2 - x1) * across, "height": (y2 - y1) * down, "rotation": 0}
    return label_studio_result(picture, "rectangle", name, value)


def label_studio_result(picture: Picture, kind: str, name: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"id": f"{kind}{name}", "type": f"{kind}labels", "from_name": "label", "to_name": "image",
            "original_width": picture.width, "original_height": picture.height, "image_rotation": 0,
            "value": value | {f"{kind}labels": [name]}}  # fmt: skip


def via_regions(picture: Picture) -> list[dict[str, Any]]:
    regions = []
    for name, (x1, y1, x2, y2) in picture.boxes:
        shape: dict[str, Any] = {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
        regions.append({"shape_attributes": shape, "region_attributes": {"label": name, "truncated": "no"}})
    for name, points in picture.polygons:
        xs, ys = zip(*points, strict=True)
        shape = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
        regions.append({"shape_attributes": shape, "region_attributes": {"kind": name}})
    return regions


def write_via(drawn: Iterable[Picture], file: Path, images: Path) -> None:
    content = {}
    for picture in drawn:
        size = paint(picture, images).stat().st_size
        entry = {"filename": picture.name, "size": size, "regions": via_regions(picture), "file_attributes": {}}
        content[f"{picture.name}{size}"] = entry
    if file.suffix == ".json":
        file.write_text(json.dumps(content), encoding="utf-8")
        return
    with file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["filename", "file_size", "file_attributes", "region_count", "region_id",
                        "region_shape_attributes", "region_attributes"])  # fmt: skip
        for entry in content.values():
            regions = entry["regions"] or [{"shape_attributes": {}, "region_attributes": {}}]
            for number, region in enumerate(regions):
                shape, attributes = (json.dumps(region[k]) for k in ("shape_attributes", "region_attributes"))
                table.writerow(
                    [entry["filename"], entry["size"], "{}", len(entry["regions"]), number, shape, attributes]
                )


def write_dota(drawn: Iterable[Picture], labels: Path, images: Path) -> None:
    labels.mkdir(parents=True, exist_ok=True)
    for picture in drawn:
        paint(picture, images)
        lines = ["imagesource:GoogleEarth", "gsd:0.146343590398"]
        for name, (x1, y1, x2, y2) in picture.boxes:
            lines.append(f"{x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2} {name} 0")
        (labels / f"{Path(picture.name).stem}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_open_images(drawn: Iterable[Picture], root: Path, split: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    ids = {"cat": "/m/01yrx", "traffic light": "/m/015qff"}
    rows = [
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    ]
    for picture in drawn:
        paint(picture, root / split)
        for name, (x1, y1, x2, y2) in picture.boxes:
            sides = f"{x1 / picture.width},{x2 / picture.width},{y1 / picture.height},{y2 / picture.height}"
            rows.append(f"{Path(picture.name).stem},xclick,{ids.get(name, name)},1,{sides},0,0,0,0,0")
    (root / f"{split}-annotations-bbox.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    names = "".join(f"{class_id},{name}\n" for name, class_id in ids.items())
    (root / "class-descriptions-boxable.csv").write_text(names, encoding="utf-8")


def write_box_table(drawn: Iterable[Picture], table: Path, images: Path) -> None:
    with_header = [("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")]
    rows = [(p.name, p.width, p.height, name, *box) for p in drawn for name, box in p.boxes]
    for picture in drawn:
        paint(picture, images)
    with table.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([*with_header, *rows])
