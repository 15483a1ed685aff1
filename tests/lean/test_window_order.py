import pytest
import torch

from piip.lean.window_order import from_window_order, regions, to_window_order


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 4), (7, 2), (8, 9), (6, 3)])
@pytest.mark.parametrize("window", [1, 2, 3, 4, 9])
def test_window_order_lists_whole_windows_first_and_the_corner_last(size: tuple[int, int], window: int) -> None:
    height, width = size
    cells = torch.arange(height * width).reshape(1, height, width, 1)
    tokens = torch.cat((cells, cells + 1000)).flatten(1, 2)
    ordered = to_window_order(tokens, size, window)
    assert torch.equal(ordered[1], ordered[0] + 1000)
    assert torch.equal(from_window_order(ordered, size, window), tokens)
    expected: list[int] = []
    bottom, right = height // window * window, width // window * window
    for rows, columns in [((0, bottom), (0, right)), ((0, bottom), (right, width)), ((bottom, height), (0, right)),
                          ((bottom, height), (right, width))]:  # fmt: skip
        for top in range(*rows, window):
            for left in range(*columns, window):
                expected += (
                    cells[0, top : min(top + window, rows[1]), left : min(left + window, columns[1]), 0]
                    .flatten()
                    .tolist()
                )
    assert ordered[0, :, 0].tolist() == expected


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 4), (7, 2), (8, 9)])
@pytest.mark.parametrize("window", [1, 2, 4, 9])
def test_regions_cover_the_grid(size: tuple[int, int], window: int) -> None:
    found = regions(size, window)
    assert sum(region.windows * region.cells for region in found) == size[0] * size[1]
    assert all(0 < region.height <= window and 0 < region.width <= window for region in found)
    assert sum(region.windows for region in found) == -(-size[0] // window) * -(-size[1] // window)
