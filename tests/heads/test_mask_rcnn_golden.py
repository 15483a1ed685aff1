"""The official TSB Mask R-CNN: every stage of the detector, and its training losses, against the official code."""

import pytest
import torch
import torch.nn.functional as F
from tests.conftest import shared_folder
from tests.weights.golden import Golden, max_abs, official_losses
from torch import Tensor

from piip.heads.mask_rcnn.boxes import scale_boxes
from piip.heads.mask_rcnn.mask import THRESHOLD, paste_masks
from piip.model import PIIPModel
from piip.structures import Batch, Instances, Prediction, Size
from piip.weights import opengvlab

NAME = "maskrcnn_tsb_deit"
TOLERANCE = 3e-4


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden(shared_folder("reference", "goldens"), NAME)


@pytest.fixture(scope="module")
def trained(golden: Golden) -> PIIPModel:
    model = opengvlab.load(golden.spec["model"], golden.state_dict())
    assert isinstance(model, PIIPModel)
    return model


@pytest.fixture(scope="module")
def features(trained: PIIPModel, golden: Golden) -> list[Tensor]:
    with torch.no_grad():
        return trained.backbone(golden.image())


@pytest.fixture
def model(trained: PIIPModel, features: list[Tensor], monkeypatch) -> PIIPModel:
    """The model with the golden image's features at hand, so that the backbone runs once for all tests."""
    monkeypatch.setattr(trained.backbone, "forward", lambda _: features)
    return trained


@pytest.fixture(scope="module")
def levels(trained: PIIPModel, features: list[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return trained.head.fpn(features)


def unmatched(actual: Tensor, expected: Tensor, tolerance: float) -> int:
    """Rows without a partner within `tolerance` in the other set, whichever set has more of them."""
    distance = (actual[:, None] - expected[None]).abs().amax(-1)
    return max(int((distance.amin(side) > tolerance).sum()) for side in (0, 1))


def test_neck_and_rpn_maps(trained: PIIPModel, golden: Golden, levels: list[Tensor]) -> None:
    for index, level in enumerate(levels):
        golden.assert_close(f"neck{index}", level, TOLERANCE)
        with torch.no_grad():
            hidden = F.relu(trained.head.rpn.conv(level))
            golden.assert_close(f"rpn_cls{index}", trained.head.rpn.objectness(hidden), TOLERANCE)
            golden.assert_close(f"rpn_box{index}", trained.head.rpn.deltas(hidden), TOLERANCE)


@torch.no_grad()
def test_fixed_regions(trained: PIIPModel, golden: Golden, levels: list[Tensor]) -> None:
    boxes = [golden.expected["fixed_rois"][:, 1:]]
    logits, deltas = trained.head.box(levels, boxes)
    assert max_abs(logits, golden.expected["fixed_cls"]) <= TOLERANCE
    assert max_abs(deltas.flatten(1), golden.expected["fixed_box"]) <= TOLERANCE
    golden.assert_close("fixed_mask", trained.head.mask(levels, boxes), TOLERANCE)


@torch.no_grad()
def test_proposals(trained: PIIPModel, golden: Golden, levels: list[Tensor]) -> None:
    rpn, size = trained.head.rpn, tuple(golden.spec["img_shape"])
    boxes, scores = rpn.proposals(*rpn(levels), rpn.anchors(levels), [size], 1000)[0]
    expected = golden.expected["proposals"]
    assert len(boxes) == len(expected)
    scale = torch.tensor([1.0, 1, 1, 1, 100])  # 0.05 pixels, 0.0005 of a score
    # Random weights make near-ties, at which rounding decides what is suppressed.
    assert unmatched(torch.cat((boxes, scores[:, None]), 1) * scale, expected * scale, 0.05) <= 5


def test_detections(model: PIIPModel, golden: Golden, levels: list[Tensor]) -> None:
    spec, expected = golden.spec, golden.expected
    image, original = tuple(spec["img_shape"]), tuple(spec["ori_shape"])
    found = model.predict(Batch(golden.image(), [image], [original]))[0]
    assert len(found["boxes"]) == len(expected["boxes_scores"])
    assert found["masks"].shape == (len(found["boxes"]), *original)
    scale = torch.tensor([1.0, 1, 1, 1, 100, 1000])
    actual = torch.cat((found["boxes"], found["scores"][:, None], found["labels"][:, None]), 1) * scale
    wanted = torch.cat((expected["boxes_scores"], expected["labels"][:, None]), 1) * scale
    assert unmatched(actual, wanted, 0.05) <= 2
    distance, partner = (actual[:, None] - wanted[None]).abs().amax(-1).min(0)
    assert_areas(model, golden, levels, found, partner, distance <= 0.05)


@torch.no_grad()
def assert_areas(
    model: PIIPModel, golden: Golden, levels: list[Tensor], found: Prediction, partner: Tensor, close: Tensor
) -> None:
    """Masks have as many pixels as the official ones, but for those that rounding takes across the threshold.

    A mask is what the head says at a pixel's place in the box. The head's logits may be off by `TOLERANCE`, so that
    probabilities are by a quarter of it; and a box that is off by a little moves the places, far enough in a box of
    few pixels, where 28 cells are steep, to count.
    """
    expected, original = golden.expected, tuple(golden.spec["ori_shape"])
    boxes, areas = expected["boxes_scores"][:, :4], expected["mask_areas"]
    inputs = scale_boxes(boxes, original, tuple(golden.spec["img_shape"]))
    (cells,) = model.head.mask.predict(levels, [inputs], [expected["labels"].long()])
    at_official, at_own = (pasted(cells, each, original) for each in (boxes, found["boxes"][partner]))
    from_threshold = (at_official - THRESHOLD).abs()
    rounding = TOLERANCE / 4
    at_official_boxes = (paste_masks(cells, boxes, original).sum((1, 2)) - areas).abs()
    assert (at_official_boxes <= (from_threshold <= rounding).sum((1, 2))).all()
    uncertain = (from_threshold <= rounding + (at_own - at_official).abs()).sum((1, 2))
    difference = (found["masks"][partner].sum((1, 2)) - areas).abs()
    assert (difference <= uncertain)[close].all()
    assert uncertain[close].float().mean() < 1  # a mask has hundreds: this forgives next to nothing


def pasted(cells: Tensor, boxes: Tensor, size: Size) -> Tensor:
    """What [N, 28, 28] cells inside boxes [N, 4] say at every pixel of an image: [N, H, W], 0 outside the boxes."""
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    x1, y1, x2, y2 = (side[:, None, None] for side in boxes.unbind(1))
    grid = torch.stack(((x - x1) / (x2 - x1), (y - y1) / (y2 - y1)), dim=-1) * 2 - 1
    return F.grid_sample(cells[:, None], grid, align_corners=False)[:, 0]


def test_training_losses(model: PIIPModel, golden: Golden, monkeypatch) -> None:
    image, original = tuple(golden.spec["img_shape"]), tuple(golden.spec["ori_shape"])
    monkeypatch.setattr(model.head, "sampler", lambda candidates, k: candidates[:k])
    batch = Batch(golden.image(), [image], [original], [ellipses(image)], [0])
    losses = model.loss(batch)
    expected = official_losses(shared_folder("reference", "goldens"), NAME)
    assert set(losses) == set(expected)
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name], rel=1e-3), name


def ellipses(size: tuple[int, int]) -> Instances:
    """The objects of `losses.json`: boxes with their inscribed ellipses as masks."""
    boxes = torch.tensor([[40.0, 30, 200, 180], [220, 60, 300, 120], [10, 200, 90, 330], [300, 150, 620, 400]])
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    x1, y1, x2, y2 = (side[:, None, None] for side in boxes.unbind(1))
    inside = ((x - (x1 + x2) / 2) / ((x2 - x1) / 2)) ** 2 + ((y - (y1 + y2) / 2) / ((y2 - y1) / 2)) ** 2 <= 1
    return Instances(boxes, torch.tensor([3, 17, 17, 60]), inside.to(torch.uint8))
