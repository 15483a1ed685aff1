"""A file that differs from its model is told from one that does not."""

import pytest
import torch
from tests.export.models import eager, photo, small
from torch import Tensor

from piip.export.check import check, generated_images

PHOTOS = [photo(90, 120, 1), photo(70, 64, 2)]


@pytest.mark.parametrize("head", ["mask_rcnn", "dino", "upernet", "classifier"])
def test_the_same_network_passes(head: str) -> None:
    model = small(head)
    report = check(model, eager(model), PHOTOS)
    assert report.passed, report.problems
    assert report.images == 2
    if head in ("mask_rcnn", "dino"):
        assert report.figures["objects"] > 0
        assert report.figures["objects that both find"] == 1


def moved(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return outputs | {"boxes": outputs["boxes"] + 6}


def less_sure(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return outputs | {"scores": outputs["scores"] * 0.99}


def other_class(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return outputs | {"labels": (outputs["labels"] + 1) % 3}


def half_missing(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    scores = outputs["scores"].clone()
    scores[:, ::2] = 0
    return outputs | {"scores": scores}


def masks_inside_out(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return outputs | {"masks": 1 - outputs["masks"]}


@pytest.mark.parametrize("change", [moved, less_sure, other_class, half_missing, masks_inside_out])
def test_wrong_objects_do_not_pass(change) -> None:
    model = small("mask_rcnn")
    assert not check(model, eager(model, change=change), PHOTOS).passed


@pytest.mark.parametrize("head", ["upernet", "classifier"])
def test_wrong_logits_do_not_pass(head: str) -> None:
    model = small(head)
    report = check(model, eager(model, change=lambda outputs: {"logits": outputs["logits"] + 0.02}), PHOTOS)
    assert report.problems == [report.problems[0]] * len(report.problems)
    assert "difference of logits" in report.problems[0]


def test_not_a_number_does_not_pass() -> None:
    model = small("classifier")
    report = check(model, eager(model, change=lambda outputs: {"logits": outputs["logits"] * torch.nan}), PHOTOS)
    assert not report.passed


def test_it_says_when_there_is_nothing_to_see() -> None:
    model = small("mask_rcnn")
    with torch.no_grad():
        model.head.box.scores.bias[-1] += 50
    report = check(model, eager(model), PHOTOS)
    assert report.passed
    assert "finds nothing" in report.notes[0]


def test_generated_images_are_wide_and_high() -> None:
    shapes = [image.shape for image in generated_images(2)]
    assert shapes == [(384, 512, 3), (512, 384, 3)]


def test_images_that_cannot_be_read_are_no_comparison(tmp_path) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")
    model = small("classifier")
    with pytest.raises(ValueError, match="none of the images"):
        check(model, eager(model), [tmp_path / "x.png"])
