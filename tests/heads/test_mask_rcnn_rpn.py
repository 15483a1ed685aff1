import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_iou, nms

from piip import config
from piip.heads.mask_rcnn.boxes import RPN_STDS, decode, encode
from piip.heads.mask_rcnn.matching import BACKGROUND, match_boxes
from piip.heads.mask_rcnn.rpn import RPN, cells, inside
from piip.structures import Instances

SIZE = (96, 128)


def first(candidates: torch.Tensor, k: int) -> torch.Tensor:
    return candidates[:k]


def levels(batch: int = 1, size: tuple[int, int] = SIZE, channels: int = 8) -> list[torch.Tensor]:
    return [torch.randn(batch, channels, -(-size[0] // s), -(-size[1] // s)) for s in (4, 8, 16, 32, 64)]


def rpn(**settings) -> RPN:
    module = RPN(config.MaskRCNN(channels=8, **settings))
    for layer in (module.objectness, module.deltas):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return module


def objects(*boxes: list[float]) -> Instances:
    return Instances(torch.tensor(boxes).float().reshape(-1, 4), torch.zeros(len(boxes), dtype=torch.long))


def test_outputs_are_in_the_order_of_the_anchors() -> None:
    module, maps = rpn(), levels(batch=2)
    logits, deltas = module(maps)
    for level, anchors, logit, delta in zip(maps, module.anchors(maps), logits, deltas, strict=True):
        height, width = level.shape[-2:]
        assert logit.shape == (2, height * width * 3)
        assert delta.shape == (2, len(anchors), 4)
        hidden = F.relu(module.conv(level))
        row, column, shape = height - 1, width // 2, 2
        index = (row * width + column) * 3 + shape
        torch.testing.assert_close(logit[:, index], module.objectness(hidden)[:, shape, row, column])
        torch.testing.assert_close(delta[:, index], module.deltas(hidden)[:, shape * 4 : shape * 4 + 4, row, column])


def test_proposals_are_clipped_sorted_and_not_more_than_asked() -> None:
    module, maps = rpn(proposals=40), levels(batch=2)
    sizes = [(90, 100), (64, 128)]
    found = module.proposals(*module(maps), module.anchors(maps), sizes, 500)
    for (boxes, scores), (height, width) in zip(found, sizes, strict=True):
        assert boxes.shape == (40, 4)
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert boxes.min() >= 0
        assert boxes[:, 2].max() <= width
        assert boxes[:, 3].max() <= height
        assert (scores.diff() <= 0).all()


def test_proposals_equal_the_steps_one_level_at_a_time() -> None:
    module, maps = rpn(), levels()
    logits, deltas = module(maps)
    anchors = module.anchors(maps)
    boxes, scores = [], []
    for logit, delta, anchor in zip(logits, deltas, anchors, strict=True):
        score, index = logit[0].sigmoid().topk(min(50, logit.shape[1]))
        box = decode(delta[0][index][:, None], anchor[index], RPN_STDS, SIZE)[:, 0]
        keep = nms(box, score, 0.7)
        boxes.append(box[keep])
        scores.append(score[keep])
    order = torch.cat(scores).argsort(descending=True)
    found, found_scores = module.proposals(logits, deltas, anchors, [SIZE], 50)[0]
    torch.testing.assert_close(found_scores, torch.cat(scores)[order])
    torch.testing.assert_close(found, torch.cat(boxes)[order])
    # Suppression is per level: equal boxes of two levels would both stay.
    assert box_iou(found, found).fill_diagonal_(0).max() > 0.7


def test_fewer_proposals_than_requested_on_a_tiny_image() -> None:
    module, maps = rpn(), levels(size=(32, 32))
    boxes, scores = module.proposals(*module(maps), module.anchors(maps), [(32, 32)], 2000)[0]
    assert 0 < len(boxes) == len(scores) < 3 * (64 + 16 + 4 + 1 + 1)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_proposals_of_a_model_that_has_diverged_are_no_crash(broken: float) -> None:
    module, maps = rpn(), levels()
    logits, deltas = module(maps)
    found, _ = module.proposals(logits, [delta * broken for delta in deltas], module.anchors(maps), [SIZE], 100)[0]
    assert found.isfinite().all()


def test_losses_by_hand() -> None:
    module, maps = rpn(rpn_batch=20), levels(batch=2)
    logits, deltas = module(maps)
    anchors = module.anchors(maps)
    targets = [objects([10, 10, 50, 60], [60, 20, 120, 90]), objects()]
    losses = module.loss(logits, deltas, anchors, [SIZE, SIZE], targets, [first, first])
    everything, score, offset = torch.cat(anchors), torch.cat(logits, 1), torch.cat(deltas, 1)
    matched = match_boxes(everything, targets[0].boxes, 0.7, 0.3, 0.3)
    positive = (matched >= 0).nonzero().flatten()[:10]
    assert 2 <= len(positive) < 10
    negative = (matched == BACKGROUND).nonzero().flatten()[: 20 - len(positive)]
    classification = (
        F.softplus(-score[0, positive]).sum() + F.softplus(score[0, negative]).sum() + F.softplus(score[1, :20]).sum()
    )
    wanted = encode(targets[0].boxes[matched[positive]], everything[positive], RPN_STDS)
    sampled = 20 + 1 + 20  # an image without positives counts as if it had one
    torch.testing.assert_close(losses["loss_rpn_cls"], classification / sampled)
    torch.testing.assert_close(losses["loss_rpn_bbox"], (offset[0, positive] - wanted).abs().sum() / sampled)


@pytest.mark.parametrize("padded", [(96, 128), (64, 96), (65, 97), (90, 100)])
def test_only_anchors_that_begin_inside_the_padded_image_are_trained(padded: tuple[int, int]) -> None:
    module, maps = rpn(rpn_batch=10**6), levels()
    logits, deltas = module(maps)
    for logit in logits:
        logit.retain_grad()
    module.loss(logits, deltas, module.anchors(maps), [padded], [objects()], [first])["loss_rpn_cls"].backward()
    for logit, level, stride in zip(logits, maps, (4, 8, 16, 32, 64), strict=True):
        height, width = level.shape[-2:]
        trained = logit.grad.reshape(height, width, 3) != 0
        for row in range(height):
            for column in range(width):
                within = row * stride < padded[0] and column * stride < padded[1]
                assert (trained[row, column] == within).all()


def test_other_strides_have_other_anchors() -> None:
    module = RPN(config.MaskRCNN(channels=8), strides=(3.5, 7, 14, 28, 56))
    found = module.anchors(levels())[0].reshape(24, 32, 3, 4)[2, 3, 1]
    torch.testing.assert_close(found, torch.tensor([10.5 - 14, 7 - 14, 10.5 + 14, 7 + 14]))
    trained = inside(cells(module.anchors(levels())[0]), (18, 128)).reshape(24, 32, 3)
    assert trained[5].all()  # 17.5 < 18
    assert not trained[6].any()
