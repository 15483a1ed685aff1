import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from piip import config
from piip.heads.mask_rcnn.mask import MaskHead, kept_masks, mask_targets, paste_masks
from piip.heads.mask_rcnn.matching import Sample
from piip.structures import Instances

SIZE = (60, 83)


def random_boxes(count: int, largest: float, size: tuple[int, int] = SIZE) -> Tensor:
    """Boxes of 0 to `largest` pixels, some partly or wholly outside the image."""
    centre = (torch.rand(count, 2) * 1.4 - 0.2) * torch.tensor([size[1], size[0]])
    side = torch.rand(count, 2) * largest + 1e-3
    return torch.cat((centre - side / 2, centre + side / 2), dim=1)


def whole_image_paste(probabilities: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Probabilities of every pixel: the mask sampled bilinearly over the whole image, in float64."""
    x1, y1, x2, y2 = (side[:, None] for side in boxes.double().unbind(1))
    x = (torch.arange(size[1]) + 0.5 - x1) / (x2 - x1) * 2 - 1
    y = (torch.arange(size[0]) + 0.5 - y1) / (y2 - y1) * 2 - 1
    grid = torch.stack((x[:, None].expand(-1, size[0], -1), y[:, :, None].expand(-1, -1, size[1])), dim=-1)
    return F.grid_sample(probabilities[:, None].double(), grid, align_corners=False)[:, 0]


@pytest.mark.parametrize("largest", [0.5, 3, 20, 200])
def test_paste_equals_sampling_over_the_whole_image(largest: float) -> None:
    probabilities, boxes = torch.rand(60, 28, 28), random_boxes(60, largest)
    expected = whole_image_paste(probabilities, boxes, SIZE)
    masks = paste_masks(probabilities, boxes, SIZE)
    assert masks.shape == (60, *SIZE)
    assert masks.dtype == torch.bool
    clear = (expected - 0.5).abs() > 1e-3  # not where rounding decides
    assert clear.float().mean() > 0.9
    assert torch.equal(masks[clear], (expected >= 0.5)[clear])
    assert masks.any()


def test_paste_of_a_certain_mask_covers_the_pixels_with_their_centre_in_the_box() -> None:
    boxes = torch.tensor([[10.0, 5.0, 20.0, 8.0], [-4.0, -6.0, 3.0, 2.0], [70.4, 50.4, 200.0, 90.0]])
    masks = paste_masks(torch.full((3, 28, 28), 0.99), boxes, SIZE)
    expected = torch.zeros(3, *SIZE, dtype=torch.bool)
    expected[0, 5:8, 10:20] = True
    expected[1, :2, :3] = True
    expected[2, 50:, 70:] = True
    # A pixel on the rim of the box lies less than half a mask cell inside and may lose to the zeros outside.
    assert ((masks ^ expected).sum((1, 2)) <= torch.tensor([0, 0, 1 * 13 + 10])).all()
    assert torch.equal(masks[:2], expected[:2])


def test_paste_orientation() -> None:
    probabilities = torch.zeros(1, 28, 28)
    probabilities[0, :14, 14:] = 1  # top right
    mask = paste_masks(probabilities, torch.tensor([[10.0, 20.0, 66.0, 48.0]]), SIZE)[0]
    rows, columns = mask.nonzero().T
    assert (rows.min(), rows.max()) == (20, 33)
    assert columns.min() in (37, 38)
    assert columns.max() == 65


@pytest.mark.parametrize(
    "box",
    [
        [5.0, 5.0, 5.0, 9.0],
        [5.0, 9.0, 8.0, 9.0],
        [8.0, 8.0, 5.0, 5.0],
        [200.0, 5.0, 300.0, 9.0],
        [-9.0, -9.0, -5.0, -5.0],
    ],
)
def test_paste_of_a_box_without_area_or_outside_is_empty(box: list[float]) -> None:
    masks = paste_masks(torch.ones(1, 28, 28), torch.tensor([box]), SIZE)
    assert masks.shape == (1, *SIZE)
    assert not masks.any()


def test_paste_of_nothing() -> None:
    masks = paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), SIZE)
    assert masks.shape == (0, *SIZE)
    assert masks.dtype == torch.bool


def test_autocast_changes_neither_paste_nor_targets() -> None:
    probabilities, boxes = torch.rand(20, 28, 28), random_boxes(20, 90)
    target = Instances(boxes, torch.zeros(20, dtype=torch.long), torch.randint(0, 2, (20, *SIZE), dtype=torch.uint8))
    everyone = torch.arange(20)
    masks, targets = paste_masks(probabilities, boxes, SIZE), mask_targets(boxes, everyone, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(paste_masks(probabilities, boxes, SIZE), masks)
        assert torch.equal(mask_targets(boxes, everyone, target), targets)


@pytest.mark.parametrize("largest", [1, 10, 40, 150])
def test_targets_equal_roi_align_of_the_masks(largest: float) -> None:
    rows, columns = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    centres = torch.rand(6, 2, 1, 1) * torch.tensor(SIZE)[:, None, None]
    masks = ((rows - centres[:, 0]) ** 2 + (columns - centres[:, 1]) ** 2 < 400) & (torch.rand(6, *SIZE) < 0.97)
    target = Instances(torch.zeros(6, 4), torch.zeros(6, dtype=torch.long), masks.to(torch.uint8))
    boxes, objects = random_boxes(50, largest), torch.randint(0, 6, (50,))
    rois = torch.cat((objects[:, None].double(), boxes.double()), dim=1)
    soft = roi_align(masks[:, None].double(), rois, 28, sampling_ratio=0, aligned=True)[:, 0]
    actual = mask_targets(boxes, objects, target)
    clear = (soft - 0.5).abs() > 1e-3
    assert clear.float().mean() > 0.9
    assert torch.equal(actual[clear], (soft >= 0.5).float()[clear])
    assert 0 < actual.mean() < 1


def test_targets_of_the_objects_own_box() -> None:
    masks = torch.zeros(1, *SIZE, dtype=torch.uint8)
    masks[0, 10:38, 20:48] = 1
    boxes = torch.tensor([[20.0, 10.0, 48.0, 38.0], [20.0, 10.0, 76.0, 38.0]])
    wanted = mask_targets(boxes, torch.zeros(2, dtype=torch.long), Instances(boxes[:1], torch.zeros(1), masks))
    assert (wanted[0] == 1).all()
    assert (wanted[1, :, :14] == 1).all()
    assert (wanted[1, :, 14:] == 0).all()


def test_loss_and_prediction_read_the_objects_own_class() -> None:
    head = MaskHead(config.MaskRCNN(channels=8, mask_convs=1), classes=3)
    levels = [torch.randn(2, 8, 64 // stride, 64 // stride) for stride in (4, 8, 16, 32)]
    boxes = [torch.tensor([[3.0, 4.0, 40.0, 50.0], [9.0, 9.0, 20.0, 30.0]]), torch.tensor([[1.0, 2.0, 30.0, 60.0]])]
    masks = torch.randint(0, 2, (2, 64, 64), dtype=torch.uint8)
    targets = [
        Instances(boxes[0], torch.tensor([2, 0]), masks),
        Instances(boxes[1], torch.tensor([1]), masks[:1]),
    ]
    negatives = [torch.rand(4, 4), torch.rand(1, 4)]  # come after the positives and must not be read
    sampled = [torch.cat(pair) for pair in zip(boxes, negatives, strict=True)]
    none = torch.zeros(0, dtype=torch.long)
    samples = [Sample(torch.arange(2), none, torch.tensor([1, 0])), Sample(torch.arange(1), none, torch.tensor([0]))]
    logits = head(levels, boxes)
    assert logits.shape == (3, 3, 28, 28)
    wanted = torch.cat(
        [mask_targets(box, chosen.objects, target) for box, chosen, target in zip(boxes, samples, targets, strict=True)]
    )
    own = torch.stack((logits[0, 0], logits[1, 2], logits[2, 1]))
    expected = F.binary_cross_entropy(own.sigmoid(), wanted)
    torch.testing.assert_close(head.loss(levels, sampled, samples, targets)["loss_mask"], expected)
    first, second = head.predict(levels, boxes, [torch.tensor([0, 2]), torch.tensor([1])])
    torch.testing.assert_close(first, own[:2].sigmoid())
    torch.testing.assert_close(second, own[2:].sigmoid())
    assert not first.requires_grad


def test_kept_masks_are_the_pasted_ones():
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[-5.0, 3, 20.5, 30], [7, 8, 7, 20], [30.2, 30.7, 33.1, 90], [0, 0, 50, 40], [60, 1, 80, 9]])
    probabilities = torch.rand((len(boxes), 28, 28), generator=generator)
    kept = kept_masks({"mask_probabilities": probabilities, "boxes": boxes}, (40, 50))
    assert kept is not None
    assert torch.equal(kept.dense(), paste_masks(probabilities, boxes, (40, 50)))
    assert kept_masks({"boxes": boxes}, (40, 50)) is None
