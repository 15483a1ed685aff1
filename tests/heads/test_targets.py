"""Wrong targets are refused before anything runs, by name."""

from dataclasses import replace

import pytest
import torch
from tests import tiny
from tests.heads.dino_models import instances, tiny_model

from piip.heads.targets import check_instances
from piip.model import PIIPModel
from piip.structures import Batch, Instances

NONE = instances()
GOOD = replace(instances((2.0, 3, 30, 40), (5.0, 5, 60, 20)), masks=torch.ones(2, 64, 64, dtype=torch.uint8))


def check(*targets: Instances, masks: bool = True) -> None:
    check_instances(targets, 2, 3, masks)


def test_good_targets_pass() -> None:
    check(GOOD, replace(NONE, masks=torch.ones(0, 64, 64, dtype=torch.uint8)))
    check(replace(GOOD, masks=None), NONE, masks=False)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"boxes": GOOD.boxes[:, [2, 3, 0, 1]]}, r"targets\[1\].boxes: 2 are not .* x1 < x2"),
        ({"boxes": torch.tensor([[2, 3, 30, 40], [5, 5, float("nan"), 20]])}, r"targets\[1\].boxes: 1 are not"),
        ({"boxes": torch.tensor([[2.0, 3, 2, 40], [5, 5, 60, 20]])}, r"targets\[1\].boxes: 1 are not"),
        ({"boxes": GOOD.boxes.long()}, r"int64 \[2, 4\]; must be float"),
        ({"boxes": GOOD.boxes[0]}, r"float32 \[4\]; must be float \[N, 4\]"),
        ({"labels": torch.tensor([1, 3])}, r"targets\[1\].labels: 1 are not of the 3 classes; labels are 0 to 2"),
        ({"labels": torch.tensor([-1, 2])}, r"targets\[1\].labels: 1 are not"),
        ({"labels": torch.tensor([1])}, r"int64 \[1\]; must be int64 \[2\]"),
        ({"labels": torch.tensor([1.0, 2.0])}, r"float32 \[2\]; must be int64"),
        ({"masks": None}, r"targets\[1\].masks: None, but the model has a mask head"),
        ({"masks": GOOD.masks[:1]}, r"masks: \[1, 64, 64\]; must be \[2, H, W\]"),  # type: ignore[index]
    ],
)
def test_wrong_ones_are_named(wrong: dict[str, torch.Tensor | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(GOOD, replace(GOOD, **wrong))  # type: ignore[arg-type]


def test_one_target_for_each_image() -> None:
    with pytest.raises(ValueError, match="1 targets for 2 images"):
        check(GOOD)


@pytest.mark.parametrize("model", [tiny_model(), PIIPModel(tiny.model())], ids=["dino", "mask_rcnn"])
def test_detectors_refuse_them_before_their_backbone_runs(model: PIIPModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "features", lambda images: pytest.fail("the backbone ran"))
    wrong = replace(GOOD, labels=torch.tensor([0, 3]))  # counted from 1
    batch = Batch(torch.zeros(1, 3, 64, 64), [(64, 64)], [(64, 64)], [wrong], [0])
    with pytest.raises(ValueError, match=r"targets\[0\].labels"):
        model.loss(batch)
