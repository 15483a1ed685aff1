"""Position tables are resized once per size in copies for inference, and are those that were resized each time."""

import copy
import pickle

import pytest
import torch
from tests import tiny

from piip.backbone.vit import ResizedPositions
from piip.inference import choose, fuse, kept_positions
from piip.inference.compiling import compile_backbone
from piip.inference.kept_positions import KeptLeanPositions, KeptPositions
from piip.lean.embedding import LeanPositions
from piip.model import PIIPModel

SIZES = ((3, 4), (7, 2), (4, 4))


@pytest.mark.parametrize(("kept", "usual"), [(KeptPositions, ResizedPositions), (KeptLeanPositions, LeanPositions)])
def test_the_same_bits_once_made(kept: type[KeptPositions], usual: type[ResizedPositions]) -> None:
    stored, tables = torch.randn(1, 16, 8), kept()
    for size in SIZES:
        assert torch.equal(tables.of(stored, size), usual().of(stored, size))
        assert tables.of(stored, size) is tables.of(stored, size)


def test_made_anew_for_other_weights() -> None:
    stored, tables = torch.randn(1, 16, 8), KeptPositions()
    tables.of(stored, (3, 4))
    stored.mul_(2)
    assert torch.equal(tables.of(stored, (3, 4)), ResizedPositions().of(stored, (3, 4)))
    other = torch.randn(1, 16, 8)
    assert torch.equal(tables.of(other, (3, 4)), ResizedPositions().of(other, (3, 4)))
    assert tables.of(other.double(), (3, 4)).dtype == torch.float32


def test_not_kept_where_gradients_are_wanted() -> None:
    stored, tables = torch.randn(1, 16, 8, requires_grad=True), KeptPositions()
    tables.of(stored, (3, 4)).sum().backward()
    assert stored.grad is not None


def test_only_so_many_and_none_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_positions, "MOST_KEPT", 2)
    stored, tables = torch.randn(1, 16, 8), KeptPositions()
    first = [tables.of(stored, size) for size in SIZES]
    again = [tables.of(stored, size) for size in SIZES]
    assert [one is other for one, other in zip(first, again, strict=True)] == [True, True, False]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_tables_made_in_a_prediction_serve_a_gradient_of_the_images() -> None:
    model = fuse(PIIPModel(tiny.model(2)))
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        model.features(images)
    assert len(model.backbone.branches[0].resize_positions._tables) == 1
    images.requires_grad_()
    torch.stack([one.sum() for one in model.features(images)]).sum().backward()  # type: ignore[union-attr]
    assert images.grad is not None
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    with torch.inference_mode():
        pairs = zip(model.features(images), copied.features(images), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)  # type: ignore[arg-type]


def test_a_compiled_backbone_takes_the_tables_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fuse(PIIPModel(tiny.model(2)), mode="compile")
    images = torch.randn(1, 3, 64, 96)
    compile_backbone(model, backend="eager")
    with torch.inference_mode():
        first = model.features(images)
        monkeypatch.setattr(LeanPositions, "forward", None)  # would fail if it were called
        again = model.features(images)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))  # type: ignore[arg-type]


def test_a_model_that_trains_keeps_none() -> None:
    model = PIIPModel(tiny.model(2))
    choose(model, "train")
    assert type(model.backbone.branches[0].resize_positions) is LeanPositions


def test_what_a_graph_owns_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_positions, "can_be_kept", lambda _: False)
    stored, tables = torch.randn(1, 16, 8), KeptPositions()
    assert tables.of(stored, (3, 4)) is not tables.of(stored, (3, 4))
