"""Weights stored in half precision predict in float32 where that is asked for, and their heads do always."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from piip import zoo
from piip.data.batches import collate
from piip.data.samples import Sample
from piip.model import PIIPModel
from piip.prediction.predictor import Precision, Predictor
from piip.profile import info
from piip.profile.table import report
from piip.structures import Batch, Instances, Prediction
from piip.weights.files import save_model

NANO = ["piip_nano_mask_rcnn", "piip_nano_dino", "piip_nano_upernet", "piip_nano_classifier"]
HALF: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def batch(predictor: Predictor) -> Batch:
    nothing = Instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    image = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(1))
    return collate([Sample(predictor.transform((image * 255).byte()), nothing, (64, 96), 0)], *predictor.padding)


def types_in(module: nn.Module) -> set[torch.dtype]:
    """Filled with the types that the module's products have, whenever it runs."""
    seen: set[torch.dtype] = set()
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.register_forward_hook(lambda _, inputs, output: seen.add(output.dtype))
    return seen


def equal(mine: Prediction, theirs: Prediction) -> bool:
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("name", NANO)
@pytest.mark.parametrize("fuse", [False, True])
def test_fp32_is_float32(name: str, fuse: bool) -> None:
    half = PIIPModel(zoo.entry(name).config()).bfloat16().eval()
    full = copy.deepcopy(half).float()
    one, other = (Predictor(model, "cpu", "fp32", fuse) for model in (half, full))
    (mine,), (theirs,) = one.run(batch(one)), other.run(batch(other))
    assert equal(mine, theirs)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", NANO)
@pytest.mark.parametrize("precision", list(HALF))
def test_in_half_precision_the_head_runs_in_float32(name: str, precision: Precision) -> None:
    stored = HALF[precision]
    half = PIIPModel(zoo.entry(name).config()).to(stored).eval()
    before = copy.deepcopy(half.state_dict())
    predictor = Predictor(half, "cpu", precision)
    running = predictor.inference.get()
    backbone, head = types_in(running.backbone), types_in(running.head)
    (prediction,) = predictor.run(batch(predictor))
    assert all(value.isfinite().all() for value in prediction.values() if value.is_floating_point())
    assert head == {torch.float32}
    assert stored in backbone
    assert all(mine is theirs for mine, theirs in
               zip(running.backbone.parameters(), half.backbone.parameters(), strict=True))  # fmt: skip
    for key, value in half.state_dict().items():
        assert value.dtype == before[key].dtype
        assert torch.equal(value, before[key])


def test_the_copy_follows_the_weights() -> None:
    half = PIIPModel(zoo.entry("piip_nano_classifier").config()).bfloat16().eval()
    predictor = Predictor(half, "cpu", "fp32")
    images = batch(predictor)
    (before,) = predictor.run(images)
    with torch.no_grad():
        half.head.logits.head.bias += 1.0 * torch.arange(len(half.config.classes))
    (after,) = predictor.run(images)
    assert not equal(before, after)
    half.float()  # now stored in single precision
    (again,) = predictor.run(images)
    assert equal(after, again)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
def test_info_says_in_which_precision_weights_are_stored(stored: torch.dtype, tmp_path: Path) -> None:
    model = PIIPModel(zoo.entry("piip_nano_classifier").config()).to(stored)
    save_model(model, tmp_path / "m.safetensors")
    facts = info(tmp_path / "m.safetensors")
    assert facts["stored_precision"] == ["bfloat16" if stored == torch.bfloat16 else "float32"]
    lines = [part for part in report(facts) if isinstance(part, str) and part.startswith("stored in")]
    if stored == torch.float32:
        assert lines == ["stored in float32"]
    else:
        assert "--precision fp32 predicts in float32, on a copy of twice the file's size" in lines[0]
    assert info("piip_nano_classifier")["stored_precision"] is None
