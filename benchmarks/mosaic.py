"""One large photo with hundreds of objects, in tiles: what it costs to look for all of them, and what it finds.

    python benchmarks/mosaic.py --data deeppcb --weights runs/detection/boards [--side 5] [--tiles 360]
        [--detections 2000] [--image-size 256]

The first `--side` times `--side` images of `val`, which have one size, are laid side by side, and the photo is
predicted and judged three times: as the model is (`default`); with every tile looked at as if it alone held
`--detections` objects (`everywhere`); and with that limit as `piip val --detections` takes it (`where crowded`). CPU
seconds of one thread, how many are found, the places that the head decided on, and AP50, of all where one has a number.
For a model with a Mask R-CNN's head.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import piip
from piip import config
from piip.evaluation.coco import evaluate_results
from piip.inference.resized import described_as
from piip.prediction.objects import Result
from piip.tasks import detection


def make(data: Path, side: int, folder: Path) -> Path:
    """A data set of one image."""
    opened = detection.open_split(data, "val")
    images = opened.images[: side * side]
    height, width = images[0].size
    photo = Image.new("RGB", (side * width, side * height))
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        left, top = number % side * width, number // side * height
        with Image.open(image.path) as part:
            photo.paste(part.convert("RGB"), (left, top))
        for x1, y1, x2, y2, label in ((*obj.box, obj.label) for obj in image.objects):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": 1, "category_id": label + 1, "iscrowd": 0,
                 "bbox": [x1 + left, y1 + top, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            )  # fmt: skip
    for name in ("val", "annotations"):
        (folder / name).mkdir()
    photo.save(folder / "val" / "photo.png")
    content = {
        "images": [{"id": 1, "file_name": "photo.png", "width": photo.width, "height": photo.height}],
        "annotations": annotations,
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(opened.classes)],
    }
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(content))
    print(f"{photo.width} x {photo.height} pixels, {len(annotations)} objects", flush=True)
    return folder


def everywhere(model: piip.PIIP, detections: int) -> piip.PIIP:
    """The same weights, with a head that looks at as many places as so many objects need, always."""
    head = model.config.head
    assert isinstance(head, config.MaskRCNN)
    described = model.config.model_copy(update={"head": head.keeping(detections)})
    return piip.PIIP(described_as(model.model, described), device="cpu")


def judge(name: str, model: piip.PIIP, data: Path, given: argparse.Namespace, detections: int | None) -> None:
    places = 0

    def count(_: Any, boxes: tuple[Any, list[torch.Tensor]]) -> None:
        nonlocal places
        places += sum(len(own) for own in boxes[1])

    predictor = model.predictor()
    counting = predictor.inference.get().head.box.register_forward_pre_hook(count)
    opened = detection.open_split(data, "val")
    begun = time.process_time()
    (result,) = predictor.predict(
        opened.images[0].path, conf=0.0, tiles=given.tiles, detections=detections, image_size=given.image_size
    ).results
    seconds = time.process_time() - begun
    counting.remove()
    assert isinstance(result, Result)
    found = result.to_coco(opened.images[0].id, opened.category_ids)
    numbers = evaluate_results(found, opened, masks=False).box.numbers
    ap = {key: round(value, 4) for key, value in numbers.items() if key.startswith("AP50") and value is not None}
    print(f"{name}: {seconds:.1f} s, {len(result)} detections, {places} places, {ap}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--side", type=int, default=5)
    parser.add_argument("--tiles", type=int, default=360)
    parser.add_argument("--detections", type=int, default=2000)
    parser.add_argument("--image-size", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = piip.PIIP(given.weights, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        data = make(given.data, given.side, Path(folder))
        judge("default", model, data, given, None)
        judge("everywhere", everywhere(model, given.detections), data, given, given.detections)
        judge("where crowded", model, data, given, given.detections)


if __name__ == "__main__":
    main()
