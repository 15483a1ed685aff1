"""Classifiers against the official code's logits, and their weights there and back."""

from typing import Any

import pytest
import torch
from tests.weights.golden import Golden, max_abs
from torch import Tensor

from piip.model import PIIPModel
from piip.weights import opengvlab
from piip.weights.keymap import KeyMismatch
from piip.weights.official.classifiers import classifier_config

TOLERANCE = 3e-5
"""the goldens' own rounding is 1e-5; 3e-4 would do"""


@pytest.mark.parametrize(
    "name", ["cls_tsb_deit", "cls_tsb_merged", pytest.param("cls_sbl_augreg", marks=pytest.mark.slow)]
)
@torch.inference_mode()
def test_logits_are_those_of_the_official_code(goldens, name):
    golden = Golden(goldens, name)
    weights = golden.state_dict()
    model = opengvlab.load(golden.spec["backbone"], weights)
    assert isinstance(model, PIIPModel)
    assert not model.training
    logits = model(golden.image())
    assert logits.shape == golden.expected["logits"].shape
    assert max_abs(logits, golden.expected["logits"]) <= TOLERANCE
    back = opengvlab.to_official(model)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], weights[key]) for key in weights)


def test_a_golden_classifier_knows_imagenet(goldens):
    model = classifier_config(Golden(goldens, "cls_tsb_deit").spec["backbone"])
    assert model.task == "classification"
    assert len(model.classes) == len(set(model.classes)) == 1000
    assert model.classes[0] == "tench"
    assert [branch.size for branch in model.backbone.branches] == [368, 192, 128]


def official(separate: bool) -> dict[str, Any]:
    """A small config in the official layout."""
    branches = {
        f"branch{number}": {
            "img_size": size,
            "embed_dim": width,
            "depth": 2,
            "num_heads": 2,
            "qkv_bias": True,
            "interaction_indexes": [[0, 0], [1, 1]],
            "use_cls_token": True,
        }
        for number, size, width in ((1, 32, 64), (2, 48, 32))
    }
    return {"deform_num_heads": 2, "deform_ratio": 0.5, "interact_attn_type": "deform", "with_cffn": True,
            "separate_head": separate, "num_classes": 7, **branches}  # fmt: skip


def official_weights(separate: bool) -> dict[str, Tensor]:
    return opengvlab.to_official(opengvlab.build(official(separate)))


@pytest.mark.parametrize("separate", [True, False])
def test_small_classifiers_go_there_and_back(separate):
    weights = official_weights(separate)
    heads = {key for key in weights if "head." in key or key.startswith(("merge_", "cls_", "w1"))}
    if separate:
        assert heads == {f"branch{i}.head.{leaf}" for i in (1, 2) for leaf in ("weight", "bias")}
    else:
        # The largest branch has a norm only; of the other's five layers two have no weights.
        merged = {"merge_branch1", *(f"merge_branch2.{i}" for i in (0, 2, 4)), "cls_norm", "cls_head"}
        assert heads == {f"{name}.{leaf}" for name in merged for leaf in ("weight", "bias")} | {"w1"}
    model = opengvlab.load(official(separate), weights)
    assert model(torch.rand(2, 3, 48, 48)).shape == (2, 7)
    assert opengvlab.to_official(model).keys() == weights.keys()


def test_a_whole_config_and_the_number_of_classes_in_the_weights():
    weights = official_weights(separate=True)
    config = {"backbone": {key: value for key, value in official(True).items() if key != "num_classes"}}
    assert len(opengvlab.load(config, weights).config.classes) == 7


@pytest.mark.parametrize("separate", [True, False])
def test_missing_and_unknown_keys_are_named(separate):
    weights = official_weights(separate)
    head = "branch1.head.weight" if separate else "cls_head.weight"
    wrong = {("branch9.head.weight" if key == head else key): tensor for key, tensor in weights.items()}
    with pytest.raises(KeyMismatch, match=rf"1 missing: {head}.*1 unknown: branch9.head.weight"):
        opengvlab.load(official(separate), wrong)
    with pytest.raises(KeyMismatch, match=r"of another shape: .*\(3, 64\)"):
        opengvlab.load(official(separate), weights | {head: torch.zeros(3, 64)})
