"""Places, softmax and sampling in one kernel against the plain module: on a GPU, else in Triton's interpreter.

TRITON_INTERPRET=1 python -m pytest tests/inference/gpu/test_exchange_on_gpu.py
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.triton_kernels import DEVICE, RUN_SOMEWHERE, nothing_tried  # noqa: F401
from torch import Tensor

from piip import config
from piip.backbone.interaction import DeformableCrossAttention
from piip.inference.gpu.exchange import KernelCrossAttention, mix_level
from piip.lean.gpu import sampling

pytestmark = RUN_SOMEWHERE


def attention(heads: int, points: int, width: int = 24) -> Any:
    """With offsets and weights that depend on the query, some points outside."""
    built = DeformableCrossAttention(width, 20, config.Interaction(heads=heads, points=points))
    for layer, spread in ((built.sampling_offsets, 1.0), (built.attention_weights, 0.5)):
        torch.nn.init.normal_(layer.weight, std=spread / width**0.5)
    return built.to(DEVICE).requires_grad_(False)


def queries(size: tuple[int, int], source: tuple[int, int], batch: int = 2) -> tuple[Any, ...]:
    query, tokens = (torch.randn(batch, h * w, c, device=DEVICE) for (h, w), c in ((size, 24), (source, 20)))
    return query, size, tokens, source


@pytest.mark.parametrize(("heads", "points"), [(4, 4), (3, 1), (2, 9)])
@pytest.mark.parametrize(("size", "source"), [((5, 7), (4, 3)), ((1, 1), (6, 2)), ((3, 9), (1, 1))])
def test_the_numbers_are_the_plain_module_s(
    heads: int, points: int, size: tuple[int, int], source: tuple[int, int]
) -> None:
    module, given = attention(heads, points), queries(size, source)
    expected = module(*given)
    module.__class__ = KernelCrossAttention
    torch.testing.assert_close(module(*given), expected, atol=1e-5, rtol=1e-5)
    assert list(sampling._TRIED.values()) == [True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    module, given = attention(4, 4), queries((5, 7), (4, 3))
    with torch.inference_mode(), torch.autocast(DEVICE.type, dtype):
        expected = module(*given)
        module.__class__ = KernelCrossAttention
        actual = module(*given)
    assert actual.dtype == expected.dtype
    assert list(sampling._TRIED.values()) == [True]
    torch.testing.assert_close(actual, expected, atol=0.03, rtol=0.03)


def test_gradients_and_frames_take_the_plain_module() -> None:
    module, (query, *rest) = attention(4, 4), queries((5, 7), (4, 3))
    frame = torch.tensor([[[0.5, 0.5], [0.25, 0.25]]], device=DEVICE).repeat(2, 1, 1)
    expected = module(query, *rest, frame)
    module.__class__ = KernelCrossAttention
    torch.testing.assert_close(module(query, *rest, frame), expected)
    module(query.requires_grad_(), *rest).sum().backward()
    assert not sampling._TRIED
    assert query.grad is not None


def test_the_operation_is_what_it_says_and_compiles() -> None:
    value, offsets = torch.rand(1, 6, 2, 3, device=DEVICE), torch.rand(1, 4, 2, 1, 2, device=DEVICE)
    logits = torch.rand(1, 4, 2, 1, device=DEVICE)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(mix_level, (value, offsets, logits, 2, 2, 2, 3), test_utils=tests)
    module, given = attention(2, 1), queries((2, 2), (2, 3), batch=1)
    module.__class__ = KernelCrossAttention

    def run(query: Tensor, tokens: Tensor) -> Tensor:
        out: Tensor = module(query, given[1], tokens, given[3])
        return out

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True, dynamic=False)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(given[0], given[2]), run(given[0], given[2]))
    assert list(sampling._TRIED.values()) == [True]
