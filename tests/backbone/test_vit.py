import math

import pytest
import torch
import torch.nn.functional as F
from tests import tiny
from timm.layers import DropPath
from torch import Tensor

from piip.backbone.vit import ViTBranch, plain_vit
from piip.structures import BranchState


def build(**fields) -> ViTBranch:
    branch = ViTBranch(tiny.branch(**fields))
    for parameter in branch.parameters():  # large enough that every part of a block can be seen in its output
        torch.nn.init.normal_(parameter, std=0.5 if parameter.ndim == 1 else 0.2)
    return branch.eval()


def state(branch: ViTBranch, size: tuple[int, int], batch: int = 2) -> BranchState:
    return BranchState(torch.randn(batch, size[0] * size[1], branch.config.width), size)


def block_by_hand(branch: ViTBranch, index: int, tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """A pre-norm block in which a query sees the cells of its window, zeros before the projection beyond the grid."""
    block, window = branch.vit.blocks[index], branch.config.windows[index]
    heads, width = branch.config.heads, branch.config.width
    normed = block.norm1(tokens).reshape(-1, *size, width)
    rows, columns = size
    side = window or max(size)
    padded = torch.zeros(len(tokens), math.ceil(rows / side) * side, math.ceil(columns / side) * side, width)
    if window is None:
        padded = torch.zeros(len(tokens), rows, columns, width)
    padded[:, :rows, :columns] = normed
    out = torch.zeros_like(normed)
    step = (side, side) if window else size
    for top in range(0, padded.shape[1], step[0]):
        for left in range(0, padded.shape[2], step[1]):
            seen = padded[:, top : top + step[0], left : left + step[1]].flatten(1, 2)
            q, k, v = block.attn.qkv(seen).chunk(3, dim=-1)
            mixed = []
            for head in range(heads):
                part = slice(head * width // heads, (head + 1) * width // heads)
                share = (q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(width // heads)).softmax(-1)
                mixed.append(share @ v[..., part])
            window_out = block.attn.proj(torch.cat(mixed, dim=-1)).unflatten(1, (step[0], -1))
            here = out[:, top : top + step[0], left : left + step[1]]
            here.copy_(window_out[:, : here.shape[1], : here.shape[2]])
    tokens = tokens + block.ls1(out.flatten(1, 2))
    return tokens + block.ls2(block.mlp(block.norm2(tokens)))


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (1, 3), (8, 2)])
@pytest.mark.parametrize("windows", [None, 1, 2, 3, 8])
@torch.no_grad()
def test_blocks_and_the_padding_of_windows(size: tuple[int, int], windows: int | None) -> None:
    branch = build(windows=windows)
    before = state(branch, size)
    after = branch(before, 1, 1)
    torch.testing.assert_close(after.tokens, block_by_hand(branch, 1, before.tokens, size), atol=1e-5, rtol=1e-4)
    assert after.size == size


@torch.no_grad()
def test_a_window_that_covers_the_grid_exactly_is_global_attention() -> None:
    windowed, everywhere = build(windows=4), build(windows=None)
    everywhere.load_state_dict(windowed.state_dict())
    before = state(windowed, (4, 4))
    expected = everywhere(before, 0, 3).tokens
    torch.testing.assert_close(windowed(before, 0, 3).tokens, expected, atol=1e-5, rtol=1e-4)
    smaller = state(windowed, (3, 4))  # here padding takes part
    difference = windowed(smaller, 0, 3).tokens - everywhere(smaller, 0, 3).tokens
    assert difference.abs().max() > 0.1


@torch.no_grad()
def test_equals_timms_own_forward() -> None:
    branch = build(windows=None, position_grid=4)
    images, timms = torch.randn(2, 3, 64, 64), plain_vit(branch.config).eval()
    timms.load_state_dict(branch.vit.state_dict())
    torch.testing.assert_close(branch(branch.embed(images), 0, 3).tokens, timms.forward_features(images))


@torch.no_grad()
def test_groups_of_blocks_compose() -> None:
    branch = build()
    before = state(branch, (3, 5))
    at_once = branch(before, 0, 3)
    torch.testing.assert_close(branch(branch(before, 0, 0), 1, 3).tokens, at_once.tokens)


@torch.no_grad()
def test_leftover_pixels_are_dropped() -> None:
    branch = build()
    images = torch.randn(1, 3, 50, 47)
    embedded = branch.embed(images)
    assert embedded.size == (3, 2)
    torch.testing.assert_close(embedded.tokens, branch.embed(images[:, :, :48, :32]).tokens)


@torch.no_grad()
def test_cells_are_in_reading_order() -> None:
    branch = build()
    images = torch.randn(1, 3, 48, 64)
    patch = F.conv2d(images[:, :, 16:32, 48:64], branch.vit.patch_embed.proj.weight, branch.vit.patch_embed.proj.bias)
    branch.vit.pos_embed.zero_()
    torch.testing.assert_close(branch.embed(images).tokens[0, 1 * 4 + 3], patch.flatten(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("prefix", [0, 1])
@torch.no_grad()
def test_positions_at_the_stored_grid_are_the_stored_ones(prefix: int) -> None:
    branch = build(position_grid=3, position_prefix=prefix)
    assert branch.vit.pos_embed.shape == (1, prefix + 9, 32)
    assert torch.equal(branch.positions((3, 3)), branch.vit.pos_embed[:, prefix:])


@pytest.mark.parametrize("size", [(5, 3), (2, 7), (14, 9)])
@torch.no_grad()
def test_positions_are_resized_bicubically_in_float32(size: tuple[int, int]) -> None:
    branch = build(position_grid=6, position_prefix=1)
    stored = branch.vit.pos_embed[0, 1:].T.reshape(1, 32, 6, 6)
    expected = F.interpolate(stored, size=size, mode="bicubic", align_corners=False, antialias=False)
    torch.testing.assert_close(branch.positions(size)[0], expected[0].flatten(1).T)
    half = branch.positions(size)
    exact = build(position_grid=6, position_prefix=1)
    exact.load_state_dict({key: tensor.bfloat16().float() for key, tensor in branch.state_dict().items()})
    torch.testing.assert_close(branch.bfloat16().positions(size).float(), exact.positions(size), atol=1e-2, rtol=1e-2)
    assert half.shape == (1, size[0] * size[1], 32)


@torch.no_grad()
def test_positions_run_along_rows_and_columns() -> None:
    branch = build(position_grid=6)
    rows = torch.arange(6.0).repeat_interleave(6)
    columns = torch.arange(6.0).repeat(6)
    branch.vit.pos_embed[0, :, 0], branch.vit.pos_embed[0, :, 1] = rows, columns
    resized = branch.positions((4, 9))[0, :, :2].reshape(4, 9, 2)
    torch.testing.assert_close(resized[:, :1, 0].expand(4, 9), resized[:, :, 0])
    torch.testing.assert_close(resized[:1, :, 1].expand(4, 9), resized[:, :, 1])
    assert (resized[:, 0, 0].diff() > 0).all()
    assert (resized[0, :, 1].diff() > 0).all()


def test_an_image_without_a_single_patch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(40, 15\) pixels has no token grid.*at least 16 x 16 pixels"):
        build().embed(torch.randn(1, 3, 40, 15))


@pytest.mark.parametrize(("schedule", "expected"), [("constant", [0.3, 0.3, 0.3, 0.3]), ("linear", [0, 0.1, 0.2, 0.3])])
def test_stochastic_depth_per_block(schedule: str, expected: list[float]) -> None:
    branch = build(drop_path=0.3, drop_path_schedule=schedule)
    for block, rate in zip(branch.vit.blocks, expected, strict=True):
        for layer in (block.drop_path1, block.drop_path2):
            assert (layer.drop_prob if isinstance(layer, DropPath) else 0) == pytest.approx(rate)


def test_stochastic_depth_acts_in_training_only() -> None:
    branch = build(drop_path=0.9)
    before = state(branch, (3, 3))
    expected = branch(before, 0, 3).tokens
    assert torch.equal(branch(before, 0, 3).tokens, expected)
    assert not torch.equal(branch.train()(before, 0, 3).tokens, expected)


def test_recomputing_blocks_changes_no_gradient() -> None:
    plain, saving = build(), build(checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    before = state(plain, (3, 5))
    for branch in (plain, saving):
        branch.train()(before, 0, 3).tokens.square().sum().backward()
    for one, other in zip(plain.vit.blocks.parameters(), saving.vit.blocks.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize(
    "fields", [{"layer_scale": None}, {"qkv_bias": False}, {"activation": "gelu_tanh"}, {"patch": 8}]
)
@torch.no_grad()
def test_variants(fields: dict) -> None:
    branch = build(**fields)
    embedded = branch.embed(torch.randn(1, 3, 33, 50))
    after = branch(embedded, 0, 3)
    assert after.tokens.shape == (1, after.size[0] * after.size[1], 32)
    assert after.tokens.isfinite().all()
    block = branch.vit.blocks[0]
    assert isinstance(block.ls1, torch.nn.Identity) == (branch.config.layer_scale is None)
    assert (block.attn.qkv.bias is None) == (not branch.config.qkv_bias)
    hidden = torch.linspace(-2, 2, 9)
    approximate = "tanh" if branch.config.activation == "gelu_tanh" else "none"
    torch.testing.assert_close(block.mlp.act(hidden), F.gelu(hidden, approximate=approximate))


@torch.no_grad()
def test_a_timm_model_by_name_gives_timms_features() -> None:
    import timm

    from piip import config

    branch = ViTBranch(
        config.Branch(size=224, model="vit_tiny_patch16_224", groups=2, windows=None, prefix_tokens=1)
    ).eval()
    usual = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    missing = usual.load_state_dict(branch.vit.state_dict(), strict=False)
    assert set(missing.missing_keys) == {"norm.weight", "norm.bias"}
    assert not missing.unexpected_keys
    usual.norm = torch.nn.Identity()
    images = torch.randn(1, 3, 224, 224)
    after = branch(branch.embed(images), 0, 11)
    expected = usual.forward_features(images)
    torch.testing.assert_close(after.tokens, expected[:, 1:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after.prefix, expected[:, :1], atol=1e-4, rtol=1e-4)
