"""Whether training really learns: minutes each, so marked slow."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import piip

AS_THEY_ARE = {"flip": 0.0, "zoom": None, "colour": 0.0}
"""no augmentation"""


@pytest.mark.slow
def test_nano_mask_rcnn_overfits_eight_photos(coco100: Path, tmp_path: Path) -> None:
    """Eight COCO photos with 96 objects of many classes and sizes, learnt by heart (about half an hour of one core)."""
    data = eight_photos(coco100, tmp_path / "data")
    result = piip.PIIP("piip_nano_mask_rcnn").train(
        data,
        epochs=240,
        output=tmp_path / "runs",
        image_size=320,
        augmentation=AS_THEY_ARE,
        ema=0.98,
        warmup_iters=50,
        eval_interval=240,
    )
    last = result.history[-1]
    assert last["box_AP50"] >= 0.9
    assert last["mask_AP50"] >= 0.8


@pytest.mark.slow
def test_nano_dino_overfits_eight_photos(coco100: Path, tmp_path: Path) -> None:
    """The same photos, boxes only, by the DETR-type detector: 1200 steps (about half an hour of one core)."""
    data = eight_photos(coco100, tmp_path / "data", times=10)
    result = piip.PIIP("piip_nano_dino").train(
        data, epochs=30, output=tmp_path / "runs", augmentation=AS_THEY_ARE, eval_interval=5, workers=0
    )
    assert result.history[-1]["box_AP50"] >= 0.9


def eight_photos(coco100: Path, folder: Path, times: int = 1) -> Path:
    """The first eight photos of the training split that have objects, as training and validation split.

    The training split lists each photo `times` times: epochs of a few steps would spend theirs on checkpoints.
    """
    source = coco100 / "train2017"
    content = json.loads((coco100 / "annotations" / "instances_train2017.json").read_text())
    with_objects = {item["image_id"] for item in content["annotations"] if not item["iscrowd"]}
    content["images"] = [image for image in content["images"] if image["id"] in with_objects][:8]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] in kept]
    for split, copies in (("train", times), ("val", 1)):
        write_split(source, folder, split, repeated(content, copies))
    return folder


def repeated(content: dict[str, Any], times: int) -> dict[str, Any]:
    """COCO annotations whose images, under names of their own, and objects occur `times` times."""
    images, objects = [], []
    for copy in range(times):
        shift = copy * 10**9  # above all ids of COCO's photos
        for image in content["images"]:
            images.append({**image, "id": image["id"] + shift, "source": image["file_name"]})
            images[-1]["file_name"] = f"{copy}_{image['file_name']}"
        for item in content["annotations"]:
            objects.append({**item, "id": len(objects) + 1, "image_id": item["image_id"] + shift})
    return {**content, "images": images, "annotations": objects}


def write_split(source: Path, folder: Path, split: str, content: dict[str, Any]) -> None:
    """One split in COCO's layout, its photos copied from `source`."""
    (folder / split).mkdir(parents=True)
    for image in content["images"]:
        shutil.copy(source / image["source"], folder / split / image["file_name"])
    path = folder / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
