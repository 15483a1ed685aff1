"""Whole backbones: what the CPU trains and predicts with against the plain modules; one place that chooses."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tests import tiny
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from piip import config, zoo
from piip.backbone import PIIPBackbone
from piip.inference import Mode, choose
from piip.inference.folding.backbone import fold_backbone
from piip.lean.maps import LeanUpsample
from piip.lean.situation import in_pieces


def build(backbone: config.Backbone) -> PIIPBackbone:
    torch.manual_seed(0)
    module = PIIPBackbone(backbone)
    for name, parameter in module.named_parameters():
        if parameter.ndim <= 1 and "sampling_offsets" not in name:
            torch.nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.2)
    return module.eval()


def trained(module: PIIPBackbone) -> PIIPBackbone:
    """A copy with what training on a CPU runs."""
    twin = copy.deepcopy(module)
    choose(twin, "train")
    return twin


@torch.no_grad()
def predicting(module: PIIPBackbone) -> PIIPBackbone:
    """A copy with what predictions on a CPU run."""
    twin = copy.deepcopy(module)
    fold_backbone(twin)
    choose(twin, "predict")
    return twin


BACKBONES = {
    "three branches": tiny.backbone(3),
    "one branch": tiny.backbone(1),
    "layernorm": tiny.backbone(2, maps=config.FeatureMaps(norm="layernorm")),
    "no interaction norm": tiny.backbone(2, norm="none", projection=False, ffn_ratio=None),
    "cross attention": tiny.backbone(2, attention="cross"),
}


@pytest.mark.parametrize("size", [(128, 128), (112, 150)])
@pytest.mark.parametrize("name", BACKBONES)
def test_maps_equal_the_plain_ones(name: str, size: tuple[int, int]) -> None:
    module, images = build(BACKBONES[name]), torch.randn(2, 3, *size)
    before = images.clone()
    with torch.no_grad():
        expected, fast = module(images), predicting(module)(images)
    with_autograd = trained(module)(images)
    assert torch.equal(images, before)
    for one, other, twin in zip(fast, with_autograd, expected, strict=True):
        scale = twin.std().item()
        torch.testing.assert_close(one, twin, atol=1e-4 * scale, rtol=0)
        torch.testing.assert_close(other, twin, atol=1e-4 * scale, rtol=0)


def gradients(module: PIIPBackbone, images: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    sum(level.square().mean() for level in module(images)).backward()
    return {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("name", BACKBONES)
def test_gradients_equal_the_plain_ones(name: str) -> None:
    module, images = build(BACKBONES[name]), torch.randn(2, 3, 112, 150)
    expected, fast = gradients(module, images), gradients(trained(module), images)
    assert fast.keys() == expected.keys()
    largest = max(twin.abs().max().item() for twin in expected.values())
    for key, twin in expected.items():
        scale = max(twin.abs().max().item(), 1e-3 * largest)  # before a norm of one channel a bias has none
        torch.testing.assert_close(
            fast[key], twin, atol=1e-3 * scale, rtol=0, msg=lambda text, key=key: f"{key}: {text}"
        )


@pytest.mark.parametrize("mode", ["train", "export"])
def test_checkpointing_recomputes_blocks_and_exchanges_and_changes_no_gradient(mode: Mode) -> None:
    module, images = build(tiny.backbone(3)).train(), torch.randn(2, 3, 112, 150)
    choose(module, mode)
    calls: list[str] = []
    for name in ("branches.0.vit.blocks.1.norm1", "interactions.0.units.1.to_fine"):
        module.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    expected = gradients(module, images)
    assert len(calls) == 2
    module.set_checkpointing(True)
    found = gradients(module, images)
    assert len(calls) == 2 + 4
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, msg=lambda text, key=key: f"{key}: {text}")
    module.set_checkpointing(False)
    gradients(module, images)
    assert len(calls) == 2 + 4 + 2


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (40, 33)])
@pytest.mark.parametrize(("channels", "out"), [(7, 7), (32, 12)])
def test_upsampling_is_a_transposed_convolution(size: tuple[int, int], channels: int, out: int) -> None:
    module, x = LeanUpsample(channels, out), torch.randn(2, channels, *size)
    towards = torch.randn(2, out, 2 * size[0], 2 * size[1])
    leaves = []
    for path in (module, lambda x: F.conv_transpose2d(x, module.weight, module.bias, stride=2)):
        module.zero_grad()
        leaf = x.clone().requires_grad_()
        result = path(leaf)
        (result * towards).sum().backward()
        leaves.append((result.detach(), leaf.grad, module.weight.grad.clone(), module.bias.grad.clone()))
    for one, other in zip(*leaves, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(module(x), leaves[1][0], atol=1e-5, rtol=1e-4)


def test_pieces_are_for_a_cpu_without_autograd() -> None:
    x = torch.zeros(1)
    assert not in_pieces(x)
    with torch.no_grad():
        assert in_pieces(x)
        assert not in_pieces(x, torch.zeros(1, device="meta"))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not in_pieces(x)
    with torch.inference_mode():
        assert in_pieces(x)


def test_windows_of_28_cells_cost_less_without_their_padding() -> None:
    name = "piip_sbl_1568_1120_672_mask_rcnn"
    with torch.device("meta"):
        module, images = PIIPBackbone(zoo.entry(name).backbone()).eval(), torch.empty(1, 3, 1568, 1568)

    def multiply_adds(module: PIIPBackbone) -> int:
        """Of branches and interactions."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module.states(images)
        return counter.get_total_flops() // 2

    assert multiply_adds(trained(module)) < 0.85 * multiply_adds(module)
