import pytest
import torch

from piip.ops.windows import from_windows, to_windows


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 4), (7, 2), (8, 9)])
@pytest.mark.parametrize("window", [1, 2, 3, 4, 9])
def test_windows_hold_their_square_of_the_zero_padded_grid(size: tuple[int, int], window: int) -> None:
    height, width = size
    grid = torch.randn(2, height, width, 3)
    windows = to_windows(grid.flatten(1, 2), size, window)
    rows, columns = -(-height // window), -(-width // window)
    assert windows.shape == (2 * rows * columns, window**2, 3)
    for image in range(2):
        for row in range(rows * window):
            for column in range(columns * window):
                index = (image * rows + row // window) * columns + column // window
                cell = windows[index, row % window * window + column % window]
                inside = row < height and column < width
                assert torch.equal(cell, grid[image, row, column] if inside else torch.zeros(3))
    assert torch.equal(from_windows(windows, size, window), grid.flatten(1, 2))
