"""Fine-tuning keeps what the weights know of a class, wherever it stands in the list of the new data."""

from typing import Any

import pytest
import torch
from tests import tiny
from tests.heads.dino_models import head_config

import piip
from piip import config
from piip.model import PIIPModel
from piip.weights.transfer import class_rows, note_transfer, transfer

OLD, NEW = ("a", "b", "c"), ("b", "z", "a", "y")

HEADS: dict[str, tuple[config.Head | None, dict[str, int]]] = {
    "mask_rcnn": (
        None,
        {f"head.{name}.{kind}": 4 if name == "box.deltas" else 1
         for name in ("box.scores", "box.deltas", "mask.logits") for kind in ("weight", "bias")},
    ),
    "dino": (
        head_config(encoder_layers=1),
        {"head.label_embedding.weight": 1}
        | {f"head.{name}.{kind}": 1
           for name in ("selection.scores", "decoder.scores.0", "decoder.scores.1") for kind in ("weight", "bias")},
    ),
    "upernet": (
        config.UperNet(channels=16, auxiliary_channels=16),
        {f"head.{name}.{kind}": 1 for name in ("decoder.classify.1", "auxiliary.2") for kind in ("weight", "bias")},
    ),
    "classifier": (
        config.Classifier(),
        {f"head.logits.heads.{branch}.{kind}": 1 for branch in (0, 1) for kind in ("weight", "bias")},
    ),
}  # fmt: skip


def model(kind: str, classes: tuple[str, ...], seed: int = 0) -> PIIPModel:
    torch.manual_seed(seed)
    described, head = tiny.model(2, classes=classes), HEADS[kind][0]
    built = PIIPModel(described if head is None else described.model_copy(update={"head": head}))
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter)
    return built


@pytest.mark.parametrize("kind", HEADS)
def test_what_has_rows_for_classes(kind: str) -> None:
    assert class_rows(model(kind, OLD).config) == HEADS[kind][1]


@pytest.mark.parametrize("kind", HEADS)
def test_rows_go_by_the_names_of_classes(kind: str) -> None:
    weights, target = model(kind, OLD, 1), model(kind, NEW, 2)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    assert transfer(target, weights) == (["z", "y"], [])
    source, per_class = weights.state_dict(), HEADS[kind][1]
    for key, value in target.state_dict().items():
        if key not in per_class:
            assert torch.equal(value, source[key]), key
            continue
        rows = per_class[key]
        for index, name in enumerate(NEW):
            own = slice(index * rows, (index + 1) * rows)
            other = OLD.index(name) if name in OLD else None
            expected = before[key][own] if other is None else source[key][other * rows : (other + 1) * rows]
            assert torch.equal(value[own], expected), (key, name)
        assert torch.equal(value[len(NEW) * rows :], source[key][len(OLD) * rows :]), key  # background


def test_the_same_classes_in_another_order_say_the_same() -> None:
    weights, target = model("classifier", OLD, 1).eval(), model("classifier", ("c", "a", "b"), 2).eval()
    assert transfer(target, weights) == ([], [])
    image = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(target(image), weights(image)[:, [2, 0, 1]])


def test_another_head_keeps_what_fits(capsys: Any) -> None:
    weights, target = model("dino", OLD), model("mask_rcnn", OLD)
    note_transfer(target, weights)
    message = " ".join(capsys.readouterr().err.split())
    assert "where they do not fit: head.fpn" in message
    assert "more" in message
    assert "classes" not in message
    own, other = target.backbone.branches.state_dict(), weights.backbone.branches.state_dict()
    assert all(torch.equal(own[key], other[key]) for key in other)


def test_only_a_part_of_the_weights() -> None:
    model, other = PIIPModel(tiny.model()), PIIPModel(tiny.model())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert transfer(model, other, ("backbone.branches.",)) == ([], [])
    for key, value in model.state_dict().items():
        expected = other.state_dict()[key] if key.startswith("backbone.branches.") else before[key]
        assert torch.equal(value, expected), key


def test_another_number_of_queries_begins_with_fresh_ones() -> None:
    weights = model("dino", OLD)
    described = weights.config.model_copy(update={"head": head_config(encoder_layers=1, queries=4)})
    assert transfer(PIIPModel(described), weights) == ([], ["head.selection.content.weight"])


def test_a_model_for_other_classes_is_made_of_released_weights(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    released = piip.create_model("piip_nano_dino")
    monkeypatch.setattr("piip.weights.hub.official_weights", lambda name: name)
    monkeypatch.setattr("piip.weights.files.load_model", lambda path: released)
    made = piip.create_model("piip_nano_dino", classes=("cat", "unicorn"), pretrained=True)
    assert "do not know: unicorn" in " ".join(capsys.readouterr().err.split())
    row = released.config.classes.index("cat")
    assert torch.equal(made.head.selection.scores.weight[0], released.head.selection.scores.weight[row])
