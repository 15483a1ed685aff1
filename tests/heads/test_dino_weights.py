"""Official DINO checkpoints in and out, strictly; models are official ones made small."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import shared_folder
from tests.weights.golden import Golden
from torch import Tensor

import piip
from piip import config, zoo
from piip.weights import opengvlab
from piip.weights.keymap import KeyMismatch
from piip.weights.official.configs import model_config
from piip.weights.official.convert import to_official, to_ours
from piip.weights.pickles import read_state_dict

Official = dict[str, Any]


@pytest.fixture
def official() -> Official:
    """The SBL DINO with two layers each, a few queries, and branches of the golden's widths."""
    folder = shared_folder("reference", "configs", "mmdetection")
    whole: Official = json.loads(
        (folder / "dino_4scale_deit_384_sbl_1792_1120_672_fpn_3x_coco_bs32_ms.json").read_text()
    )
    golden = Golden(shared_folder("reference", "goldens"), "dino_mini")
    model = whole["model"]
    model["backbone"] = golden.spec["model"]["backbone"]
    model["neck"]["in_channels"] = golden.spec["model"]["neck"]["in_channels"]
    head = model["bbox_head"]
    head["num_query"] = head["transformer"]["two_stage_num_proposals"] = 20
    head["transformer"]["encoder"]["num_layers"] = 2
    head["transformer"]["decoder"]["num_layers"] = 3
    return whole


def random_weights(official: Official) -> dict[str, Tensor]:
    state = opengvlab.to_official(opengvlab.build(official))
    return {key: torch.randn_like(tensor) for key, tensor in state.items()}


def test_keys_are_the_official_ones() -> None:
    golden = Golden(shared_folder("reference", "goldens"), "dino_mini")
    with torch.device("meta"):
        module = opengvlab.build(golden.spec["model"])
    ours = {key: list(tensor.shape) for key, tensor in opengvlab.to_official(module).items()}
    assert ours == {key: shape for key, (shape, _) in golden.spec["state_dict"].items()}


def test_round_trip_is_bit_exact(official: Official, tmp_path: Path) -> None:
    theirs = random_weights(official)
    torch.save({"meta": {"CLASSES": ("a",)}, "state_dict": theirs}, tmp_path / "theirs.pth")
    (tmp_path / "official.json").write_text(json.dumps(official))
    done = to_ours(tmp_path / "theirs.pth", tmp_path / "ours", tmp_path / "official.json")
    assert done.parameters == sum(tensor.numel() for tensor in theirs.values())
    back = read_state_dict(to_official(tmp_path / "ours", tmp_path / "back.pth").path)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in theirs.items())
    again = to_ours(tmp_path / "back.pth", tmp_path / "again", tmp_path / "official.json")
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("ours", "again"))
    assert one == other
    assert again.model == done.model
    model = piip.PIIP(tmp_path / "ours", device="cpu")
    assert isinstance(model.config.head, config.DINO)
    assert model.config.task == "detection"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("bbox_head.label_embedding.weight"), "1 missing: bbox_head.label_embedding.weight"),
        (lambda state: state.update(extra=torch.zeros(1)), "1 unknown: extra"),
        (
            lambda state: state.update({"bbox_head.cls_branches.3.bias": torch.zeros(91)}),
            r"bbox_head.cls_branches.3.bias \(91,\) instead of \(80,\)",
        ),
    ],
)
def test_other_weights_are_refused(official: Official, change: Any, message: str) -> None:
    state = random_weights(official)
    change(state)
    with pytest.raises(KeyMismatch, match=message):
        opengvlab.load(official, state)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("bbox_head.as_two_stage", False, "two stages"),
        ("bbox_head.loss_bbox.loss_weight", 2.0, "loss weights"),
        ("bbox_head.transformer.decoder.transformerlayers.ffn_dropout", 0.1, "dropout"),
        ("bbox_head.transformer.two_stage_num_proposals", 300, "different queries"),
        ("bbox_head.sync_cls_avg_factor", False, "sync_cls_avg_factor"),
        ("neck.kernel_size", 3, "neck"),
        ("train_cfg.assigner.reg_cost.weight", 1.0, "matching costs"),
    ],
)
def test_other_heads_are_refused(official: Official, path: str, value: Any, message: str) -> None:
    *parents, last = path.split(".")
    part = official["model"]
    for key in parents:
        part = part[key]
    part[last] = value
    with pytest.raises(ValueError, match=message):
        model_config(official)


def test_zoo_entries_build() -> None:
    for name in ("piip_sbl_1792_1120_672_dino", "piip_h6b_1024_768_dino", "piip_lh6b_1536_1024_512_dino"):
        entry = zoo.entry(name)
        assert entry.config().head == config.DINO()
        assert (
            entry.recipe["grad_clip"] is None
        )  # as configured it had no effect in the official runs, see docs/dino.md
        assert (entry.recipe["lr"], entry.recipe["lr_batch_size"]) == (2e-4, 32)
        assert entry.recipe["augmentation"].crop is not None
