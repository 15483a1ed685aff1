"""What detection adds to training: defaults of a kind of head, a word on crowded images."""

import json
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests import tiny
from tests.heads.dino_models import head_config

import piip
from piip import config
from piip.data.detection.augmentation import Augmentation
from piip.evaluation.judging import Judging
from piip.model import PIIPModel
from piip.prediction.options import EVERYTHING
from piip.tasks import detection


def described(head: config.Head) -> config.Model:
    return tiny.model(2).model_copy(update={"head": head, "name": "mine"})


@pytest.fixture
def data(tmp_path: Path) -> detection.CocoData:
    """Two images, with five objects (and a crowd) and with one."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train").mkdir()
    images, objects = [], []
    for image, count in ((1, 5), (2, 1)):
        Image.new("RGB", (64, 64)).save(tmp_path / "train" / f"{image}.png")
        images.append({"id": image, "file_name": f"{image}.png", "width": 64, "height": 64})
        objects += [{"image_id": image, "bbox": [8 * i, 8, 20, 20], "iscrowd": 0} for i in range(count)]
    objects.append({"image_id": 1, "bbox": [0, 0, 60, 60], "iscrowd": 1})
    objects = [{**item, "id": i + 1, "category_id": 1, "area": 400} for i, item in enumerate(objects)]
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "disc"}]}
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return detection.open_split(tmp_path, "train")


def test_results_carry_the_ids_of_the_evaluated_file() -> None:
    model = tiny.model(classes=("cat", "dog")).model_copy(update={"category_ids": (1, 2)})
    data = detection.CocoData([], ("dog", "cat"), (17, 18), has_masks=False)
    ordered = detection.in_label_order(model, data)
    assert (ordered.classes, ordered.category_ids) == (("cat", "dog"), (18, 17))


def test_gradients_of_a_dino_are_clipped_under_any_name() -> None:
    assert piip.PIIP(described(head_config())).recipe == {"grad_clip": 0.1}
    assert piip.PIIP(described(config.MaskRCNN())).recipe == {}
    assert piip.PIIP("piip_nano_dino").recipe["grad_clip"] == 1.0


@pytest.mark.parametrize(
    ("limits", "most"), [({"queries": 4}, 4), ({"queries": 9, "detections": 3}, 3), ({"detections": 5}, None)]
)
@pytest.mark.parametrize("kind", ["dino", "mask_rcnn"])
def test_more_objects_than_can_be_found_are_noted(
    data: detection.CocoData, limits: dict[str, int], most: int | None, kind: str, capsys: Any
) -> None:
    head: config.Head = head_config(**limits)
    if kind == "mask_rcnn":
        head = config.MaskRCNN(masks=False, detections=min(limits.values()))
    detection.training_set(described(head), data, Augmentation(), seed=0)
    message = " ".join(capsys.readouterr().err.split())
    if most is None:
        assert message == ""
    else:
        assert f"1 of 2 images have more objects than the {most} that" in message
        assert "up to 5: it is to find all of them with --detections 6" in message
        assert "COCO" not in message


def test_coco_counts_a_hundred_detections(data: detection.CocoData, capsys: Any) -> None:
    first = data.images[0]
    many = replace(data, images=[replace(first, objects=first.objects[:1] * 101)])
    detection.training_set(described(config.MaskRCNN(masks=False)), many, Augmentation(), seed=0)
    message = " ".join(capsys.readouterr().err.split())
    assert "1 of 1 images have more objects than the 100 that this model can find" in message
    assert "COCO's AP counts the best 100 of an image" in message


def test_an_evaluation_in_tiles(data: detection.CocoData) -> None:
    """A tile as large as the images gives the same figures; smaller ones find more, and no more than is asked for."""
    torch.manual_seed(0)
    head = config.MaskRCNN(masks=False, channels=16, fc_channels=32, score_threshold=0.0, proposals=20, detections=9)
    model = PIIPModel(described(head).model_copy(update={"classes": ("disc",), "category_ids": (1,)}))
    whole, one, four, few = (
        detection._measured(model, data, 1, 0, "fp32", replace(EVERYTHING, **more), Judging())
        for more in ({}, {"tiles": 64}, {"tiles": 40, "overlap": 0.1}, {"tiles": 40, "detections": 3})
    )
    key = itemgetter("image_id", "score", "bbox")
    assert 0 < len(one[1]) <= len(whole[1])  # of those that overlap by half, which the head keeps, one is left
    assert all(key(result) in list(map(key, whole[1])) for result in one[1])
    assert len(four[1]) > 18
    assert len(few[1]) == 6
    assert {result["image_id"] for result in four[1]} == {1, 2}
    assert four[0].objects == (6,)
