import pytest
import torch
from torchvision.ops import roi_align

from piip.heads.mask_rcnn.roi import STRIDES, RoIAlign, level_of_boxes
from piip.inference import choose
from piip.lean.roi_align import RoIAlignByProducts, align_by_products


def maps(batch: int = 2, side: int = 512, channels: int = 3) -> list[torch.Tensor]:
    return [torch.randn(batch, channels, side // stride, side // stride) for stride in STRIDES]


@pytest.mark.parametrize(
    ("side", "level"),
    [(0, 0), (1, 0), (56, 0), (111.9, 0), (112, 1), (223.9, 1), (224, 2), (447.9, 2), (448, 3), (4000, 3)],
)
def test_level_of_a_box(side: float, level: int) -> None:
    boxes = torch.tensor([[5.0, 7.0, 5 + side, 7 + side], [5.0, 7.0, 5 + side * 2, 7 + side / 2]])
    assert level_of_boxes(boxes).tolist() == [level, level]


def test_every_region_is_read_from_its_level_and_image() -> None:
    levels = maps()
    boxes = [
        torch.tensor([[10.0, 20.0, 60.0, 55.0], [3.0, 4.0, 500.0, 480.0], [0.0, 0.0, 130.0, 120.0]]),
        torch.tensor([[100.0, 90.0, 400.0, 300.0], [33.3, 44.4, 34.0, 45.0]]),
    ]
    aligned = RoIAlign(7)(levels, boxes)
    assert aligned.shape == (5, 3, 7, 7)
    expected = [(0, 0, 0), (0, 1, 3), (0, 2, 1), (1, 0, 2), (1, 1, 0)]  # image, box, level
    for region, (image, box, level) in zip(aligned, expected, strict=True):
        one = [boxes[image][box][None]]
        torch.testing.assert_close(
            region[None],
            roi_align(levels[level][image, None], one, 7, 1 / STRIDES[level], sampling_ratio=0, aligned=True),
        )


def regions() -> torch.Tensor:
    """200 of two images of 240 x 186 pixels: small and large, without area, far outside."""
    corner = torch.rand(200, 2) * torch.tensor([170.0, 220.0]) - 30
    side = torch.rand(200, 2) ** 3 * 260
    side[:5] = 0  # no area
    side[5:8, 0] = 0.01
    corner[8:12] = torch.tensor([900.0, -700.0])  # far outside
    return torch.cat((torch.randint(2, (200, 1)).float(), corner, corner + side), dim=1)


@pytest.mark.parametrize("resolution", [7, 14])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_products_are_roi_align(resolution: int, layout: torch.memory_format) -> None:
    level = torch.randn(2, 5, 40, 31).contiguous(memory_format=layout)
    rois = regions()
    expected = roi_align(level, rois, resolution, 1 / 6, sampling_ratio=0, aligned=True)
    torch.testing.assert_close(align_by_products(level, rois, resolution, 6), expected, atol=1e-4, rtol=1e-4)


def test_inference_reads_the_same_as_training() -> None:
    levels = maps(channels=4)
    boxes = [torch.tensor([[10.0, 20.0, 60.0, 55.0], [3.0, 4.0, 500.0, 480.0]]), torch.zeros(0, 4)]
    with torch.no_grad():
        fast = RoIAlignByProducts(7)(levels, boxes)
    torch.testing.assert_close(fast, RoIAlign(7)(levels, boxes), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        assert RoIAlignByProducts(7)(levels, [boxes[1]]).shape == (0, 4, 7, 7)


def test_no_boxes() -> None:
    levels = [level.requires_grad_() for level in maps()]
    aligned = RoIAlign(14)(levels, [torch.zeros(0, 4), torch.zeros(0, 4)])
    assert aligned.shape == (0, 3, 14, 14)
    aligned.sum().backward()
    assert all((level.grad == 0).all() for level in levels)


def test_every_level_has_a_gradient() -> None:
    levels = [level.requires_grad_() for level in maps(batch=1)]
    RoIAlign(7)(levels, [torch.tensor([[0.0, 0.0, 20.0, 20.0]])]).sum().backward()
    assert [bool((level.grad != 0).any()) for level in levels] == [True, False, False, False]


# bfloat16 knows 900 and 904, nothing between; half a finest cell further the ramp below is 0.5 higher.
CORNERS = torch.tensor([[902.0, 902.0, 938.0, 938.0]])
RAMP = (torch.arange(300.0) - 230)[None, None, None].expand(1, 1, 300, 300)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_corners_are_not_rounded_to_the_levels_dtype(dtype: torch.dtype) -> None:
    aligned = RoIAlign(7)([RAMP.to(dtype)] * 4, [CORNERS])
    assert aligned.dtype == dtype
    torch.testing.assert_close(aligned.float(), RoIAlign(7)([RAMP] * 4, [CORNERS]), atol=0.04, rtol=0)


def test_corners_are_not_rounded_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        aligned = RoIAlign(7)([RAMP.bfloat16()] * 4, [CORNERS])
    torch.testing.assert_close(aligned.float(), RoIAlign(7)([RAMP] * 4, [CORNERS]), atol=0.04, rtol=0)


def test_other_strides_move_the_levels() -> None:
    boxes = torch.tensor([[0.0, 0.0, 97.0, 97.0], [0.0, 0.0, 99.0, 99.0]])
    assert level_of_boxes(boxes, (3.5, 7, 14, 28)).tolist() == [0, 1]
    levels = [torch.randn(1, 3, 40, 40) for _ in range(4)]
    aligned = RoIAlign(7, (3.5, 7, 14, 28))(levels, [boxes])
    for index in range(2):
        torch.testing.assert_close(
            aligned[index, None],
            roi_align(levels[index], [boxes[index, None]], 7, 1 / (3.5 * 2**index), sampling_ratio=0, aligned=True),
        )


@pytest.mark.parametrize("resolution", [7, 14])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_training_takes_the_same_gradient(resolution: int, layout: torch.memory_format) -> None:
    level = torch.randn(2, 5, 40, 31, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    rois = regions().double()
    plain = RoIAlign(resolution).align(level, rois, 6)
    lean = RoIAlignByProducts(resolution).align(level, rois, 6)
    torch.testing.assert_close(lean, plain, atol=1e-10, rtol=1e-10)
    toward = torch.randn_like(plain)
    (expected,), (gradient,) = (torch.autograd.grad(aligned, level, toward) for aligned in (plain, lean))
    torch.testing.assert_close(gradient, expected, atol=1e-10, rtol=1e-10)


def test_training_levels_without_regions_have_a_gradient() -> None:
    align = RoIAlign(7)
    choose(align.train(), "train", torch.device("cpu"))
    assert type(align) is RoIAlignByProducts
    levels = [level.requires_grad_() for level in maps(batch=1)]
    align(levels, [torch.tensor([[10.0, 20.0, 40.0, 45.0]])]).sum().backward()
    assert [level.grad is not None and bool(level.grad.any()) for level in levels] == [True, False, False, False]
    assert all(level.grad is not None for level in levels)
