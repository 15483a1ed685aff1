"""Every bit of a model's weights counts, also where autograd's counters see nothing; a kept predictor follows them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tests import tiny
from torch import nn

from piip import config
from piip.inference.fingerprint import PIECE, fingerprint
from piip.model import PIIPModel
from piip.prediction.predictor import Predictor


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.bool])
@pytest.mark.parametrize("count", [1, 3, 8, PIECE * 2 + 5])
def test_one_changed_value_is_seen_wherever_it_is(dtype: torch.dtype, count: int) -> None:
    values = torch.zeros(count + 1, dtype=dtype)[1:]  # not aligned to words
    before = fingerprint([values, torch.zeros(0), torch.ones(())])
    assert fingerprint([values.clone(), torch.zeros(0), torch.ones(())]) == before
    for place in {0, count // 2, count - 1}:
        changed = values.clone()
        changed[place] = 1
        assert fingerprint([changed, torch.zeros(0), torch.ones(())]) != before


@pytest.mark.parametrize("count", [64, 4 * PIECE])
def test_what_keeps_a_plain_sum_is_seen(count: int) -> None:
    values = torch.randn(2, count)
    before = fingerprint([values])
    assert fingerprint([values.flip(0)]) != before
    assert fingerprint([values.roll(2 * PIECE, 1)]) != before or count == 64
    assert fingerprint([-values]) != before
    assert fingerprint([values.t().contiguous().t()]) == before
    one, other = values
    assert fingerprint([one, other]) != fingerprint([other, one])


def segmentor() -> PIIPModel:
    torch.manual_seed(0)
    head = config.UperNet(channels=16, auxiliary_channels=None)
    return PIIPModel(tiny.model(2).model_copy(update={"head": head})).eval()


def shift(parameter: nn.Parameter) -> None:
    parameter.data.add_(0.05)


def replace(parameter: nn.Parameter) -> None:
    parameter.data = parameter.data + 0.05


def through_numpy(parameter: nn.Parameter) -> None:
    array = parameter.detach().numpy()
    array += 0.05


@pytest.mark.parametrize("change", [shift, replace, through_numpy])
def test_a_kept_predictor_sees_changes_that_autograd_does_not(change: Callable[[nn.Parameter], None]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    model = segmentor()
    kept = Predictor(model, "cpu")
    before = kept.predict(image).results[0].scores
    for parameter in model.parameters():
        change(parameter)
    after, fresh = (used.predict(image).results[0].scores for used in (kept, Predictor(model, "cpu")))
    assert not np.allclose(before, after, atol=1e-3)
    np.testing.assert_array_equal(after, fresh)


@pytest.mark.parametrize("convert", [nn.Module.double, nn.Module.bfloat16, nn.Module.half])
def test_a_kept_predictor_sees_another_precision(convert: Callable[[nn.Module], nn.Module]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    model = segmentor()
    kept = Predictor(model, "cpu")
    kept.predict(image)
    convert(model)
    fresh = Predictor(model, "cpu")
    np.testing.assert_array_equal(kept.predict(image).results[0].scores, fresh.predict(image).results[0].scores)
    kinds = [[p.dtype for p in used.inference.get().parameters()] for used in (kept, fresh)]
    assert kinds[0] == kinds[1]
