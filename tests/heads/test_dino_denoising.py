"""Denoising queries: what they are, and that nothing else ever sees them."""

import pytest
import torch
from dino_models import SMALL, TWO, batch, head_config, instances, tiny_model
from torch import Tensor, nn

from piip.heads.dino.denoising import Denoising, blocked_queries, denoising_queries, number_of_groups
from piip.heads.dino.matching import objects_of

CLASSES, CHANNELS = 50, SMALL["channels"]


def made(labels: list[Tensor], boxes: list[Tensor], **fields: float) -> Denoising:
    torch.manual_seed(0)
    found = denoising_queries(labels, boxes, nn.Embedding(CLASSES, CHANNELS), head_config(**fields))
    assert found is not None
    return found


@pytest.mark.parametrize(("objects", "groups"), [(1, 100), (3, 33), (60, 1), (100, 1), (700, 1)])
def test_groups_shrink_with_many_objects(objects: int, groups: int) -> None:
    assert number_of_groups(100, objects) == groups


def test_layout() -> None:
    labels = [torch.tensor([1, 2, 3]), torch.tensor([4]), torch.tensor([], dtype=torch.long)]
    boxes = [torch.full((len(one), 4), 0.4) for one in labels]
    found = made(labels, boxes, denoising_queries=7, label_noise=0.0, box_noise=1.0)
    assert found.groups == 2
    assert found.content.shape == (3, 2 * 2 * 3, CHANNELS)
    assert found.query.tolist() == [0, 1, 2, 0, 6, 7, 8, 6]  # the positives of both groups
    assert found.image.tolist() == [0, 0, 0, 1] * 2
    assert found.object.tolist() == [0, 1, 2, 3] * 2
    filled = found.content.abs().sum(-1) > 0
    assert filled[0].all()
    assert filled[1].tolist() == [True, False, False] * 4
    assert not filled[2].any()
    assert (found.boxes[~filled] == 0.5).all()


def test_no_more_objects_than_asked_for_and_others_each_time() -> None:
    labels = [torch.arange(3), torch.arange(3, 33), torch.arange(33, 40)]
    boxes = [torch.rand(len(one), 4) * 0.1 + 0.4 for one in labels]
    everything = torch.cat(labels)
    seen = set()
    for seed in range(3):
        torch.manual_seed(seed)
        embedding = nn.Embedding(CLASSES, CHANNELS)
        head = head_config(denoising_queries=10, denoising_objects=5, label_noise=0.0, box_noise=0.1)
        found = denoising_queries(labels, boxes, embedding, head)
        assert found is not None
        assert (found.groups, found.content.shape[1]) == (2, 2 * 2 * 5)
        assert found.image.tolist() == ([0] * 3 + [1] * 5 + [2] * 5) * 2
        assert found.object[:3].tolist() == [0, 1, 2]
        content = found.content[found.image, found.query]
        assert torch.equal(content, embedding(everything[found.object])), "each is told what it looks like"
        centres = found.boxes[found.image, found.query]
        assert (centres - torch.cat(boxes)[found.object]).abs().max() < 0.05
        seen.add(tuple(found.object.tolist()))
    assert len(seen) == 3
    torch.manual_seed(0)
    few = denoising_queries(labels, boxes, nn.Embedding(CLASSES, CHANNELS), head_config(denoising_objects=30))
    assert few is not None
    assert torch.equal(few.content, made(labels, boxes).content), "a bound that none reaches draws nothing"


def test_nobody_has_objects() -> None:
    none = [torch.zeros(0, dtype=torch.long)] * 2
    assert denoising_queries(none, [torch.zeros(0, 4)] * 2, nn.Embedding(3, 64), head_config()) is None


def test_noise_is_as_large_as_promised() -> None:
    count = 3000
    labels = [torch.zeros(count, dtype=torch.long)]
    boxes = [torch.tensor([[0.5, 0.5, 0.2, 0.1]]).expand(count, 4)]
    found = made(labels, boxes, denoising_queries=count, label_noise=0.5)
    x, y, w, h = found.boxes[0].unflatten(0, (2, count)).unbind(-1)
    left = (x - w / 2 - 0.4).abs() / 0.1  # in half widths
    top = (y - h / 2 - 0.45).abs() / 0.05
    assert left[0].max() <= 1 + 1e-4
    assert top[0].max() <= 1 + 1e-4
    assert left[0].mean() == pytest.approx(0.5, abs=0.03)
    outward = left[1, w[1] > 0.01]  # a negative with both sides moved inwards is inside out and then has no width
    assert len(outward) == pytest.approx(count * 0.75, rel=0.05)
    assert outward.min() >= 1 - 1e-4
    assert outward.max() <= 2 + 1e-4
    assert outward.mean() == pytest.approx(1.5, abs=0.03)
    torch.manual_seed(0)
    first = nn.Embedding(CLASSES, CHANNELS)
    changed = (found.content[0] != first.weight[0]).any(-1).float().mean()
    assert changed.item() == pytest.approx(0.25 * (1 - 1 / CLASSES), abs=0.03)


def test_blocked() -> None:
    labels = [torch.tensor([1, 2])]
    found = made(labels, [torch.full((2, 4), 0.3)], denoising_queries=4)
    blocked = blocked_queries(found, 3)
    assert blocked.shape == (11, 11)
    assert blocked[8:, :8].all()
    assert not blocked[8:, 8:].any()
    assert not blocked[:, 8:].any()
    assert not blocked[:4, :4].any()
    assert blocked[:4, 4:8].all()
    assert blocked[4:8, :4].all()


@torch.no_grad()
def test_matching_queries_never_see_denoising_queries() -> None:
    model, data = tiny_model(denoising_queries=6), batch(TWO, TWO)
    head = model.train().head
    features = model.backbone(data.images)
    objects = objects_of(data.targets, data.image_sizes)
    labels = [target.labels for target in data.targets]
    found = denoising_queries(labels, objects.boxes.split(objects.counts), head.label_embedding, head.config)
    assert found is not None
    assert found.groups == 3

    def decode(denoising: Denoising | None) -> tuple[Tensor, ...]:
        decoded = head(features, data.image_sizes, (96, 128), denoising)
        return decoded.logits, decoded.boxes, decoded.denoised_logits, decoded.denoised_boxes

    logits, boxes, denoised, _ = decode(found)
    plain_logits, plain_boxes, none, _ = decode(None)
    assert none.shape[2] == 0
    assert torch.allclose(logits, plain_logits, atol=1e-5)
    assert torch.allclose(boxes, plain_boxes, atol=1e-6)

    content, places = found.content.clone(), found.boxes.clone()
    content[:, 5] += 3.0  # a query of the second group (4 to 7)
    places[:, 5] = 0.9
    changed, changed_boxes, changed_denoised, _ = decode(found._replace(content=content, boxes=places))
    assert torch.equal(changed, logits)
    assert torch.equal(changed_boxes, boxes)
    moved = (changed_denoised - denoised).abs().amax((0, 1, 3)) > 1e-6
    assert moved.tolist() == [False] * 4 + [True] * 4 + [False] * 4  # its own group only


def test_what_is_restored() -> None:
    """With perfect answers at the positives and no class elsewhere, nothing is left to learn."""
    model = tiny_model(denoising_queries=4).train()
    data = batch(TWO, instances((5.0, 5, 25, 30)))
    objects = objects_of(data.targets, data.image_sizes)
    labels = [target.labels for target in data.targets]
    split = objects.boxes.split(objects.counts)
    found = denoising_queries(labels, split, model.head.label_embedding, model.head.config)
    assert found is not None
    decoded = model.head(model.backbone(data.images), data.image_sizes, (96, 128), found)
    logits, boxes = torch.full_like(decoded.denoised_logits, -30.0), decoded.denoised_boxes.clone()
    logits[:, found.image, found.query, objects.labels[found.object]] = 30.0
    boxes[:, found.image, found.query] = objects.boxes[found.object]
    perfect = decoded._replace(denoised_logits=logits, denoised_boxes=boxes)
    assert model.head.denoising_losses(perfect, objects, found).abs().max() < 1e-5
    assert model.head.denoising_losses(decoded, objects, found).sum() > 1
