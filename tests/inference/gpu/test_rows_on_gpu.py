"""Norms, sums and orders of rows as one kernel against the plain modules: on a GPU, else in Triton's interpreter.

TRITON_INTERPRET=1 python -m pytest tests/inference/gpu/test_rows_on_gpu.py
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests import tiny
from tests.triton_kernels import DEVICE, RUN_SOMEWHERE, nothing_tried  # noqa: F401
from timm.layers import Mlp
from torch import Tensor, nn

from piip.backbone.block import Blocks
from piip.inference import fuse
from piip.inference.choice import TABLE
from piip.inference.folding.interactions import FoldedInjector, NormalisedLinear
from piip.inference.gpu import blocks, rows
from piip.inference.gpu.blocks import BlocksByRows, InjectorByRows
from piip.inference.gpu.gelu import hidden_of
from piip.inference.gpu.group_norm import PLAIN, group_norm
from piip.inference.gpu.rows import added_and_normalised, normalised, normalised_linear
from piip.inference.half import with_half_backbone
from piip.lean.gpu import sampling
from piip.model import PIIPModel

pytestmark = RUN_SOMEWHERE


def norm_of(channels: int, affine: bool, dtype: torch.dtype = torch.float32) -> nn.LayerNorm:
    norm = nn.LayerNorm(channels, eps=1e-6, elementwise_affine=affine).to(DEVICE, dtype)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize("channels", [1, 6, 32, 100, 3000])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
@torch.no_grad()
def test_the_numbers_are_pytorch_s(channels: int, affine: bool, ordered: bool) -> None:
    norm, rows = norm_of(channels, affine), 11
    x, added = (torch.randn(3, rows, channels, device=DEVICE) + 3 for _ in range(2))
    order = torch.randperm(rows, device=DEVICE) if ordered else None
    places = torch.arange(rows, device=DEVICE) if order is None else order
    given = None if order is None else order.int()
    torch.testing.assert_close(normalised(x, norm, given), norm(x[:, places]), atol=2e-5, rtol=1e-5)
    total, out = added_and_normalised(x, added, norm, given)
    torch.testing.assert_close(total, x + added[:, places], atol=0, rtol=0)
    torch.testing.assert_close(out, norm(total), atol=2e-5, rtol=1e-5)
    ahead = torch.randn(channels, device=DEVICE)
    with_bias, same = added_and_normalised(x, added, norm, given, ahead)
    torch.testing.assert_close(with_bias, total + ahead)
    assert torch.equal(same, out)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_in_half_precision_sums_are_rounded_once(dtype: torch.dtype) -> None:
    norm = norm_of(48, True, dtype)
    x, added = (torch.randn(2, 9, 48, device=DEVICE, dtype=dtype) for _ in range(2))
    total, out = added_and_normalised(x, added, norm)
    ulp = torch.finfo(dtype).eps  # the interpreter cuts bfloat16 off, a GPU rounds it
    torch.testing.assert_close(total, x + added, atol=0, rtol=ulp)
    assert float((out.float() - norm(total).float()).abs().max()) <= 0.02 * float(out.float().abs().max())
    assert out.dtype == dtype


@pytest.mark.parametrize(("inputs", "values"), [(8, 12), (24, 5), (3, 300)])
@torch.no_grad()
def test_a_projection_with_its_norm_and_the_layer_after_it(inputs: int, values: int) -> None:
    first, second = nn.Linear(inputs, 40).to(DEVICE), nn.Linear(40, values).to(DEVICE)
    norm = norm_of(40, True)
    folded = NormalisedLinear(first, norm, second)
    x = torch.randn(2, 7, inputs, device=DEVICE)
    torch.testing.assert_close(normalised_linear(folded, x), second(norm(first(x))), atol=1e-4, rtol=1e-4)
    assert [asked[0] for asked, works in sampling._TRIED.items() if works] == ["linear"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_a_product_with_its_gelu(dtype: torch.dtype) -> None:
    mlp, x = Mlp(16, 64).to(DEVICE, dtype), torch.randn(2, 5, 16, device=DEVICE, dtype=dtype)
    expected = mlp.act(mlp.fc1(x))
    assert float((hidden_of(mlp, x) - expected).abs().max()) < 0.01
    assert [asked[0] for asked, works in sampling._TRIED.items() if works] == ["gelu"]
    exact = mlp.float()
    assert torch.equal(hidden_of(exact, x.float()), exact.act(exact.fc1(x.float())))


@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
@pytest.mark.parametrize(("channels", "pixels"), [(8, 3), (24, 5000), (96, 1)])
@torch.no_grad()
def test_group_norm_of_maps(channels: int, pixels: int, activation: Any) -> None:
    norm = nn.GroupNorm(4, channels).to(DEVICE)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, pixels, channels, device=DEVICE) + torch.randn(channels, device=DEVICE)
    expected = PLAIN[activation](norm(x.transpose(1, 2)).transpose(1, 2))
    torch.testing.assert_close(group_norm(norm, x, activation), expected, atol=1e-4, rtol=1e-4)
    assert [asked[0] for asked, works in sampling._TRIED.items() if works] == ["maps"]


def backbones(described: Any) -> tuple[Any, Any]:
    """A folded copy as it runs on a GPU, and one without the kernels."""
    torch.manual_seed(0)
    model = PIIPModel(described).eval().to(DEVICE)
    for name, parameter in model.backbone.named_parameters():
        if parameter.ndim == 1 and "sampling_offsets" not in name:
            torch.nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.2)
    plain, fast = fuse(model), fuse(model)
    for module in fast.backbone.modules():
        kind = {Blocks: BlocksByRows, FoldedInjector: InjectorByRows}
        plains = [one for one in kind if isinstance(module, one)]
        if plains:
            module.__class__ = kind[plains[0]]
    return plain.backbone, fast.backbone


@pytest.mark.parametrize("size", [(128, 128), (112, 150)])
@torch.inference_mode()
def test_backbones_are_the_same(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fast = backbones(tiny.model(3).model_copy(update={"backbone": tiny.backbone(3)}))
    images = torch.randn(2, 3, *size, device=DEVICE)
    calls: list[int] = []
    usual = blocks.added_and_normalised

    def counted(*given: Any, **named: Any) -> tuple[Tensor, Tensor]:
        calls.append(1)
        return usual(*given, **named)

    monkeypatch.setattr(blocks, "added_and_normalised", counted)
    for expected, found in zip(plain(images), fast(images), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.std()), rtol=1e-4)
    assert len(calls) == 3 * 4 + 2 * 4  # blocks, directions of exchanges
    assert len(blocks._kept) == 3


@torch.inference_mode()
def test_a_model_in_half_precision_uses_them() -> None:
    torch.manual_seed(0)
    model = PIIPModel(tiny.model(2)).eval().to(DEVICE)
    half = with_half_backbone(fuse(model), torch.bfloat16)
    assert {BlocksByRows, InjectorByRows} <= {type(module) for module in half.backbone.modules()}
    images = torch.randn(1, 3, 128, 96, device=DEVICE)
    expected, found = fuse(model).features(images), half.features(images)
    for one, other in zip(expected, found, strict=True):
        assert isinstance(one, Tensor)
        assert isinstance(other, Tensor)
        assert float((one - other.float()).square().mean().sqrt() / one.std()) < 3e-2
    assert {"rows", "gelu", "maps"} <= {asked[0] for asked, works in sampling._TRIED.items() if works}


@torch.no_grad()
def test_a_kernel_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_difference", lambda _: 1.0)
    with pytest.warns(UserWarning, match="does not work"):
        assert not rows.rows_are_normalised(torch.randn(1, 4, 8, device=DEVICE), norm_of(8, False))


def test_only_what_runs_on_a_gpu_uses_them() -> None:
    with_them = {key for key, twins in TABLE.items() if BlocksByRows in twins.values()}
    assert with_them == {("predict", False)}
    x = torch.randn(1, 4, 8, device=DEVICE)
    assert not rows.rows_are_normalised(x, norm_of(8, False))  # autograd is on
    with torch.no_grad():
        assert not rows.rows_are_normalised(x, nn.LayerNorm(4).to(DEVICE))
        assert not rows.rows_are_normalised(x.double(), norm_of(8, False))
        with torch.autocast(DEVICE.type, torch.bfloat16):
            assert not rows.rows_are_normalised(x, norm_of(8, False))
