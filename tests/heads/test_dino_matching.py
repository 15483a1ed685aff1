"""Matching, losses and geometry of DINO."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou, sigmoid_focal_loss

from piip.heads.dino import matching
from piip.heads.dino.losses import detection_losses
from piip.heads.dino.matching import Matches, Objects, costs, generalised_iou, match_queries, objects_of, repeated
from piip.heads.dino.positions import embed_boxes, geometry, inverse_sigmoid, to_centres, to_corners
from piip.heads.dino.queries import cell_boxes
from piip.structures import Instances

SIZES = [(60, 80), (100, 50), (70, 70)]


def random_boxes(count: int) -> Tensor:
    corners = torch.rand(count, 2) * 20
    return torch.cat((corners, corners + 5 + torch.rand(count, 2) * 20), dim=1)


def objects(counts: tuple[int, ...] = (3, 2)) -> Objects:
    targets = [Instances(random_boxes(count), torch.randint(0, 4, (count,))) for count in counts]
    return objects_of(targets, SIZES[: len(counts)])


def predictions(layers: int = 3, images: int = 2, queries: int = 5) -> tuple[Tensor, Tensor]:
    return torch.randn(layers, images, queries, 4), torch.rand(layers, images, queries, 4) * 0.5 + 0.2


def one_image(every: Objects, image: int) -> Objects:
    start = sum(every.counts[:image])
    own = slice(start, start + every.counts[image])
    return Objects(every.labels[own], every.boxes[own], every.scales[own], [every.counts[image]])


def test_all_layers_at_once_are_each_the_cheapest_assignment() -> None:
    logits, boxes = predictions()
    every = objects()
    pairs = match_queries(logits, boxes, every)
    assert pairs.query.shape == (3, 5)
    for layer, image in itertools.product(range(3), range(2)):
        own = one_image(every, image)
        table = costs(logits[:, image], boxes[:, image], own)[layer]
        count = every.counts[image]
        cheapest = min(
            sum(table[query, index].item() for index, query in enumerate(order))
            for order in itertools.permutations(range(5), count)
        )
        mine = pairs.image[layer] == image
        start = sum(every.counts[:image])
        found = table[pairs.query[layer, mine], pairs.object[layer, mine] - start]
        assert len(found) == count
        assert found.sum().item() == pytest.approx(cheapest, abs=1e-4)


def test_several_tables_at_a_time_give_the_same_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    every, guessed = objects((7, 0, 30)), predictions(images=3, queries=20)
    one_by_one = match_queries(*guessed, every)
    monkeypatch.setattr(matching, "AT_A_TIME", 0)
    together = match_queries(*guessed, every)
    assert together.query.shape == (3, 27)
    for one, other in zip(one_by_one, together, strict=True):
        assert torch.equal(one, other)


def test_costs_by_hand() -> None:
    truth = Objects(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.4, 0.2]]), torch.tensor([[80.0, 60, 80, 60]]), [1])
    logits, boxes = torch.tensor([[[0.3, -1.0]]]), torch.tensor([[[0.4, 0.5, 0.4, 0.3]]])
    p = 1 / (1 + math.exp(1.0))
    classes = 0.25 * (1 - p) ** 2 * -math.log(p) - 0.75 * p**2 * -math.log(1 - p)
    corners = torch.tensor([[16.0, 21, 48, 39]]), torch.tensor([[24.0, 24, 56, 36]])
    giou = generalized_box_iou(*corners).item()
    assert costs(logits, boxes, truth).item() == pytest.approx(2 * classes + 5 * 0.2 - 2 * giou, abs=1e-5)


def test_giou_against_torchvision() -> None:
    a, b = random_boxes(6), random_boxes(6)
    assert torch.allclose(generalised_iou(a[:, None], b[None]), generalized_box_iou(a, b), atol=1e-6)


def test_empty_boxes_have_finite_giou_and_gradient() -> None:
    a = torch.zeros(1, 4, requires_grad=True)
    generalised_iou(a, torch.zeros(1, 4)).sum().backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()


def test_losses_by_hand() -> None:
    logits, boxes = predictions(layers=1, images=1, queries=3)
    truth = objects((1,))
    pairs = Matches(torch.tensor([[0]]), torch.tensor([[2]]), torch.tensor([[0]]))
    wanted = torch.zeros(1, 1, 3, 4)
    wanted[0, 0, 2, truth.labels[0]] = 1
    scale = torch.tensor([80.0, 60, 80, 60])
    giou = generalized_box_iou(to_corners(boxes[0, 0, 2:]) * scale, to_corners(truth.boxes) * scale).item()
    distance = (boxes[0, 0, 2] - truth.boxes[0]).abs().sum().item()
    expected = [sigmoid_focal_loss(logits, wanted, reduction="sum").item(), 5 * distance, 2 * (1 - giou)]
    assert detection_losses(logits, boxes, pairs, truth)[0].tolist() == pytest.approx(expected, rel=1e-4)


def test_repeated_objects() -> None:
    every = objects((2, 1))
    thrice = repeated(every, 3, 100)
    assert thrice.counts == [6, 3]
    assert torch.equal(thrice.labels, torch.cat((every.labels[:2].repeat(3), every.labels[2:].repeat(3))))
    assert repeated(every, 1, 100) is every
    assert repeated(every, 3, 2).counts == [2, 2]  # of two queries each of two objects has one, a single object both


def test_box_formats() -> None:
    boxes = random_boxes(4)
    assert torch.allclose(to_corners(to_centres(boxes)), boxes, atol=1e-5)
    x = torch.tensor([-1.0, 0.0, 0.3, 1.0, 2.0])
    assert torch.allclose(inverse_sigmoid(x).sigmoid(), torch.tensor([0.001, 0.001, 0.3, 0.999, 0.999]), atol=1e-5)


def test_geometry_of_a_padded_image() -> None:
    places = geometry([(4, 6)], [(20, 33), (32, 48)], (32, 48), 64, 20.0, torch.device("cpu"))
    # Cells are valid where their nearest pixel is: rows 0, 8, 16 and columns 0, 8, .., 32 of the first image.
    assert torch.allclose(places.valid[:, 0], torch.tensor([[5 / 6, 3 / 4], [1, 1]]))
    assert places.padding[0].reshape(4, 6).tolist() == [[False] * 5 + [True]] * 3 + [[True] * 6]
    assert not places.padding[1].any()
    centres = places.centres()
    assert centres.shape == (2, 24, 1, 2)
    assert torch.allclose(centres[:, 0, 0], torch.tensor([1 / 12, 1 / 8]))
    boxes = torch.tensor([[[1.0, 1.0, 0.5, 0.5]]]).expand(2, 1, 4)
    assert torch.allclose(places.on_levels(boxes)[0, 0, 0], torch.tensor([5 / 6, 3 / 4, 5 / 12, 3 / 8]))
    assert places.positions.shape == (2, 24, 64)
    assert torch.allclose(places.positions[1, 0, 32], torch.tensor(2 * math.pi / 6).sin(), atol=1e-4)  # x of cell 0


def test_what_cells_propose() -> None:
    places = geometry([(4, 6), (2, 3)], [(20, 33), (32, 48)], (32, 48), 64, 20.0, torch.device("cpu"))
    boxes, proposes = cell_boxes(places)
    assert torch.equal(proposes, ~places.padding)
    assert (boxes[~proposes] == torch.inf).all()
    assert torch.allclose(boxes[0, 0].sigmoid(), torch.tensor([0.5 / 5, 0.5 / 3, 0.05, 0.05]), atol=1e-6)
    assert torch.allclose(boxes[1, 24].sigmoid(), torch.tensor([0.5 / 3, 0.5 / 2, 0.1, 0.1]), atol=1e-6)


def test_box_embedding_begins_with_y() -> None:
    embedded = embed_boxes(torch.tensor([[[0.25, 0.0, 0.0, 0.0]]]), 8)
    assert embedded.shape == (1, 1, 16)
    assert embedded[0, 0, 0] == 0
    assert embedded[0, 0, 4].item() == pytest.approx(1.0)  # sin(2 pi / 4), the first of x
