import math

import pytest
import torch
import torch.nn.functional as F
from tests import tiny
from torch import Tensor

from piip.backbone.interaction import (
    ConvFFN,
    CrossAttention,
    DeformableCrossAttention,
    Injector,
    InteractionStage,
    InteractionUnit,
    cell_centres,
)
from piip.structures import BranchState

CPU = torch.device("cpu")


def state(width: int, size: tuple[int, int], batch: int = 2) -> BranchState:
    return BranchState(torch.randn(batch, size[0] * size[1], width), size)


def awake(module: torch.nn.Module) -> torch.nn.Module:
    """Every parameter away from its initial value, so that each part can be seen in the output."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.eval()


def test_gammas_begin_at_zero_so_that_nothing_changes() -> None:
    fine, coarse = state(32, (4, 6)), state(64, (3, 2))
    unit = InteractionUnit(32, 64, tiny.interaction(drop_path=0.4)).train()
    new_fine, new_coarse = unit(fine, coarse)
    assert torch.equal(new_fine.tokens, fine.tokens)
    assert torch.equal(new_coarse.tokens, coarse.tokens)
    (new_fine.tokens.square().sum() + new_coarse.tokens.square().sum()).backward()
    for injector in (unit.to_fine, unit.to_coarse):  # yet they learn from the first step on
        assert injector.ca_gamma.grad.abs().max() > 0


@pytest.mark.parametrize("fields", [{}, {"ffn_ratio": None}, {"norm": "none"}, {"attention": "cross"}])
@torch.no_grad()
def test_one_direction_by_hand(fields: dict) -> None:
    receiver, source = state(32, (4, 6)), state(64, (3, 2))
    injector = awake(Injector(32, 64, tiny.interaction(**fields)))
    plain = fields.get("norm") == "none"

    def normed(norm: torch.nn.Module, tokens: Tensor) -> Tensor:
        return tokens if plain else F.layer_norm(tokens, tokens.shape[-1:], norm.weight, norm.bias, eps=1e-6)

    x = receiver.tokens
    values = normed(injector.source_norm, injector.projection(source.tokens))
    attended = injector.attention(normed(injector.query_norm, x), receiver.size, values, source.size)
    x = x + injector.ca_gamma * attended
    if fields.get("ffn_ratio", 0.25) is not None:
        x = x + injector.cffn_gamma * injector.ffn(normed(injector.ffn_norm, x), receiver.size)
    torch.testing.assert_close(injector(receiver, source).tokens, x)


@torch.no_grad()
def test_both_directions_read_the_features_from_before() -> None:
    fine, coarse = state(32, (4, 6)), state(64, (3, 2))
    unit = awake(InteractionUnit(32, 64, tiny.interaction()))
    new_fine, new_coarse = unit(fine, coarse)
    torch.testing.assert_close(new_fine.tokens, unit.to_fine(fine, coarse).tokens)
    torch.testing.assert_close(new_coarse.tokens, unit.to_coarse(coarse, fine).tokens)
    assert (new_fine.size, new_coarse.size) == (fine.size, coarse.size)


@torch.no_grad()
def test_the_finest_pair_comes_first_and_later_pairs_see_it() -> None:
    states = [state(32, (5, 4)), state(64, (3, 3)), state(96, (2, 2))]
    stage = awake(InteractionStage([32, 64, 96], tiny.interaction()))
    finest, middle = stage.units[0](states[0], states[1])
    middle, coarsest = stage.units[1](middle, states[2])
    for actual, expected in zip(stage(states), (finest, middle, coarsest), strict=True):
        torch.testing.assert_close(actual.tokens, expected.tokens)


@torch.no_grad()
def test_class_tokens_stay_as_they_are() -> None:
    fine = state(32, (4, 4))._replace(prefix=torch.randn(2, 1, 32))
    unit = awake(InteractionUnit(32, 64, tiny.interaction()))
    new_fine, new_coarse = unit(fine, state(64, (2, 2)))
    assert torch.equal(new_fine.prefix, fine.prefix)
    assert new_coarse.prefix is None


def test_deformable_initialisation() -> None:
    attention = DeformableCrossAttention(32, 32, tiny.interaction(heads=8, points=3))
    assert not attention.sampling_offsets.weight.any()
    assert not attention.attention_weights.weight.any()
    assert not attention.attention_weights.bias.any()
    ring = attention.sampling_offsets.bias.detach().reshape(8, 3, 2)
    directions = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    expected = torch.tensor(directions).float()[:, None] * torch.tensor([1.0, 2, 3])[:, None]
    torch.testing.assert_close(ring, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_offsets_are_source_cells_and_x_comes_first() -> None:
    """An offset of one cell to the right on equal grids reads the right neighbour, and zeros beyond the edge."""
    attention = DeformableCrossAttention(8, 8, tiny.interaction(heads=2, points=1, value_ratio=1.0))
    for linear in (attention.value, attention.output):
        linear.weight.copy_(torch.eye(8))
        linear.bias.zero_()
    attention.sampling_offsets.bias.copy_(torch.tensor([1.0, 0.0, 0.0, -2.0]))  # head 0: right, head 1: two up
    source = torch.randn(1, 20, 8)
    out = attention(torch.randn(1, 20, 8), (4, 5), source, (4, 5)).reshape(4, 5, 8)
    grid = source.reshape(4, 5, 8)
    expected = torch.zeros(4, 5, 8)
    expected[:, :-1, :4] = grid[:, 1:, :4]
    expected[2:, :, 4:] = grid[:-2, :, 4:]
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("size", "source_size"), [((4, 4), (2, 2)), ((3, 5), (7, 4)), ((1, 1), (3, 3))])
@torch.no_grad()
def test_queries_sample_around_their_own_place(size: tuple[int, int], source_size: tuple[int, int]) -> None:
    attention = DeformableCrossAttention(8, 8, tiny.interaction(heads=2, points=4, value_ratio=1.0))
    for linear in (attention.value, attention.output):
        linear.weight.copy_(torch.eye(8))
        linear.bias.zero_()
    attention.sampling_offsets.bias.zero_()
    image = torch.randn(1, 8, *source_size)
    out = attention(torch.randn(1, size[0] * size[1], 8), size, image.flatten(2).transpose(1, 2), source_size)
    y = (torch.arange(size[0]) + 0.5) / size[0] * 2 - 1
    x = (torch.arange(size[1]) + 0.5) / size[1] * 2 - 1
    grid = torch.stack((x.expand(size[0], -1), y[:, None].expand(-1, size[1])), dim=-1)[None]
    expected = F.grid_sample(image, grid, align_corners=False)
    torch.testing.assert_close(out, expected.flatten(2).transpose(1, 2), atol=1e-5, rtol=0)


@torch.no_grad()
def test_attention_weights_sum_to_one_per_head() -> None:
    attention = awake(DeformableCrossAttention(32, 16, tiny.interaction()))
    torch.nn.init.zeros_(attention.sampling_offsets.weight)
    torch.nn.init.zeros_(attention.sampling_offsets.bias)  # all points at the same place
    query, source = torch.randn(2, 12, 32), torch.randn(2, 12, 16)
    torch.testing.assert_close(
        attention(query, (3, 4), source, (3, 4)), attention.output(attention.value(source)), atol=1e-5, rtol=1e-4
    )


@torch.no_grad()
def test_cross_attention_by_hand() -> None:
    attention = awake(CrossAttention(32, 24, tiny.interaction(attention="cross")))
    query, source = torch.randn(2, 6, 32), torch.randn(2, 10, 24)
    q, k, v = attention.query(query), attention.key(source), attention.value(source)
    mixed = []
    for head in range(4):
        part = slice(head * 8, head * 8 + 8)
        share = (q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(8)).softmax(-1)
        mixed.append(share @ v[..., part])
    expected = attention.output(torch.cat(mixed, dim=-1))
    torch.testing.assert_close(attention(query, (2, 3), source, (2, 5)), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_ffn_convolves_over_the_token_grid() -> None:
    ffn = ConvFFN(8, 4)
    ffn.fc1.weight.copy_(torch.eye(8)[:4])
    ffn.fc2.weight.copy_(torch.eye(8)[:, :4])
    for bias in (ffn.fc1.bias, ffn.fc2.bias, ffn.depthwise.bias):
        bias.zero_()
    ffn.depthwise.weight.zero_()
    ffn.depthwise.weight[:, 0, 0, 2] = 1  # each cell reads its neighbour above right
    tokens = torch.randn(1, 15, 8)
    out = ffn(tokens, (3, 5)).reshape(3, 5, 8)
    grid = tokens.reshape(3, 5, 8)
    expected = torch.zeros(3, 5, 8)
    expected[1:, :-1, :4] = F.gelu(grid[:-1, 1:, :4])
    torch.testing.assert_close(out, expected)


@torch.no_grad()
def test_widths_of_the_parts() -> None:
    injector = Injector(64, 32, tiny.interaction(value_ratio=0.5, ffn_ratio=0.25, heads=16))
    assert (injector.projection.in_features, injector.projection.out_features) == (32, 64)
    assert (injector.attention.value.in_features, injector.attention.value.out_features) == (64, 32)
    assert injector.ffn.fc1.out_features == 16
    direct = Injector(64, 32, tiny.interaction(projection=False))
    assert isinstance(direct.projection, torch.nn.Identity)
    assert (direct.attention.value.in_features, direct.attention.value.out_features) == (32, 32)
    assert direct.source_norm.normalized_shape == (32,)


def test_stochastic_depth_drops_the_ffn_only() -> None:
    receiver, source = state(32, (3, 3), batch=1), state(64, (2, 2), batch=1)
    injector = awake(Injector(32, 64, tiny.interaction(drop_path=0.5)))
    expected = injector(receiver, source).tokens
    query, values = injector.query_norm(receiver.tokens), injector.source_norm(injector.projection(source.tokens))
    attended = receiver.tokens + injector.ca_gamma * injector.attention(query, receiver.size, values, source.size)
    injector.train()
    outputs = [injector(receiver, source).tokens for _ in range(20)]
    kept = attended + (expected - attended) / 0.5
    dropped = [torch.allclose(out, attended, atol=1e-4) for out in outputs]
    assert 0 < sum(dropped) < 20
    assert all(drop or torch.allclose(out, kept, atol=1e-4) for drop, out in zip(dropped, outputs, strict=True))


def test_cell_centres() -> None:
    centres = cell_centres((2, 4), CPU)
    expected = [[x, y] for y in (0.25, 0.75) for x in (0.125, 0.375, 0.625, 0.875)]
    assert centres.tolist() == expected
    assert cell_centres((2, 4), CPU).dtype == torch.float32


def test_centres_first_made_in_inference_can_be_trained_with() -> None:
    attention = awake(DeformableCrossAttention(32, 32, tiny.interaction()))
    arguments = torch.randn(1, 77, 32), (7, 11), torch.randn(1, 77, 32), (7, 11)
    with torch.inference_mode():
        attention(*arguments)
    attention(*arguments).sum().backward()
    assert attention.sampling_offsets.weight.grad.abs().max() > 0


def test_centres_first_made_by_a_tracer_are_not_kept() -> None:
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    with FakeTensorMode():
        cell_centres((13, 17), CPU)
    assert not isinstance(cell_centres((13, 17), CPU), FakeTensor)
