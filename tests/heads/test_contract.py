"""The contract of heads: one that no other part of the package knows trains, predicts, is counted and folded."""

import typing

import pytest
import torch
from tests import tiny
from torch import Tensor, nn
from torch.nn import functional as F

from piip import config, heads
from piip.config.heads import TASKS
from piip.heads.head import Folding, Head
from piip.inference import fuse
from piip.model import PIIPModel
from piip.profile.measured import counts_of_parts
from piip.structures import Batch

CLASSES = 3


class Pixels(Head[Tensor]):
    """Class scores from the finest map by a 1x1 convolution, BatchNorm and a linear layer after a LayerNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.ModuleDict({"conv": nn.Conv2d(width, 8, 1), "norm": nn.BatchNorm2d(8)})
        self.norm = nn.LayerNorm(8)
        self.scores = nn.Linear(8, CLASSES)
        self.helper: nn.Module | None = nn.Linear(8, 1)

    @classmethod
    def of(cls, model: config.Model) -> "Pixels":
        return cls(model.backbone.map_widths[0])

    def forward(self, features: list[Tensor]) -> Tensor:
        hidden = self.first["norm"](self.first["conv"](features[0])).movedim(1, -1)
        return self.scores(self.norm(hidden)).mean((1, 2))

    def check(self, batch: Batch) -> None:
        if not batch.targets:
            raise ValueError("no targets")

    def loss(self, features: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(self(features), torch.stack(batch.targets))}

    def predict(self, features_of, batch: Batch) -> list[dict[str, Tensor]]:
        return [{"probs": scores.softmax(0)} for scores in self(features_of(batch.images))]

    def dry_run(self, features: list[Tensor], image: tuple[int, int]) -> None:
        self(features)

    def folding(self) -> Folding:
        return Folding(
            map_readers=(self.first["conv"],),
            affine=((self.norm, (self.scores,)),),
            batch_norms=((self.first["conv"], self.first["norm"]),),
            training_only=() if self.helper is None else (self.helper,),
        )


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> config.Model:
    monkeypatch.setitem(heads.HEADS, "mask_rcnn", Pixels)
    return tiny.model(2)


def test_every_kind_of_config_has_its_head() -> None:
    kinds = [kind.model_fields["kind"].default for kind in typing.get_args(typing.get_args(config.Head)[0])]
    assert sorted(heads.HEADS) == sorted(TASKS) == sorted(kinds)


def test_an_unknown_head_trains_and_predicts(described: config.Model) -> None:
    model = PIIPModel(described)
    batch = Batch(torch.randn(2, 3, 64, 96), targets=[torch.tensor(0), torch.tensor(2)])
    model.loss(batch)["loss"].backward()
    assert model.head.scores.weight.grad.abs().max() > 0
    assert [prediction["probs"].shape for prediction in model.predict(batch)] == [(CLASSES,)] * 2
    with pytest.raises(ValueError, match="no targets"):
        model.loss(Batch(batch.images))


def test_its_cost_is_counted(described: config.Model) -> None:
    counts = counts_of_parts(described, (64, 96))
    width = described.backbone.map_widths[0]
    assert "neck" not in counts
    assert counts["head"].macs == 16 * 24 * (width * 8 + 8 * CLASSES)
    assert counts["head"].params == sum(parameter.numel() for parameter in Pixels(width).parameters())


@torch.no_grad()
def test_it_is_folded_as_it_declares(described: config.Model) -> None:
    model = PIIPModel(described).eval()
    for norm in (model.head.first["norm"], model.head.norm):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    model.head.first["norm"].running_var.uniform_(0.5, 2)
    batch = Batch(torch.randn(1, 3, 64, 96))
    expected = model.predict(batch)[0]["probs"]
    folded = fuse(model)
    torch.testing.assert_close(folded.predict(batch)[0]["probs"], expected, atol=1e-5, rtol=1e-4)
    assert folded.head.helper is None
    assert isinstance(folded.head.first["conv"], nn.Identity)  # the map is made with its channels
    assert isinstance(folded.head.first["norm"], nn.Identity)
    assert folded.head.norm.weight is None
    assert model.head.helper is not None


@torch.no_grad()
def test_what_is_declared_must_be_a_part_of_the_head(described: config.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pixels, "folding", lambda _: Folding(training_only=(nn.Linear(1, 1),)))
    with pytest.raises(ValueError, match="a Linear that is declared for folding is no part of the Pixels"):
        fuse(PIIPModel(described))
