import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from piip.heads.mask_rcnn import matching
from piip.heads.mask_rcnn.matching import BACKGROUND, UNDECIDED, match_boxes, random_sample, sample

RPN = (0.7, 0.3, 0.3)
BOX = (0.5, 0.5, 0.5)


def tall(*heights: float, x: float = 0.0) -> Tensor:
    """Boxes of width 10 with their top edge at 0: the overlap of two is the ratio of their heights."""
    return torch.tensor([[x, 0.0, x + 10.0, height] for height in heights])


def in_order(candidates: Tensor, boxes: Tensor, positive: float, negative: float, minimum: float) -> list[int]:
    """The reference's assigner, one box at a time."""
    iou = box_iou(candidates, boxes).tolist()
    matched = []
    for row in iou:
        best = max(row)
        matched.append(row.index(best) if best >= positive else BACKGROUND if best < negative else UNDECIDED)
    for index in range(len(boxes)):
        highest = max(row[index] for row in iou)
        for candidate, row in enumerate(iou):
            if highest >= minimum and row[index] == highest:
                matched[candidate] = index
    return matched


def test_positive_ignored_and_background() -> None:
    candidates = tall(10, 7.5, 6, 3.5, 2)
    assert match_boxes(candidates, tall(10), *RPN).tolist() == [0, 0, UNDECIDED, UNDECIDED, BACKGROUND]
    assert match_boxes(candidates, tall(10), *BOX).tolist() == [0, 0, 0, BACKGROUND, BACKGROUND]


def test_the_thresholds_themselves_are_positive_and_not_background() -> None:
    candidates = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 4.0], [0.0, 0.0, 8.0, 2.0]])
    assert match_boxes(candidates, candidates[:1], 0.5, 0.25, 0.25).tolist() == [0, 0, UNDECIDED]


def test_every_object_takes_its_best_candidates() -> None:
    candidates = torch.cat((tall(10), tall(4, x=100), tall(4, x=100), tall(3.5, x=100)))
    objects = torch.cat((tall(10), tall(10, x=100)))
    assert match_boxes(candidates, objects, *RPN).tolist() == [0, 1, 1, UNDECIDED]  # both of the best, 0.4 each


def test_an_object_that_nothing_overlaps_enough_gets_no_candidate() -> None:
    assert match_boxes(tall(2), tall(10), *RPN).tolist() == [BACKGROUND]
    assert match_boxes(tall(4), tall(10), *BOX).tolist() == [BACKGROUND]


@pytest.mark.parametrize("at_a_time", [1, 32])
def test_the_later_of_two_equal_objects_claims_the_earlier_keeps_the_rest(monkeypatch, at_a_time: int) -> None:
    monkeypatch.setattr(matching, "OBJECTS_AT_A_TIME", at_a_time)
    candidates, objects = tall(9, 8), tall(10, 10)
    assert match_boxes(candidates, objects, *RPN).tolist() == [1, 0]


def test_a_claim_beats_a_better_overlap() -> None:
    candidates, objects = tall(9), tall(10, 4)
    assert match_boxes(candidates, objects, *RPN).tolist() == [1]


def test_without_objects_or_candidates() -> None:
    assert match_boxes(tall(5, 6), torch.zeros(0, 4), *RPN).tolist() == [BACKGROUND, BACKGROUND]
    assert match_boxes(torch.zeros(0, 4), tall(5), *RPN).shape == (0,)
    assert match_boxes(torch.zeros(0, 4), torch.zeros(0, 4), *RPN).dtype == torch.long


@pytest.mark.parametrize("at_a_time", [1, 3, 32])
@pytest.mark.parametrize("thresholds", [RPN, BOX])
def test_equals_the_reference_one_box_at_a_time(monkeypatch, at_a_time: int, thresholds) -> None:
    monkeypatch.setattr(matching, "OBJECTS_AT_A_TIME", at_a_time)
    # Whole numbers make ties.
    corner = torch.randint(0, 6, (60, 2))
    candidates = torch.cat((corner, corner + torch.randint(1, 7, (60, 2))), dim=1).float()
    objects = candidates[torch.randint(0, 60, (10,))] + torch.tensor([0.0, 0.0, 1.0, 0.0])
    objects = torch.cat((objects, objects[:5]))
    actual = match_boxes(candidates, objects, *thresholds)
    assert actual.tolist() == in_order(candidates, objects, *thresholds)
    assert len(actual.unique()) > 3


def test_hundreds_of_objects_equal_the_reference() -> None:
    """Above `OBJECTS_AT_A_TIME` neighbours are matched together, each with the candidates near them."""
    corner = torch.randint(0, 60, (400, 2))
    candidates = torch.cat((corner, corner + torch.randint(1, 12, (400, 2))), dim=1).float()
    objects = candidates[torch.randint(0, 400, (140,))] + torch.tensor([0.0, 0.0, 1.0, 0.0])
    objects[7] = torch.tensor([-5.0, -5.0, 80.0, 80.0])
    for thresholds in (RPN, BOX):
        actual = match_boxes(candidates, objects, *thresholds)
        assert actual.tolist() == in_order(candidates, objects, *thresholds)


def test_sample_fills_up_with_negatives() -> None:
    matched = torch.tensor([0, BACKGROUND, UNDECIDED, 2, BACKGROUND, 1, BACKGROUND, BACKGROUND])
    chosen = sample(matched, 4, 0.5, lambda candidates, k: candidates[:k])
    assert chosen.positive.tolist() == [0, 3]
    assert chosen.objects.tolist() == [0, 2]
    assert chosen.negative.tolist() == [1, 4]
    chosen = sample(matched, 6, 0.25, lambda candidates, k: candidates[-k:])
    assert chosen.positive.tolist() == [5]
    assert chosen.objects.tolist() == [1]
    assert chosen.negative.tolist() == [1, 4, 6, 7]


def test_random_sample_takes_k_different_candidates_by_the_global_seed() -> None:
    candidates = torch.arange(100) * 2
    first = random_sample(candidates, 10)
    assert len(set(first.tolist())) == 10
    assert set(first.tolist()) <= set(candidates.tolist())
    assert not torch.equal(first, random_sample(candidates, 10))
    torch.manual_seed(0)
    assert torch.equal(first, random_sample(candidates, 10))
    assert random_sample(candidates, 200).tolist() == candidates.tolist()
