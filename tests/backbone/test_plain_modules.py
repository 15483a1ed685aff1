"""The paper's files are plain PyTorch: modules call modules, so that hooks, sharding and exporters see all of them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.devices.steps import batch_for
from tests.inference.test_fold import BACKBONES, BY_NAME, HEADS, build
from timm.models.eva import EvaAttention
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import piip
from piip import config
from piip.backbone import PIIPBackbone
from piip.inference import choose
from piip.model import PIIPModel

ROOT = Path(piip.__file__).parent
PAPER = sorted(path for part in ("backbone", "heads", "ops") for path in (ROOT / part).rglob("*.py"))
TABLES = "heads/dino/"
"""DINO reads embeddings as its queries, and splits the projection of its self-attention"""
READERS = [path for path in PAPER if TABLES not in path.as_posix()]


def called(model: nn.Module) -> set[str]:
    """Names of the modules whose hooks have fired; grows with every call."""
    names: set[str] = set()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: names.add(name))
    return names


def with_weights(model: nn.Module) -> set[str]:
    """Modules that hold trained parameters themselves.

    But for holders of others (timm's models), tables (embeddings that are queries), and the first projections of timm's
    EVA and of DINO's self-attention, which give queries, keys and values different inputs or biases.
    """
    return {
        name
        for name, module in model.named_modules()
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        and name.split(".")[-1] not in ("vit", "convnext", "rope", "weights", "in_proj")
        and not isinstance(module, nn.Embedding)
        and not (name.endswith(".qkv") and type(model.get_submodule(name[:-4])) is EvaAttention)
    }


@pytest.mark.parametrize("kind", BACKBONES)
def test_every_module_of_a_backbone_is_called(kind: str) -> None:
    torch.manual_seed(0)
    backbone = PIIPBackbone(BACKBONES[kind])
    names = called(backbone)
    backbone(torch.randn(1, 3, 128, 128))
    assert with_weights(backbone) - names == set()
    blocks = {f"branches.{i}.vit.blocks" for i, b in enumerate(BACKBONES[kind].branches) if b.family != "convnext"}
    assert blocks | {f"branches.{index}" for index in range(len(backbone.branches))} <= names


@pytest.mark.parametrize("name", BY_NAME)
def test_every_module_of_a_timm_model_is_called(name: str) -> None:
    branch = config.Branch.model_validate({"model": name, "size": 64, "groups": 2, "windows": 2})
    with torch.device("meta"):
        backbone = PIIPBackbone(config.Backbone(branches=(branch,), maps=config.FeatureMaps(norm="layernorm")))
    backbone.to_empty(device="cpu")
    names = called(backbone)
    backbone(torch.randn(1, 3, 64, 64))
    assert with_weights(backbone) - names == set()


@pytest.mark.parametrize("head", HEADS)
def test_every_module_of_a_model_is_called_in_a_training_step(head: str) -> None:
    model = build(BACKBONES["deit"], HEADS[head]).train()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    names = called(model)
    model.loss(batch_for(model.config))
    assert with_weights(model) - names == set()


@pytest.mark.parametrize("kind", ["deit", "class token", "beit", "intern_vit", "hybrid", "three branches"])
@torch.no_grad()
def test_a_backbone_is_exported_with_equal_outputs(kind: str) -> None:
    model = build(BACKBONES[kind], HEADS["upernet"])
    choose(model, "train")
    choose(model, "export")  # as it was built
    backbone, images = model.backbone, torch.randn(1, 3, 128, 96)
    exported = torch.export.export(backbone, (images,)).module()
    for actual, expected in zip(exported(images), backbone(images), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["augreg", "uni_perceiver"])
@torch.no_grad()
def test_torch_counts_the_flops_of_a_backbone(kind: str) -> None:
    backbone = PIIPBackbone(BACKBONES[kind])
    with FlopCounterMode(display=False) as counter:
        backbone(torch.randn(1, 3, 96, 64))
    assert counter.get_total_flops() > 0


@pytest.mark.parametrize("path", READERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_forward_reads_the_weights_of_a_part(path: Path) -> None:
    assert list(weights_read(ast.parse(path.read_text()))) == []


BEFORE_THE_FIRST_CALL = ("__init__", "reset_parameters", "set_initial_values", "build", "as_if_trained")


def weights_read(node: ast.AST) -> Iterator[str]:
    """`part.weight` and `self.part.bias`, but for what initialises; `self.weight` is a module's own."""
    if isinstance(node, ast.FunctionDef) and node.name in BEFORE_THE_FIRST_CALL:
        return
    if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("nn.init."):
        return
    if isinstance(node, ast.Attribute) and node.attr in ("weight", "bias") and ast.unparse(node.value) != "self":
        yield f"line {node.lineno}: {ast.unparse(node)}"
    for child in ast.iter_child_nodes(node):
        yield from weights_read(child)


def test_the_reader_of_sources_sees_them() -> None:
    source = (
        "class A:\n  def forward(self, x):\n    return F.linear(x, self.qkv.weight, self.bias) + self.layers[0].bias"
    )
    assert list(weights_read(ast.parse(source))) == ["line 3: self.qkv.weight", "line 3: self.layers[0].bias"]


def test_a_model_is_built_of_plain_modules() -> None:
    model = PIIPModel(build(BACKBONES["three branches"], HEADS["mask_rcnn"]).config)
    assert not [module for module in model.modules() if type(module).__module__.startswith(("piip.lean", "piip.inf"))]
