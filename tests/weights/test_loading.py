"""Loading takes the memory of the weights once, keeps their precision, and leaves nothing of a model without values."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import tiny

from piip import config, zoo
from piip.model import PIIPModel
from piip.prediction.predictor import Predictor
from piip.structures import Batch
from piip.weights.files import WeightsError, load_model, read_one_by_one, save_model

NANO = ("piip_nano_mask_rcnn", "piip_nano_upernet", "piip_nano_classifier")
ROTARY = ("eva02_tiny_patch14_224", "vit_small_patch16_dinov3")


def filled(model: config.Model) -> PIIPModel:
    """A model in which every part matters: fresh LayerScales, interactions and positions are nearly 0."""
    module = PIIPModel(model).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim <= 1 or "pos_embed" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def with_branch(name: str) -> config.Model:
    """A detector on one timm branch."""
    whole = tiny.model(branches=1)
    branch = config.Branch.model_validate({"model": name, "size": 64, "groups": 1})
    return whole.model_copy(update={"backbone": config.Backbone(branches=(branch,))})


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in a)


@pytest.mark.parametrize("name", NANO)
def test_a_loaded_model_is_the_saved_one(tmp_path: Path, name: str) -> None:
    saved = filled(zoo.entry(name).config())
    loaded = load_model(save_model(saved, tmp_path / "m.safetensors"))
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in saved.parameters()]
    batch = Batch(torch.randn(1, 3, 96, 128))
    with torch.no_grad():
        assert same(loaded.predict(batch), saved.predict(batch))


@pytest.mark.parametrize("name", ROTARY)
def test_buffers_that_no_file_holds_are_computed(tmp_path: Path, name: str) -> None:
    with torch.device("meta"):
        fresh = PIIPModel(with_branch(name))
    saved = fresh.to_empty(device="cpu")
    for part in saved.modules():
        if hasattr(part, "init_non_persistent_buffers"):
            part.init_non_persistent_buffers()
    with torch.no_grad():
        for parameter in saved.parameters():
            parameter.normal_(std=0.02)
    loaded = load_model(save_model(saved, tmp_path / "m.safetensors"))
    before, after = dict(saved.named_buffers()), dict(loaded.named_buffers())
    assert len(before) > len([key for key in before if key in saved.state_dict()])
    assert before.keys() == after.keys()
    assert all(torch.equal(buffer, after[key]) for key, buffer in before.items())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for one, other in zip(saved.eval().features(images), loaded.features(images), strict=True):
            assert torch.equal(one, other)


def test_class_weights_come_from_the_config(tmp_path: Path) -> None:
    model = zoo.entry("piip_nano_upernet").config()
    weights = tuple(0.5 + label for label in range(len(model.classes)))
    head = model.head.model_copy(update={"class_weights": weights})
    saved = PIIPModel(model.model_copy(update={"head": head}))
    loaded = load_model(save_model(saved, tmp_path / "m.safetensors"))
    assert loaded.head.class_weights.tolist() == list(weights)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", NANO)
def test_half_precision_is_kept_and_predicts(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    full = filled(zoo.entry(name).config())
    save_model(full, tmp_path / "full.safetensors")
    save_model(full.to(dtype), tmp_path / "half.safetensors")
    half = load_model(tmp_path / "half.safetensors")
    assert {parameter.dtype for parameter in half.parameters()} == {dtype}
    image = torch.rand(3, 96, 128)
    one = Predictor(load_model(tmp_path / "full.safetensors"), "cpu").predict(image).results[0]
    other = Predictor(half, "cpu").predict(image).results[0]
    assert type(one) is type(other)
    if hasattr(one, "probabilities") and one.probabilities is not None:
        torch.testing.assert_close(other.probabilities.float(), one.probabilities.float(), atol=0.03, rtol=0.0)


def test_a_type_that_models_do_not_run_in_becomes_float32(tmp_path: Path) -> None:
    saved = PIIPModel(tiny.model(branches=1))
    file = save_model(saved.double(), tmp_path / "m.safetensors")
    loaded = load_model(file)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_whole_numbers_in_the_place_of_weights_are_refused(tmp_path: Path) -> None:
    file = save_model(PIIPModel(tiny.model(branches=1)), tmp_path / "m")
    tensors = load_file(file)
    key = "backbone.branches.0.vit.blocks.0.norm1.bias"
    save_file(tensors | {key: tensors[key].to(torch.int32)}, file)
    with pytest.raises(WeightsError, match=f"{key} is of type torch.int32 instead of torch.float32"):
        load_model(file)


def test_tensors_are_read_in_memory_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("piip.weights.files.MAPPED_AT_ONCE", 100)
    tensors = {f"t{i}": torch.full((i, 7), float(i)) for i in range(9)}
    save_file(tensors, tmp_path / "t.safetensors")
    read = dict(read_one_by_one(tmp_path / "t.safetensors"))
    (tmp_path / "t.safetensors").write_bytes(b"")  # whatever were mapped would be gone
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[key], value) for key, value in tensors.items())


MEASURE = """
import resource, sys
from pathlib import Path
import torch
from piip.weights.files import load_model
import piip.model
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = load_model(sys.argv[1])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow  # 400 MB
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_the_weights_are_in_memory_once(tmp_path: Path) -> None:
    model = tiny.model(branches=1)
    branch = tiny.branch(64, 2048, heads=16, depth=4, mlp_ratio=2.0)
    with torch.device("meta"):
        wide = PIIPModel(model.model_copy(update={"backbone": config.Backbone(branches=(branch,))}))
    wide.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in wide.parameters():
            parameter.fill_(0.5)
    file = save_model(wide, tmp_path / "m.safetensors")
    megabytes = file.stat().st_size / 2**20
    assert megabytes > 400
    done = subprocess.run([sys.executable, "-c", MEASURE, str(file)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.3 * megabytes + 100
