"""The Triton kernels against the plain path: on a GPU where there is one, else in Triton's interpreter.

TRITON_INTERPRET=1 python -m pytest tests/lean/gpu/test_sampling_on_gpu.py
"""

from __future__ import annotations

import warnings

import pytest
import torch
from tests import tiny
from tests.triton_kernels import DEVICE, INTERPRETED, RUN_SOMEWHERE, nothing_tried  # noqa: F401
from torch import Tensor

from piip.inference import Mode, choose
from piip.lean.gpu import sampling as module
from piip.lean.gpu.sampling import KernelSampling
from piip.model import PIIPModel
from piip.ops.deformable_attention import DeformableSampling, deformable_attention

Inputs = tuple[Tensor, list[tuple[int, int]], Tensor, Tensor]

pytestmark = RUN_SOMEWHERE


def inputs(
    size: tuple[int, int] = (5, 7),
    batch: int = 2,
    queries: int = 13,
    heads: int = 3,
    points: int = 4,
    channels: int = 6,
    dtype: torch.dtype = torch.float32,
) -> Inputs:
    """Values in -1..1; positions around the grid, about a third of them outside it."""
    value = torch.rand(batch, size[0] * size[1], heads, channels) * 2 - 1
    places = 0.5 + (torch.rand(batch, queries, heads, 1, points, 2) - 0.5) * 1.6
    weights = torch.randn(batch, queries, heads, points).softmax(-1)[:, :, :, None]
    return value.to(DEVICE, dtype), [size], places.to(DEVICE), weights.to(DEVICE)


def with_gradients(path: DeformableSampling, given: Inputs, towards: Tensor) -> list[Tensor]:
    """The result and the gradients of value, points and weights."""
    value, sizes, points, weights = given
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (value, points, weights)]
    out = path(leaves[0], sizes, *leaves[1:])
    return [out.detach(), *torch.autograd.grad(out, leaves, towards)]


def check(given: Inputs, tolerance: float = 1e-5) -> None:
    expected = deformable_attention(*given)
    towards = torch.randn_like(expected)
    pairs = zip(
        with_gradients(KernelSampling(), given, towards),
        with_gradients(DeformableSampling(), given, towards),
        strict=True,
    )
    assert module._TRIED
    assert all(module._TRIED.values())
    for actual, wanted in pairs:
        assert actual.dtype == wanted.dtype
        assert actual.shape == wanted.shape
        torch.testing.assert_close(actual, wanted, atol=tolerance * max(1, wanted.abs().max().item()), rtol=0)


@pytest.mark.parametrize("channels", [1, 3, 6, 12, 24, 32, 40])
def test_any_head_size(channels: int) -> None:
    check(inputs(channels=channels))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 3), (17, 11)])
@pytest.mark.parametrize(("batch", "queries", "heads", "points"), [(1, 1, 1, 1), (3, 70, 2, 3)])
def test_any_grid_and_number(size: tuple[int, int], batch: int, queries: int, heads: int, points: int) -> None:
    check(inputs(size, batch, queries, heads, points, channels=4))


def test_many_points() -> None:
    check(inputs(points=9))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 8e-3), (torch.float16, 1e-3)])
def test_half_precision_is_rounded_once(dtype: torch.dtype, tolerance: float) -> None:
    check(inputs(dtype=dtype), tolerance)
    if INTERPRETED and dtype == torch.bfloat16:
        return  # the interpreter cuts off what a GPU rounds
    given = inputs(dtype=dtype)
    precise = deformable_attention(given[0].float(), *given[1:]).to(dtype)
    off = (KernelSampling()(*given) != precise).float().mean()
    assert off < 0.01  # where the sum lies in the middle of two numbers


def test_points_on_and_beyond_the_borders() -> None:
    height, width = 3, 5
    xs = [-1e30, -1e6, -3.0, -1.0, -0.5, 0.0, 0.5, width - 0.5, width, width + 0.5, width + 1, 1e6, 1e30]
    ys = [-1e6, -2.0, -1.0, -0.5, 0.0, 0.5, height - 0.5, height, height + 0.5, height + 1, 1e6]
    places = torch.tensor([[x / width, y / height] for x in xs for y in ys], device=DEVICE)
    value = torch.rand(1, height * width, 1, 3, device=DEVICE) + 1
    points = places.reshape(1, -1, 1, 1, 1, 2)
    given = value, [(height, width)], points, torch.ones(points.shape[:-1], device=DEVICE)
    actual = KernelSampling()(*given)
    torch.testing.assert_close(actual, deformable_attention(*given), atol=1e-5, rtol=0)
    outside = (places[:, 0] * width <= -0.5) | (places[:, 0] * width >= width + 0.5)
    assert (actual[0, outside].abs() < 1e-5).all()
    for gradient in with_gradients(KernelSampling(), given, torch.ones_like(actual)):
        assert gradient.isfinite().all()


def test_a_place_that_is_none_shows() -> None:
    value, sizes, points, weights = inputs()
    points[1, 2, 0, 0, 0, 0] = float("nan")
    out = KernelSampling()(value, sizes, points, weights).unflatten(-1, (3, -1))
    assert out[1, 2, 0].isnan().all()
    out[1, 2, 0] = 0
    assert not out.isnan().any()


@pytest.mark.parametrize(("batch", "queries"), [(0, 4), (2, 0)])
def test_nothing_in_nothing_out(batch: int, queries: int) -> None:
    value, sizes, points, weights = inputs(batch=batch, queries=queries)
    out, for_value, *_ = with_gradients(
        KernelSampling(), (value, sizes, points, weights), value.new_zeros(batch, queries, 18)
    )
    assert out.shape == (batch, queries, 18)
    assert for_value.shape == value.shape
    assert not for_value.any()


def test_inputs_need_not_be_contiguous() -> None:
    value, sizes, points, weights = inputs()
    turned = value.transpose(1, 3).contiguous().transpose(1, 3)
    assert not turned.is_contiguous()
    given = turned, sizes, points.flip(0).flip(0)[:, ::2], weights[:, ::2]
    check(given)


@pytest.mark.parametrize(
    "needs", [(True, False, False), (False, True, False), (False, False, True), (True, True, True)]
)
def test_only_the_gradients_that_are_asked_for(needs: tuple[bool, ...]) -> None:
    value, sizes, points, weights = inputs((4, 4))
    leaves = [tensor.requires_grad_(need) for tensor, need in zip((value, points, weights), needs, strict=True)]
    KernelSampling()(leaves[0], sizes, *leaves[1:]).sum().backward()
    assert tuple(leaf.grad is not None for leaf in leaves) == needs


def test_the_operations_are_what_they_say() -> None:
    value, (size,), points, weights = inputs((2, 3), queries=2, points=1)
    leaves = [tensor.requires_grad_() for tensor in (value, points, weights)]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static")
    torch.library.opcheck(module.sample_level, (*leaves, *size), test_utils=tests)
    gradient = torch.rand(2, 2, 18, device=DEVICE)
    plain = [tensor.detach() for tensor in leaves]
    for with_value in (True, False):
        given = (gradient, *plain, *size, with_value)
        torch.library.opcheck(module.sample_level_backward, given, test_utils=("test_schema", "test_faketensor"))


def test_it_can_be_compiled_without_a_break() -> None:
    given = inputs()
    expected = KernelSampling()(*given)
    module._TRIED.clear()
    compiled = torch.compile(KernelSampling(), backend="aot_eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(*given), expected)
    towards = torch.randn_like(expected)
    actual = with_gradients(compiled, given, towards)
    for one, other in zip(actual, with_gradients(KernelSampling(), given, towards), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_autocast_changes_nothing() -> None:
    given = inputs(dtype=torch.bfloat16)
    expected = KernelSampling()(*given)
    module._TRIED.clear()
    with torch.autocast(DEVICE.type, torch.bfloat16), torch.inference_mode():
        actual = KernelSampling()(*given)
    assert actual.dtype == torch.bfloat16
    assert torch.equal(actual, expected)


# -- when it is used ---------------------------------------------------------------------------------------------------


def used(given: Inputs) -> bool:
    module._TRIED.clear()
    KernelSampling()(*given)
    return bool(module._TRIED)


def test_the_plain_path_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs()
    assert used(given)
    monkeypatch.setattr(module, "enabled", False)
    assert not used(given)


def test_other_inputs_take_the_plain_path() -> None:
    value, sizes, points, weights = inputs()
    assert not used((value.double(), sizes, points, weights))
    several = (
        torch.cat((value, value), dim=1),
        sizes * 2,
        points.repeat(1, 1, 1, 2, 1, 1),
        weights.repeat(1, 1, 1, 2, 1),
    )
    assert not used(several)


def test_the_plain_path_trains_where_the_result_must_not_depend_on_the_order() -> None:
    given = inputs()
    with torch.no_grad():
        assert used(given)
    torch.use_deterministic_algorithms(True)
    try:
        assert used(given)  # without gradients there are no additions in any order
        given[0].requires_grad_()
        assert not used(given)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("fault", ["raises", "lies"])
def test_a_kernel_that_does_not_work_is_not_used_and_one_warning_says_so(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(value: Tensor, size: tuple[int, int], points: Tensor, weights: Tensor) -> Tensor:
        if fault == "raises":
            raise RuntimeError("Failed to find C compiler.\nMore text")
        return torch.zeros(*points.shape[:2], value.shape[2:].numel(), device=DEVICE)

    monkeypatch.setattr(module.loaded(), "forward", forward)
    given = inputs()
    said = "Failed to find C compiler.$" if fault == "raises" else "off by 1$"
    with pytest.warns(UserWarning, match=f"plain operations run instead: .*{said}"):
        actual = KernelSampling()(*given)
    assert torch.equal(actual, deformable_attention(*given))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        KernelSampling()(*given)


def test_nothing_random_is_drawn() -> None:
    given = inputs()
    before = torch.get_rng_state()
    KernelSampling()(*given)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("mode", ["train", "predict", "compile"])
def test_a_model_computes_the_same_with_and_without(mode: Mode) -> None:
    torch.manual_seed(0)
    model = PIIPModel(tiny.model(2)).to(DEVICE, torch.bfloat16)  # which on a CPU has the twins of a GPU
    images = torch.randn(1, 3, 64, 96, device=DEVICE, dtype=torch.bfloat16)
    expected = [level.detach() for level in model.eval().backbone(images)]
    choose(model, mode)
    assert any(type(one) is KernelSampling for one in model.modules())
    for level, wanted in zip(model.backbone(images), expected, strict=True):
        torch.testing.assert_close(level, wanted, atol=0.1, rtol=0.1)
    model.backbone(images)[0].float().mean().backward()
    assert {asked.backward for asked in module._TRIED} == {True}
    assert all(module._TRIED.values())
    choose(model, "export")
    assert not any(isinstance(one, KernelSampling) for one in model.modules())


def test_it_may_be_tried_first_inside_a_checkpoint() -> None:
    def gradients(checkpointing: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = PIIPModel(tiny.model()).to(DEVICE).train()
        for part in model.modules():
            if isinstance(part, DeformableSampling):
                part.__class__ = KernelSampling
        model.backbone.set_checkpointing(checkpointing)
        torch.manual_seed(1)
        maps = model.features(torch.rand(1, 3, 64, 64, device=DEVICE))
        torch.stack([one.square().mean() for one in maps]).sum().backward()
        return [one.grad for one in model.backbone.parameters() if one.grad is not None]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpointed = gradients(checkpointing=True)
    assert any(module._TRIED.values())
    for one, other in zip(checkpointed, gradients(checkpointing=False), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_kernel_whose_gradients_are_nan_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    right = module.loaded().backward

    def wrong(*given: object, **named: object) -> tuple[Tensor, ...]:
        return tuple(torch.full_like(one, torch.nan) for one in right(*given, **named))

    monkeypatch.setattr(module.loaded(), "backward", wrong)
    value, sizes, points, weights = inputs()
    with pytest.warns(UserWarning, match="does not work here"):
        out = KernelSampling()(value.requires_grad_(), sizes, points, weights)
    torch.testing.assert_close(out, deformable_attention(value, sizes, points, weights), rtol=0, atol=0)
