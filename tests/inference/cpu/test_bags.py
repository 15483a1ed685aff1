import pytest
import torch

from piip.inference.cpu import bags
from piip.ops.deformable_attention import deformable_attention


@pytest.mark.parametrize("channels", [1, 3, 5, 6, 7, 8, 12, 17, 24, 31, 32, 40])
@pytest.mark.parametrize("size", [(1, 1), (9, 7)])
def test_planes_equal_the_reference_at_any_width(channels: int, size: tuple[int, int]) -> None:
    heads, points, queries = 3, 4, 20
    value = torch.randn(1, size[0] * size[1], heads, channels)
    places = 0.5 + 1.6 * (torch.rand(heads, points, queries, 2) - 0.5)  # about a third outside
    logits = 3 * torch.randn(heads, points, queries)
    expected = deformable_attention(
        value,
        [size],
        places.permute(2, 0, 1, 3)[None, :, :, None],
        logits.softmax(1).permute(2, 0, 1)[None, :, :, None],
    )
    x, y = places[..., 0] * size[1], places[..., 1] * size[0]
    sampled = bags.sample(
        bags.table(value[0].flatten(1), size, heads, lambda tokens: tokens), size, x, y, logits.clone()
    )
    torch.testing.assert_close(sampled, expected[0], atol=1e-5, rtol=0)


def test_logits_may_be_large_and_places_absurd() -> None:
    table = bags.table(torch.ones(6, 6), (2, 3), 2, lambda tokens: tokens)
    shape = (2, 4, 5)
    logits = torch.full(shape, 300.0)
    logits[:, 0] = -300.0
    ones = bags.sample(table, (2, 3), torch.full(shape, 1.5), torch.ones(shape), logits.clone())
    torch.testing.assert_close(ones, torch.ones(5, 6))
    for far in (1e30, -1e30, float("inf"), float("-inf")):
        assert not bags.sample(table, (2, 3), torch.full(shape, far), torch.ones(shape), logits.clone()).any()
    bags.sample(
        table, (2, 3), torch.full(shape, float("nan")), torch.ones(shape), logits.clone()
    )  # reads no other memory


@pytest.mark.parametrize("exact", [bags.EXACT, 1])
def test_rows_that_float32_cannot_count_are_counted_in_whole_numbers(
    exact: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bags, "EXACT", exact)
    test_planes_equal_the_reference_at_any_width(8, (9, 7))
    test_logits_may_be_large_and_places_absurd()


def test_what_cannot_be_counted_or_held_is_refused() -> None:
    assert bags.fits(torch.float32, (1024, 1024), 16)
    assert not bags.fits(torch.float32, (11584, 11584), 16)
    assert not bags.fits(torch.float64, (10, 10), 16)
