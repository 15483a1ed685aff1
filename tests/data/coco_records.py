"""Records of small COCO sets, to be changed into faulty ones."""

from typing import Any

WIDTH, HEIGHT = 40, 30


def image(image_id: int = 1, **changes: Any) -> dict[str, Any]:
    return {"id": image_id, "file_name": f"{image_id}.png", "width": WIDTH, "height": HEIGHT} | changes


def annotation(annotation_id: int = 1, **changes: Any) -> dict[str, Any]:
    x, y, w, h = 4, 6, 12, 10
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    return {
        "id": annotation_id,
        "image_id": 1,
        "category_id": 3,
        "bbox": [x, y, w, h],
        "area": w * h,
        "iscrowd": 0,
        "segmentation": [polygon],
    } | changes


CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
