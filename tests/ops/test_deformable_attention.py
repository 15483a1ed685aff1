"""All paths of deformable attention against each other and against a definition in plain Python."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from piip.lean import sampling as module
from piip.lean.sampling import RowSampling, sample_rows
from piip.ops.deformable_attention import DeformableSampling, deformable_attention

PATHS = [deformable_attention, sample_rows, DeformableSampling(), RowSampling()]
Inputs = tuple[Tensor, list[tuple[int, int]], Tensor, Tensor]


def random_inputs(
    sizes: list[tuple[int, int]],
    batch: int = 1,
    queries: int = 7,
    heads: int = 2,
    points: int = 4,
    channels: int = 5,
    spread: float = 1.6,
    dtype: torch.dtype = torch.float32,
) -> Inputs:
    """Values in -1..1; positions around the grid, about a third of them outside it."""
    tokens = sum(height * width for height, width in sizes)
    value = torch.rand(batch, tokens, heads, channels, dtype=dtype) * 2 - 1
    positions = 0.5 + (torch.rand(batch, queries, heads, len(sizes), points, 2, dtype=dtype) - 0.5) * spread
    weights = torch.randn(batch, queries, heads, len(sizes) * points, dtype=dtype).softmax(-1)
    return value, sizes, positions, weights.unflatten(-1, (len(sizes), points))


def by_hand(value: Tensor, sizes: list[tuple[int, int]], points: Tensor, weights: Tensor) -> Tensor:
    """The definition, one number at a time."""
    batch, _, heads, channels = value.shape
    out = torch.zeros(batch, points.shape[1], heads, channels, dtype=torch.float64)
    ranges = [range(length) for length in weights.shape]
    for image, query, head, level, point in itertools.product(*ranges):
        height, width = sizes[level]
        start = sum(h * w for h, w in sizes[:level])
        x = points[image, query, head, level, point, 0].item() * width - 0.5
        y = points[image, query, head, level, point, 1].item() * height - 0.5
        for row, column in itertools.product(range(height), range(width)):
            share = max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row))
            cell = value[image, start + row * width + column, head].double()
            out[image, query, head] += weights[image, query, head, level, point].item() * share * cell
    return out.flatten(2)


def gradients(path, inputs: Inputs, towards: Tensor) -> list[Tensor]:
    value, sizes, points, weights = inputs
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (value, points, weights)]
    (path(leaves[0], sizes, leaves[1], leaves[2]) * towards).sum().backward()
    return [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("path", PATHS)
def test_definition(path) -> None:
    inputs = random_inputs([(3, 4), (2, 2), (1, 5)], batch=2, queries=3, points=2, channels=3)
    torch.testing.assert_close(path(*inputs).double(), by_hand(*inputs), atol=1e-5, rtol=0)


@pytest.mark.parametrize("path", PATHS)
def test_centre_of_a_cell_reads_that_cell(path) -> None:
    value = torch.arange(12.0).reshape(1, 12, 1, 1)
    centres = torch.tensor([[(column + 0.5) / 4, (row + 0.5) / 3] for row in range(3) for column in range(4)])
    out = path(value, [(3, 4)], centres.reshape(1, 12, 1, 1, 1, 2), torch.ones(1, 12, 1, 1, 1))
    torch.testing.assert_close(out.flatten(), torch.arange(12.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 6, 7, 8, 9, 12, 16, 17, 24, 31, 32, 33, 40])
def test_rows_equal_the_reference_at_any_width(channels: int) -> None:
    inputs = random_inputs([(9, 7)], batch=2, queries=20, heads=3, channels=channels)
    expected = deformable_attention(*inputs)
    assert (sample_rows(*inputs) - expected).abs().max() <= 1e-5
    towards = torch.randn_like(expected)
    for actual, wanted in zip(
        gradients(sample_rows, inputs, towards),
        gradients(deformable_attention, inputs, towards),
        strict=True,
    ):
        torch.testing.assert_close(actual, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "sizes",
    [
        [(1, 1)],
        [(1, 9)],
        [(9, 1)],
        [(2, 3)],
        [(5, 7), (3, 4), (1, 1), (2, 1)],
        [(1, 1), (1, 1)],
        [(33, 21), (17, 11), (9, 6)],
        [(70, 98)],
    ],
)
@pytest.mark.parametrize(("batch", "queries", "heads", "points"), [(1, 1, 1, 1), (3, 13, 4, 3)])
def test_rows_equal_the_reference_on_any_grid(sizes, batch, queries, heads, points) -> None:
    inputs = random_inputs(sizes, batch, queries, heads, points)
    expected = deformable_attention(*inputs)
    assert expected.shape == (batch, queries, heads * 5)
    assert (sample_rows(*inputs) - expected).abs().max() <= 1e-5
    inputs = tuple(item.double() if isinstance(item, Tensor) else item for item in inputs)
    towards = torch.randn_like(expected, dtype=torch.float64)
    for actual, wanted in zip(
        gradients(sample_rows, inputs, towards),
        gradients(deformable_attention, inputs, towards),
        strict=True,
    ):
        torch.testing.assert_close(actual, wanted, atol=1e-9, rtol=1e-9)


def test_points_on_and_beyond_the_borders() -> None:
    height, width = 3, 5
    # In cells: exactly on the border, half a cell (the last with a value) and one cell outside, far outside.
    xs = [-1e6, -3.0, -1.0, -0.5, 0.0, 0.5, width - 0.5, width, width + 0.5, width + 1, 1e6]
    ys = [-1e6, -2.0, -1.0, -0.5, 0.0, 0.5, height - 0.5, height, height + 0.5, height + 1, 1e6]
    places = torch.tensor([[x / width, y / height] for x in xs for y in ys])
    value = torch.rand(1, height * width, 1, 3) + 1
    points = places.reshape(1, -1, 1, 1, 1, 2)
    weights = torch.ones(points.shape[:-1])
    expected = by_hand(value, [(height, width)], points, weights)
    for path in PATHS:
        torch.testing.assert_close(
            path(value, [(height, width)], points, weights).double(), expected, atol=1e-5, rtol=0
        )
    outside = (places[:, 0] * width <= -0.5) | (places[:, 0] * width >= width + 0.5)
    assert outside.sum() >= 6 * len(ys)
    assert (sample_rows(value, [(height, width)], points, weights)[0, outside].abs() < 1e-5).all()


@pytest.mark.parametrize("path", PATHS)
def test_gradcheck(path) -> None:
    value, sizes, points, weights = random_inputs([(3, 4), (1, 2)], batch=2, queries=3, dtype=torch.float64)
    cells = points * torch.tensor([[width, height] for height, width in sizes]).view(1, 1, 1, 2, 1, 2) + 0.5
    near_kink = (cells - cells.round()).abs() < 0.01  # bilinear sampling has no derivative there
    points = (points + near_kink * 0.02).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v, p, w: path(v, sizes, p, w), (value.requires_grad_(), points, weights.requires_grad_())
    )


@pytest.mark.parametrize("needs", list(itertools.product([False, True], repeat=3)))
def test_rows_give_only_the_gradients_that_are_asked_for(needs) -> None:
    value, sizes, points, weights = random_inputs([(4, 4)])
    leaves = [tensor.requires_grad_(need) for tensor, need in zip((value, points, weights), needs, strict=True)]
    out = sample_rows(leaves[0], sizes, leaves[1], leaves[2])
    assert out.requires_grad == any(needs)
    if any(needs):
        out.sum().backward()
    assert tuple(leaf.grad is not None for leaf in leaves) == needs


def test_the_backward_of_rows_in_pieces_equals_one_piece(monkeypatch) -> None:
    inputs = random_inputs([(6, 5)], batch=2, queries=11, heads=3)
    towards = torch.randn(2, 11, 15)
    expected = gradients(sample_rows, inputs, towards)
    monkeypatch.setattr(module, "BAGS", 8)
    for actual, wanted in zip(gradients(sample_rows, inputs, towards), expected, strict=True):
        torch.testing.assert_close(actual, wanted)


def test_rows_are_chosen_where_they_are_faster(monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(module, "sample_rows", lambda *_: calls.append("rows"))
    monkeypatch.setattr(DeformableSampling, "forward", lambda *_: calls.append("reference"))
    small, large = random_inputs([(4, 4)]), random_inputs([(70, 70)], queries=1000, heads=8, channels=6)
    many = random_inputs([(4, 4)], queries=1000, heads=8)
    meta = tuple(item.to("meta") if isinstance(item, Tensor) else item for item in large)
    for inputs in (small, many, large, meta):
        RowSampling()(*inputs)
    assert calls == ["reference", "rows", "rows", "reference"]
    calls.clear()
    for inputs in (small, many, large, meta):
        inputs[2].requires_grad_()
        RowSampling()(*inputs)
    with torch.no_grad():
        RowSampling()(*many)
    assert calls == ["reference", "reference", "rows", "reference", "rows"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_dtype_and_fp32_positions(path, dtype: torch.dtype) -> None:
    # Neighbouring cells differ by 2: a position cast down, 0.25 cells off at 120 cells in bfloat16, is off by 0.5.
    sizes = [(4, 120)]
    value = torch.tensor([-1.0, 1.0]).repeat(240).reshape(1, 480, 1, 1)
    points = random_inputs(sizes, queries=200, heads=1, spread=0.7)[2]
    weights = torch.full((1, 200, 1, 1, 4), 0.25)
    expected = path(value, sizes, points, weights)
    actual = path(value.to(dtype), sizes, points, weights)
    assert actual.dtype == dtype
    assert (actual.float() - expected).abs().max() < 5e-3
    assert (path(value, sizes, points.bfloat16(), weights) - expected).abs().max() > 0.1  # the test can tell


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_in_forward_and_backward(path, dtype: torch.dtype) -> None:
    value, sizes, points, weights = random_inputs([(7, 9), (3, 5)], batch=2, queries=11)
    half = (value.to(dtype), sizes, points, weights.to(dtype))
    exact = (half[0].float(), sizes, points, half[3].float())
    expected = path(*exact)
    assert path(*half).dtype == dtype
    torch.testing.assert_close(path(*half).float(), expected, atol=1e-2, rtol=1e-2)
    towards = torch.randn_like(expected).to(dtype).float()
    for actual, wanted, tensor in zip(
        gradients(path, half, towards), gradients(path, exact, towards), (half[0], points, half[3]), strict=True
    ):
        assert actual.dtype == tensor.dtype
        torch.testing.assert_close(actual.float(), wanted, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("path", PATHS)
def test_autocast_changes_no_number(path) -> None:
    inputs = random_inputs([(7, 9)], batch=2, queries=11)
    expected = path(*inputs)
    towards = torch.randn_like(expected)
    wanted = gradients(path, inputs, towards)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(path(*inputs), expected)
        for actual, gradient in zip(gradients(path, inputs, towards), wanted, strict=True):
            torch.testing.assert_close(actual, gradient)


@pytest.mark.parametrize("path", PATHS)
def test_meta_device(path) -> None:
    value, sizes, points, weights = random_inputs([(7, 9), (3, 3)], batch=2, queries=11)
    out = path(value.to("meta", torch.bfloat16), sizes, points.to("meta"), weights.to("meta"))
    assert out.device.type == "meta"
    assert out.shape == (2, 11, 10)
    assert out.dtype == torch.bfloat16


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_in_one_graph(backend: str, train: bool) -> None:
    value, sizes, points, weights = random_inputs([(7, 9), (3, 3)], batch=2, queries=11)
    compiled = torch.compile(RowSampling(), fullgraph=True, backend=backend)
    with torch.set_grad_enabled(train):
        expected = deformable_attention(value, sizes, points, weights)
        leaves = [tensor.clone().requires_grad_(train) for tensor in (value, points, weights)]
        out = compiled(leaves[0], sizes, leaves[1], leaves[2])
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    if train:
        out.sum().backward()
        wanted = gradients(deformable_attention, (value, sizes, points, weights), torch.ones_like(expected))
        for leaf, gradient in zip(leaves, wanted, strict=True):
            torch.testing.assert_close(leaf.grad, gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sizes", [[(3, 4)], [(4, 4), (1, 1)], [(5, 4)], []])
def test_wrong_sizes_are_refused(sizes) -> None:
    value, _, points, weights = random_inputs([(4, 4)])
    with pytest.raises(ValueError, match=r"tokens, but value has 16 and points have\s+1 levels"):
        deformable_attention(value, sizes, points, weights)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rows_survive_points_that_are_no_numbers(bad: float) -> None:
    value, sizes, points, weights = random_inputs([(4, 4)])
    points[0, 3] = bad
    out = sample_rows(value, sizes, points, weights)
    expected = torch.full_like(out[0, 3], math.nan) if math.isnan(bad) else torch.zeros_like(out[0, 3])
    assert torch.equal(out[0, 3].isnan(), expected.isnan())
    others = [query for query in range(7) if query != 3]
    torch.testing.assert_close(out[:, others], deformable_attention(value, sizes, points, weights)[:, others])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("batch", "queries"), [(0, 5), (2, 0)])
def test_nothing_to_do(path, batch: int, queries: int) -> None:
    value, sizes, points, weights = random_inputs([(3, 3)], batch=batch, queries=queries)
    assert path(value, sizes, points, weights).shape == (batch, queries, 10)


def test_the_batch_does_not_mix() -> None:
    value, sizes, points, weights = random_inputs([(5, 4), (2, 3)], batch=3)
    for path in PATHS:
        together = path(value, sizes, points, weights)
        for image in range(3):
            one = slice(image, image + 1)
            torch.testing.assert_close(together[one], path(value[one], sizes, points[one], weights[one]))
