"""Windows without padded queries, with autograd and in place, against the plain blocks, which pad them."""

import copy
from typing import Any

import pytest
import torch
from tests import tiny
from timm.layers.attention import Attention
from torch import Tensor, nn

from piip.backbone.beit import BEiTBranch
from piip.backbone.intern_vit import InternViTBranch
from piip.backbone.vit import ViTBranch
from piip.inference import choose
from piip.inference.cpu.blocks import BlocksInPlace
from piip.inference.folding.branches import fold_branch
from piip.lean.blocks import LeanBlocks
from piip.structures import BranchState

FAMILIES = {"vit": ViTBranch, "beit": BEiTBranch, "intern_vit": InternViTBranch}
SIZES = [(1, 1), (1, 5), (3, 3), (4, 6), (5, 4), (7, 8), (9, 2)]


def build(family: str, window: int, **fields: Any) -> ViTBranch:
    positions = {"position_grid": None} if family == "beit" else {}
    given = {"family": family, "size": 160, "windows": window, "layer_scale": 0.5, **positions, **fields}
    branch = FAMILIES[family](tiny.branch(**given))
    for parameter in branch.parameters():  # large enough that every part can be seen in the output
        nn.init.normal_(parameter, std=0.5 if parameter.ndim == 1 else 0.2)
    return branch.eval()


def lean(branch: ViTBranch) -> ViTBranch:
    """A copy as it is trained."""
    made = copy.deepcopy(branch)
    choose(made, "train")
    assert type(made.vit.blocks) is LeanBlocks
    return made


def in_place(branch: ViTBranch) -> ViTBranch:
    """A copy as it predicts on a CPU."""
    made = copy.deepcopy(branch)
    fold_branch(made)
    choose(made, "predict")
    assert type(made.vit.blocks) is BlocksInPlace
    return made


def results(branch: ViTBranch, tokens: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """The tokens after two blocks and the gradients of everything in them."""
    branch.zero_grad()
    leaf = tokens.clone().requires_grad_()
    after = branch(BranchState(leaf, size), 0, 1).tokens
    (after * torch.linspace(-1, 1, after.numel()).reshape(after.shape)).sum().backward()
    return [after.detach(), leaf.grad, *(p.grad for p in branch.vit.blocks[:2].parameters())]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [1, 2, 3, 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_windows_equal_padded_ones_in_forward_and_backward(family: str, window: int, size: tuple[int, int]) -> None:
    branch = build(family, window)
    tokens = torch.randn(2, size[0] * size[1], branch.config.width)
    expected = results(branch, tokens, size)
    for one, other in zip(results(lean(branch), tokens, size), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * max(1.0, other.abs().max().item()), rtol=1e-4)
    before = tokens.clone()
    with torch.no_grad():
        after = in_place(branch)(BranchState(tokens, size), 0, 1).tokens
    torch.testing.assert_close(after, expected[0], atol=1e-5, rtol=1e-4)
    assert torch.equal(tokens, before)


@pytest.mark.parametrize("size", [(27, 29), (14, 14), (28, 15)])
@torch.no_grad()
def test_windows_of_the_released_models(size: tuple[int, int]) -> None:
    branch = build("vit", 14, size=448)
    tokens = torch.randn(1, size[0] * size[1], branch.config.width)
    expected = branch(BranchState(tokens, size), 0, 3).tokens
    assert not torch.equal(tokens, expected)
    for twin in (lean(branch), in_place(branch)):
        torch.testing.assert_close(twin(BranchState(tokens, size), 0, 3).tokens, expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_blocks_of_different_windows_follow_each_other() -> None:
    branch = build("vit", 2, windows=(2, 3, None, 2))
    tokens = torch.randn(2, 35, branch.config.width)
    expected = branch(BranchState(tokens, (5, 7)), 0, 3).tokens
    for twin in (lean(branch), in_place(branch)):
        torch.testing.assert_close(twin(BranchState(tokens, (5, 7)), 0, 3).tokens, expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_stochastic_depth_without_gradients_drops_whole_images() -> None:
    branch = lean(build("vit", 2, drop_path=0.5)).train()
    tokens = torch.randn(64, 4, branch.config.width)
    after = branch(BranchState(tokens, (2, 2)), 0, 0).tokens
    untouched = (after == tokens).flatten(1).all(1)
    assert 0 < untouched.sum() < len(tokens)  # both parts of a block dropped: in about a quarter of the images


@torch.no_grad()
def test_norms_of_queries_and_keys_are_in_the_padding_too() -> None:
    branch = build("vit", 3)
    for block in branch.vit.blocks:
        block.attn = Attention(32, 2, qkv_bias=True, qk_norm=True, scale_norm=True, norm_layer=nn.LayerNorm).eval()
        for parameter in block.attn.parameters():
            nn.init.normal_(parameter, std=0.5)
    tokens = torch.randn(1, 20, 32)
    expected = branch(BranchState(tokens, (4, 5)), 0, 3).tokens
    for twin in (lean(branch), in_place(branch)):
        torch.testing.assert_close(twin(BranchState(tokens, (4, 5)), 0, 3).tokens, expected, atol=1e-4, rtol=1e-4)
