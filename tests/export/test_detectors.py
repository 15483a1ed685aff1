"""Fixed numbers of proposals and detections give what the model's own head gives."""

import math

import pytest
import torch
from tests.export.models import SIDE, small
from torch import Tensor
from torchvision.ops import batched_nms

from piip.export.fixed_numbers import NOTHING, RoIAlignOfAll, apart, survivors
from piip.export.networks import network_of
from piip.heads.mask_rcnn.roi import RoIAlign
from piip.inference import fuse
from piip.structures import Batch


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("head", ["mask_rcnn", "one_class_each", "dino"])
@torch.no_grad()
def test_detections_are_the_models_own_with_and_without_padding(head: str, folded: bool) -> None:
    model = small(head)
    images, sizes = torch.randn(2, 3, SIDE, SIDE + 32), [(SIDE, SIDE + 32), (50, 40)]
    images[1, :, 50:], images[1, :, :, 40:] = 0, 0
    wanted = model.predict(Batch(images, sizes, paste_masks=False))
    network = network_of(fuse(model, mode="export") if folded else model)
    found = dict(zip(network.outputs, network(images, torch.tensor(sizes).float()), strict=True))
    for image, expected in enumerate(wanted):
        count = len(expected["boxes"])
        assert count > 0
        scores = found["scores"][image]
        assert (scores[:count] > 0).all()
        assert (scores[count:] == 0).all()
        torch.testing.assert_close(scores[:count], expected["scores"], atol=1e-5, rtol=0)
        torch.testing.assert_close(found["boxes"][image][:count], expected["boxes"], atol=2e-3, rtol=0)
        assert torch.equal(found["labels"][image][:count], expected["labels"])
        if "masks" in found:
            masks = expected["mask_probabilities"]
            torch.testing.assert_close(found["masks"][image][:count], masks, atol=1e-4, rtol=0)


def test_places_without_a_detection_are_empty() -> None:
    model = small("mask_rcnn")
    with torch.no_grad():
        model.head.box.scores.bias[-1] += 50  # everything is background
    network = network_of(model)
    boxes, scores, _, masks = network(torch.randn(1, 3, SIDE, SIDE), torch.tensor([[SIDE, SIDE]]).float())
    assert boxes.shape == (1, 8, 4)
    assert masks.shape == (1, 8, 28, 28)
    assert (scores == 0).all()
    assert (boxes == 0).all()
    assert masks.isfinite().all()


def test_regions_are_those_of_the_plain_alignment() -> None:
    torch.manual_seed(0)
    levels = [torch.randn(2, 3, 128 // stride, 128 // stride) for stride in (4, 8, 16, 32)]
    sides = torch.tensor([5.0, 30.0, 60.0, 100.0, 120.0])
    boxes = torch.stack((sides * 0, sides * 0 + 1, sides, sides + 2), dim=1)
    boxes = torch.cat((boxes, boxes[:1] * 0))
    plain, fixed = RoIAlign(7, (4, 8, 16, 32)), RoIAlignOfAll(7, (4, 8, 16, 32))
    regions = [boxes, boxes.flip(0)]
    torch.testing.assert_close(fixed(levels, regions), plain(levels, regions))


def test_suppression_by_class_keeps_what_the_librarys_keeps() -> None:
    torch.manual_seed(0)
    corner = torch.rand(200, 2) * 80
    boxes = torch.cat((corner, corner + 5 + torch.rand(200, 2) * 20), dim=1)
    scores, label = torch.rand(200), torch.randint(0, 7, (200,))
    kept = survivors(apart(boxes, label, 7, 105.0, 105.0), scores, 0.5)
    expected = torch.full_like(scores, NOTHING)
    expected[batched_nms(boxes, scores, label, 0.5)] = 1
    assert ((kept >= 0) == (expected > 0)).all()
    assert 0 < int((kept < 0).sum()) < 200


def test_many_classes_stay_near_the_origin() -> None:
    moved = apart(torch.zeros(2, 4), torch.tensor([0, 1199]), 1200, 1000.0, 1000.0)
    assert moved[1].max() <= 1001 * math.ceil(math.sqrt(1200))
    assert not torch.equal(moved[0], moved[1])


def test_an_exported_suppression_may_keep_a_single_box() -> None:
    class Suppression(torch.nn.Module):
        def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
            return survivors(boxes, scores, 0.5)

    apart_from_each_other = torch.tensor([[0.0, 0, 4, 4], [10, 10, 14, 14], [20, 20, 24, 24]])
    scores = torch.tensor([0.2, 0.9, 0.4])
    run = torch.export.export(Suppression(), (apart_from_each_other, scores)).module()
    assert run(apart_from_each_other, scores).equal(scores)
    one = apart_from_each_other[:1].expand(3, -1).contiguous()
    assert run(one, scores).equal(torch.tensor([NOTHING, 0.9, NOTHING]))
    assert run(torch.zeros(3, 4), torch.full((3,), NOTHING)).equal(torch.full((3,), NOTHING))
