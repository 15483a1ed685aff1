import math

import pytest
import torch

from piip.heads.mask_rcnn.boxes import BOX_STDS, MAX_LOG_RATIO, RPN_STDS, anchors, decode, encode, scale_boxes


def random_boxes(count: int, size: tuple[int, int] = (90, 120), smallest: float = 1.0) -> torch.Tensor:
    height, width = size
    corner = torch.rand(count, 2) * torch.tensor([width - smallest, height - smallest])
    room = torch.tensor([width, height]) - corner - smallest
    return torch.cat((corner, corner + smallest + torch.rand(count, 2) * room), dim=1)


def test_anchors_of_one_cell() -> None:
    expected = [  # side 4 * 8 = 32, area 1024; height / width = 0.5, 1, 2; around the cell's corner (0, 0)
        [-22.627417, -11.3137085, 22.627417, 11.3137085],
        [-16, -16, 16, 16],
        [-11.3137085, -22.627417, 11.3137085, 22.627417],
    ]
    torch.testing.assert_close(anchors((1, 1), 4, 8.0, (0.5, 1.0, 2.0)), torch.tensor(expected))


def test_anchors_go_row_by_row_in_steps_of_the_stride() -> None:
    found = anchors((2, 3), 16, 2.0, (1.0, 4.0))
    assert found.shape == (12, 4)
    centres = (found[:, :2] + found[:, 2:]) / 2
    expected = [[x, y] for y in (0, 16) for x in (0, 16, 32) for _ in range(2)]
    torch.testing.assert_close(centres, torch.tensor(expected).float())
    sides = found[:, 2:] - found[:, :2]
    torch.testing.assert_close(sides, torch.tensor([[32.0, 32.0], [16.0, 64.0]]).repeat(6, 1))


@pytest.mark.parametrize("stds", [RPN_STDS, BOX_STDS])
def test_decode_is_the_inverse_of_encode(stds) -> None:
    boxes, references = random_boxes(200), random_boxes(200, smallest=4.0)
    decoded = decode(encode(boxes, references, stds)[:, None], references, stds, (90, 120))[:, 0]
    torch.testing.assert_close(decoded, boxes, atol=1e-3, rtol=1e-5)


def test_offsets_by_hand() -> None:
    boxes, references = torch.tensor([[12.0, 10.0, 32.0, 20.0]]), torch.tensor([[10.0, 10.0, 20.0, 30.0]])
    # centre (22, 15) from (15, 20), sides (20, 10) from (10, 20)
    expected = torch.tensor([[0.7, -0.25, math.log(2), math.log(0.5)]])
    torch.testing.assert_close(encode(boxes, references, RPN_STDS), expected)
    torch.testing.assert_close(encode(boxes, references, BOX_STDS), expected / torch.tensor([0.1, 0.1, 0.2, 0.2]))


def test_sides_are_limited_before_the_clip() -> None:
    reference = torch.tensor([[495.0, 495.0, 505.0, 505.0]])
    deltas = torch.tensor([[[0.0, 0.0, 100.0, 100.0], [0.0, 0.0, -100.0, -100.0]]])
    largest, smallest = decode(deltas, reference, RPN_STDS, (1000, 1000))[0]
    half = 10 * 1000 / 16 / 2
    torch.testing.assert_close(largest, torch.tensor([500 - half, 500 - half, 500 + half, 500 + half]))
    torch.testing.assert_close(smallest[2:] - smallest[:2], torch.full((2,), 10 * 16 / 1000), atol=1e-4, rtol=0)
    assert math.isclose(math.exp(MAX_LOG_RATIO), 62.5)


def test_boxes_are_clipped_to_width_and_height() -> None:
    deltas = torch.tensor([[[0.0, 0.0, 3.0, 3.0]]])
    clipped = decode(deltas, torch.tensor([[20.0, 10.0, 60.0, 30.0]]), RPN_STDS, (50, 80))
    assert clipped[0, 0].tolist() == [0, 0, 80, 50]


def test_offsets_in_half_precision_are_decoded_in_float32() -> None:
    decoded = decode(
        torch.zeros(1, 1, 4, dtype=torch.bfloat16), torch.tensor([[1001.3, 3.0, 1090.7, 9.0]]), RPN_STDS, (1120, 1120)
    )
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(decoded[0, 0], torch.tensor([1001.3, 3.0, 1090.7, 9.0]))


def test_boxes_scale_by_height_and_width() -> None:
    scaled = scale_boxes(torch.tensor([[10.0, 10.0, 20.0, 40.0]]), (100, 50), (200, 25))
    assert scaled.tolist() == [[5, 20, 10, 80]]
