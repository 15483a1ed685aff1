"""Predictors run a folded copy that follows the model; compiling is an option that may fail."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from tests import tiny
from torch import Tensor

from piip import config
from piip.api import PIIP
from piip.backbone import PIIPBackbone
from piip.inference import compiling, fuse
from piip.inference.compiling import Compiled, compile_backbone
from piip.inference.cpu.convolutions import FewerProducts
from piip.inference.current_copy import InferenceCopy
from piip.model import PIIPModel
from piip.prediction.predictor import Predictor


def model(head: config.Head | None = None) -> PIIPModel:
    described = tiny.model(2)
    if head is not None:
        described = described.model_copy(update={"head": head})
    return PIIPModel(described).eval()


def photo(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (96, 128, 3), dtype=np.uint8)


def test_a_predictor_runs_a_folded_copy_once_made() -> None:
    predictor = Predictor(model(), "cpu")
    copy = predictor.inference.get()
    assert copy.folded
    assert not predictor.model.folded
    predictor.predict(photo())
    assert predictor.inference.get() is copy


def test_the_copy_follows_the_weights() -> None:
    original = model(config.UperNet(channels=16, auxiliary_channels=None))
    predictor = Predictor(original, "cpu")
    before = predictor.predict(photo()).results[0]
    optimizer = torch.optim.SGD(original.parameters(), lr=0.01)
    for parameter in original.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    after = predictor.predict(photo()).results[0]
    plain = Predictor(original, "cpu", fuse=False).predict(photo()).results[0]
    assert not np.allclose(before.scores, after.scores, atol=1e-3)
    np.testing.assert_allclose(after.scores, plain.scores, atol=1e-4)


def test_without_folding_the_original_runs() -> None:
    original = model()
    assert Predictor(original, "cpu", fuse=False).inference.get() is original


def test_weights_in_half_precision_are_not_rounded_twice() -> None:
    original = model().to(torch.bfloat16)
    assert InferenceCopy(original).get() is original


def test_a_model_keeps_its_predictor_until_something_changes() -> None:
    held = PIIP(model(config.UperNet(channels=16, auxiliary_channels=None)), "cpu")
    first = held.predictor()
    assert held.predictor() is first
    assert held.predictor("bf16") is not first
    assert held.use_windows(64).predictor() is not first
    assert held.predictor().inference.get().head.config.window == 64


@pytest.mark.parametrize("compiled", [False, True])
def test_transformed_convolutions_only_where_they_run(compiled: bool) -> None:
    described = tiny.model(4)  # merged into maps of 128 channels
    described = described.model_copy(update={"head": config.UperNet(channels=128, auxiliary_channels=None)})
    copy = InferenceCopy(PIIPModel(described).eval(), compiled=compiled).get()
    assert has_transformed(copy.backbone) == (not compiled)
    assert has_transformed(copy.head)


def test_other_places_for_them_are_refused() -> None:
    with pytest.raises(ValueError, match="winograd False: use one of 'everywhere', 'head', 'nowhere'"):
        fuse(model(), winograd=False)  # type: ignore[arg-type]


def has_transformed(module: torch.nn.Module) -> bool:
    return any(isinstance(part, FewerProducts) for part in module.modules())


def states_and_maps(fullgraph_backend: str, folded: bool) -> None:
    original = PIIPModel(tiny.model(3)).eval()
    backbone: Any = (fuse(original) if folded else original).backbone
    images = torch.randn(1, 3, 96, 128)
    torch._dynamo.reset()
    for function in (backbone.forward, backbone.states):
        compiled = torch.compile(function, backend=fullgraph_backend, fullgraph=True, dynamic=False)
        with torch.inference_mode():
            for actual, expected in zip(_tensors(compiled(images)), _tensors(function(images)), strict=True):
                torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def _tensors(outputs: Any) -> list[Tensor]:
    return [getattr(output, "tokens", output) for output in outputs]


@pytest.mark.parametrize("folded", [False, True])
def test_one_graph_without_breaks(folded: bool) -> None:
    states_and_maps("eager", folded)


def test_a_training_step_compiles_without_breaks_too() -> None:
    torch._dynamo.reset()
    backbone = PIIPBackbone(tiny.backbone(2)).train()
    compiled = torch.compile(backbone, backend="aot_eager", fullgraph=True, dynamic=False)
    sum(level.square().mean() for level in compiled(torch.randn(1, 3, 96, 64))).backward()
    assert backbone.branches[0].vit.patch_embed.proj.weight.grad.abs().sum() > 0


def test_without_a_compiler_one_warning_and_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    compiled = Compiled(torch.sin, backend=no_compiler)  # type: ignore[arg-type]
    x = torch.randn(3)
    with pytest.warns(UserWarning, match="runs uncompiled") as caught:
        torch.testing.assert_close(compiled(x), x.sin())
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(compiled(x), x.sin())


def test_compile_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def eager(copy: PIIPModel) -> None:
        seen.append(copy)
        compile_backbone(copy, "eager")

    monkeypatch.setattr(compiling, "compile_backbone", eager)
    original = model()
    held = PIIP(original, "cpu", compile=True)
    expected = Predictor(original, "cpu").predict(photo(), score_threshold=0.0).results[0]
    actual = held.predict(photo(), conf=0.0)
    held.predict(photo(1))
    assert len(seen) == 1
    torch.testing.assert_close(actual.boxes, expected.boxes, atol=1e-2, rtol=1e-3)
    assert not isinstance(original.backbone.forward, Compiled)
