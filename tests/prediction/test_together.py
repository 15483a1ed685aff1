"""Two heads on one backbone: what each predicts alone, to the last bit, with the branches run once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests import tiny

import piip
from piip import config
from piip.backbone.piip import InteractionStage
from piip.model import PIIPModel
from piip.prediction.together import check_shared


def segmentor(maps: config.FeatureMaps | None = None) -> config.Model:
    detector = tiny.model()
    return config.Model(
        name="tiny_segmentor",
        backbone=tiny.backbone(2, maps),
        head=config.UperNet(channels=16, auxiliary_channels=16),
        classes=("sky", "road", "car"),
        preprocess=detector.preprocess,
    )


@pytest.fixture
def pair(tmp_path: Path) -> list[piip.PIIP]:
    torch.manual_seed(0)
    model = PIIPModel(tiny.model())
    for parameter in model.backbone.interactions.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    detector = piip.PIIP(model.eval(), device="cpu")
    detector.save(tmp_path / "detector.safetensors")
    other = piip.PIIP(segmentor(), device="cpu").load_backbone(tmp_path / "detector.safetensors")
    return [detector, other]


def photos() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (height, 96, 3), dtype=np.uint8) for height in (96, 96, 64)]


def numbers(result: Any) -> list[Any]:
    if hasattr(result, "boxes"):
        return [np.asarray(result.boxes), np.asarray(result.scores), np.asarray(result.labels)]
    return [np.asarray(result.classes if hasattr(result, "classes") else result.labels)]


def test_equal_to_each_alone_with_the_interactions_run_once(
    pair: list[piip.PIIP], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [model.predict(photos(), conf=0.0) for model in pair]
    forward, runs = InteractionStage.forward, []
    monkeypatch.setattr(InteractionStage, "forward", lambda *given: runs.append(1) or forward(*given))
    together = piip.predict_together(pair, photos(), conf=0.0)
    assert len(runs) == 3 * 2  # images, groups of blocks
    for ours, theirs in zip(together, alone, strict=True):
        for one, other in zip(ours, theirs, strict=True):  # type: ignore[arg-type]
            assert one.to_json() == other.to_json()
            for a, b in zip(numbers(one), numbers(other), strict=True):
                assert a.tobytes() == b.tobytes()
    pair[1].predict(photos()[0])
    assert len(runs) == 3 * 2 + 2  # alone again
    one = piip.predict_together(pair, photos()[0], conf=0.0)
    assert [type(result) for result in one] == [type(results[0]) for results in together]  # type: ignore[index]


def test_other_backbones_are_refused(pair: list[piip.PIIP], tmp_path: Path) -> None:
    detector = pair[0]
    changed = PIIPModel(segmentor())
    with pytest.raises(ValueError, match=r"other weights in \d+ tensors of the backbone, such as backbone\.branches"):
        piip.predict_together([detector, piip.PIIP(changed, device="cpu")], photos()[0])
    with pytest.raises(ValueError, match="other branches or interactions"):
        check_shared([detector.model, PIIPModel(tiny.model(branches=3))])
    resized = segmentor().model_copy(update={"preprocess": config.Preprocess(long_side=64, short_side=64)})
    with pytest.raises(ValueError, match="prepare images differently"):
        check_shared([detector.model, PIIPModel(resized)])
    detector.save(tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match="its branches or interactions are not those"):
        piip.PIIP(tiny.model(branches=3), device="cpu").load_backbone(tmp_path / "d.safetensors")
