"""Whether training really learns: minutes each, so marked slow."""

import json
import shutil
from pathlib import Path

import pytest

import piip


@pytest.mark.slow
def test_nano_mask_rcnn_overfits_eight_photos(coco100: Path, tmp_path: Path) -> None:
    """Eight COCO photos with 96 objects of many classes and sizes, learnt by heart (about half an hour of one core)."""
    data = eight_photos(coco100, tmp_path / "data")
    result = piip.PIIP("piip_nano_mask_rcnn").train(
        data,
        epochs=240,
        output=tmp_path / "runs",
        image_size=320,
        augmentation={"flip": 0.0},
        ema=0.98,
        warmup_iters=50,
        eval_interval=240,
    )
    last = result.history[-1]
    assert last["box_AP50"] >= 0.9
    assert last["mask_AP50"] >= 0.8


def eight_photos(coco100: Path, folder: Path) -> Path:
    """The first eight photos of the training split that have objects, as training and validation split."""
    content = json.loads((coco100 / "annotations" / "instances_train2017.json").read_text())
    with_objects = {item["image_id"] for item in content["annotations"] if not item["iscrowd"]}
    content["images"] = [image for image in content["images"] if image["id"] in with_objects][:8]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] in kept]
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        for image in content["images"]:
            shutil.copy(coco100 / "train2017" / image["file_name"], folder / split)
        path = folder / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return folder
