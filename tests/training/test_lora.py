"""Adapters: trained alone, merged in what is given away, loadable onto their base, resumed to the last bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import Crash, assert_same, at_step, crash, outcome
from toy_training import ToyData, toy_config, toy_metric, toy_model, toy_settings

import piip
from piip.data.batches import collate
from piip.inference import choose
from piip.model import PIIPModel
from piip.training.checkpoint import load_checkpoint
from piip.training.folder import RunFolder
from piip.training.loop import RunResult, train
from piip.training.lora import Lora, add_adapters, merged
from piip.weights.adapters import apply_adapter, read_about
from piip.weights.errors import WeightsError
from piip.weights.files import load_model, save_model

pytest.importorskip("peft")
LORA = "rank=2,alpha=4,targets=qkv,proj,fc1,branches=1"


@pytest.mark.parametrize(
    ("given", "lora"),
    [
        (8, Lora()),
        ("4", Lora(rank=4)),
        (LORA, Lora(rank=2, alpha=4, targets=("qkv", "proj", "fc1"), branches=(1,))),
        ("targets=proj,branches=0,1", Lora(targets=("proj",), branches=(0, 1))),
        ({"rank": 3}, Lora(rank=3)),
        (None, None),
    ],
)
def test_the_forms_of_the_setting(given: Any, lora: Lora | None) -> None:
    assert toy_settings(lora=given).lora == lora


def test_what_cannot_be_adapted() -> None:
    for given, told in (("nine", "write a rank"), ("rang=8", "rang"), (0, "greater than 0")):
        with pytest.raises(ValueError, match=told):
            toy_settings(lora=given)
    with pytest.raises(ValueError, match="lora on branch 2: the model has branches 0"):
        add_adapters(toy_model(), Lora(branches=(2,)), 0)
    with pytest.raises(ValueError, match="lora targets query: the blocks of branch 0 have fc1, fc2, proj, qkv"):
        add_adapters(toy_model(), Lora(targets=("query",)), 0)


def test_they_change_nothing_at_first_and_are_merged_later() -> None:
    plain, model = toy_model().eval(), toy_model().eval()
    add_adapters(model, toy_settings(lora=LORA).lora, 0)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    mine = {name for name in trained if name.startswith("backbone.branches.1.")}
    assert len(mine) == 4 * 3 * 2
    assert all(".lora_" in name for name in mine)
    assert any(name.startswith("backbone.branches.0.") for name in trained)
    choose(model, "train")
    data = ToyData(1)
    batch = collate([data[0, 0]], 32)
    with torch.no_grad():
        for one, other in zip(model.features(batch.images), plain.features(batch.images), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.1)
        whole = merged(model)
        for one, other in zip(model.features(batch.images), whole.features(batch.images), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert whole.state_dict().keys() == plain.state_dict().keys()
    assert merged(plain) is plain


def run(folder: Path, resume: bool = False) -> RunResult:
    model = toy_model(seed=99 if resume else 0)
    settings = toy_settings(lora=LORA, freeze="0", epochs=2, log="none", began_from={"weights": "base.safetensors"})
    return train(model, ToyData(11), settings, folder, toy_metric, resume=resume)


def test_a_run_its_files_and_its_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(tmp_path / "straight")
    state, before = load_checkpoint(RunFolder(tmp_path / "straight").checkpoint), toy_model().state_dict()
    bases = [name for name in state["model"] if ".base_layer." in name]
    assert len(bases) == 4 * 3 * 2
    for name in bases:
        assert torch.equal(state["model"][name], before[name.replace(".base_layer", "")])
    last = load_model(result.last_weights)
    assert last.state_dict().keys() == before.keys()  # an ordinary model
    moved = "backbone.branches.1.vit.blocks.0.attn.qkv.weight"
    assert not torch.equal(last.state_dict()[moved], before[moved])
    assert torch.equal(
        last.state_dict()[moved.replace("qkv", "qkv").replace(".1.", ".0.", 1)], before[moved.replace(".1.", ".0.", 1)]
    )

    adapter = result.last_weights.with_suffix(".adapter.safetensors")
    assert read_about(adapter)["base"] == {"weights": "base.safetensors"}
    base = toy_model()
    apply_adapter(base, adapter)
    for name, tensor in base.state_dict().items():
        assert torch.equal(tensor, last.state_dict()[name]), name
    other = toy_model(seed=5)
    with pytest.raises(WeightsError, match=r"not that of the adapter's base.*base\.safetensors"):
        apply_adapter(other, adapter)
    with pytest.raises(WeightsError, match="no adapter"):
        apply_adapter(other, result.last_weights)
    assert_same(dict(other.state_dict()), dict(toy_model(seed=5).state_dict()))

    at_step(monkeypatch, 3, crash)
    with pytest.raises(Crash):
        run(tmp_path / "resumed")
    monkeypatch.undo()
    run(tmp_path / "resumed", resume=True)
    assert_same(outcome(tmp_path / "resumed"), outcome(tmp_path / "straight"))


def test_an_adapter_alone_is_small_where_all_else_is_frozen(tmp_path: Path) -> None:
    save_model(toy_model(), tmp_path / "base.safetensors")
    settings = toy_settings(lora=2, freeze="backbone,head", epochs=1, log="none", ema=None)
    result = train(load_model(tmp_path / "base.safetensors"), ToyData(3), settings, tmp_path / "run")
    adapter = result.last_weights.with_suffix(".adapter.safetensors")
    assert adapter.stat().st_size < 0.2 * result.last_weights.stat().st_size
    ours = piip.PIIP(tmp_path / "base.safetensors").load_adapter(adapter)
    assert_same(dict(ours.model.state_dict()), dict(load_model(result.last_weights).state_dict()))
    assert json.loads(json.dumps(toy_config().model_dump(mode="json"))) == read_about(adapter)["model"]


def test_an_adapter_brings_its_classes_along(tmp_path: Path) -> None:
    """As of pretrained branches under a new head, which is all in the adapter."""
    save_model(toy_model(), tmp_path / "base.safetensors")
    result = train(
        load_model(tmp_path / "base.safetensors"), ToyData(3), toy_settings(lora=2, epochs=1), tmp_path / "run"
    )
    adapter = result.last_weights.with_suffix(".adapter.safetensors")
    other = PIIPModel(toy_config().model_copy(update={"name": "other", "classes": ("a", "b", "c", "d")}))
    branches = {name: part for name, part in toy_model().state_dict().items() if name.startswith("backbone.branches.")}
    other.load_state_dict(branches, strict=False)
    ours = piip.PIIP(other, "cpu").load_adapter(adapter)
    assert ours.config.classes == toy_config().classes
    assert_same(dict(ours.model.state_dict()), dict(load_model(result.last_weights).state_dict()))

    third = piip.PIIP(PIIPModel(other.config), "cpu")
    before = {name: tensor.clone() for name, tensor in third.model.state_dict().items()}
    with pytest.raises(WeightsError, match="not that of the adapter's base"):
        third.load_adapter(adapter)
    assert third.config.classes == ("a", "b", "c", "d")
    assert_same(dict(third.model.state_dict()), before)
