"""Geometry, targets and randomness of the transforms."""

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torchvision import tv_tensors

from piip.config import Preprocess
from piip.data.augmentation import Augmentation, RandomCrop, from_scratch, multi_scale
from piip.data.detection.steps import shown_after
from piip.data.detection.transforms import TestTransform, TrainTransform
from piip.data.seeding import seeded
from piip.data.surround import Shown
from piip.data.transforms import keep_ratio_size, resize_keep_ratio

PREPROCESS = Preprocess(long_side=128, short_side=96)


def scene(height: int, width: int, boxes: list[list[int]]) -> tuple:
    """A black image with a bright rectangle per box (each its own grey), boxes, labels and masks."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    masks = torch.zeros(len(boxes), height, width, dtype=torch.uint8)
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        image[:, y1:y2, x1:x2] = 255 - 40 * i
        masks[i, y1:y2, x1:x2] = 1
    labels = torch.arange(len(boxes))
    return image, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels, lambda kept: masks[kept]


def bounds(mask: torch.Tensor) -> list[float]:
    rows, columns = torch.nonzero(mask.any(dim=1)), torch.nonzero(mask.any(dim=0))
    return [columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1]


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        ((480, 640), (1120, 672), (672, 896)),
        ((427, 640), (1120, 672), (672, 1007)),  # 1007.2
        ((640, 427), (1120, 672), (1007, 672)),
        ((333, 500), (1333, 800), (800, 1201)),  # 1201.2
        ((300, 1000), (1333, 800), (400, 1333)),
        ((1, 5000), (1120, 672), (1, 1120)),  # 0.2 would vanish
        ((1, 1), (1120, 672), (672, 672)),
    ],
)
def test_keep_ratio_size(size, limits, expected):
    assert keep_ratio_size(size, *limits) == expected


def test_resize_is_bilinear_without_antialiasing():
    """Against the definition, with pixel centres at half coordinates, in floats; uint8 is within one level."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, 40, 60), dtype=np.uint8)
    out = resize_keep_ratio(torch.from_numpy(image), long_side=25, short_side=25)
    assert out.shape == (3, 17, 25)

    def lines(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        centres = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, None)
        low = np.floor(centres).astype(int)
        return low, np.minimum(low + 1, old - 1), centres - low

    y0, y1, fy = lines(40, 17)
    x0, x1, fx = lines(60, 25)
    rows = image[:, y0] * (1 - fy)[:, None] + image[:, y1] * fy[:, None]
    expected = rows[..., x0] * (1 - fx) + rows[..., x1] * fx
    assert np.abs(out.numpy() - expected).max() <= 1.01


def test_masks_are_resized_by_nearest_neighbour():
    mask = tv_tensors.Mask(torch.eye(8, dtype=torch.uint8)[None])
    out = resize_keep_ratio(mask, long_side=16, short_side=16)
    assert torch.equal(out[0], torch.eye(8, dtype=torch.uint8).repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_test_transform_normalises_and_scales_targets():
    image, boxes, labels, masks = scene(30, 60, [[0, 0, 60, 30], [6, 3, 30, 18]])
    out, target = TestTransform(PREPROCESS)(image, boxes, labels, masks)
    assert out.shape == (3, 64, 128)
    assert out.dtype == torch.float32
    assert out[:, 63, 127].tolist() == [1.0, 1.0, 1.0]
    factors = torch.tensor([128 / 60, 64 / 30, 128 / 60, 64 / 30])
    assert torch.allclose(target.boxes, boxes * factors)
    assert target.labels.tolist() == [0, 1]
    assert target.masks.shape == (2, 64, 128)
    assert type(target.boxes) is torch.Tensor
    assert type(out) is torch.Tensor
    assert torch.equal(out, TestTransform(PREPROCESS).image(image))


AUGMENTATIONS = {
    "flip": Augmentation(flip=1.0),
    "turn": Augmentation(turn=1.0),
    "zoom in": Augmentation(zoom=(2.0, 2.0)),
    "zoom out": Augmentation(zoom=(0.5, 0.5)),
    "from scratch": from_scratch(),
    "multi-scale": Augmentation(scales=(40, 60, 80, 96)),
    "crop": Augmentation(scales=(64, 96), crop=RandomCrop(scales=(60, 80), sides=(30, 60), probability=1.0)),
    "largest": Augmentation(largest=50),
    "recipe": multi_scale(0.1, 90),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("size", [(60, 100), (100, 60), (40, 203)])
def test_boxes_and_masks_follow_the_image(name, size):
    """The bright rectangle, its box and its mask stay on each other, whatever is done to the image."""
    height, width = size
    box = [width // 4, height // 4, width // 4 * 3, height // 4 * 3]
    transform = TrainTransform(PREPROCESS, AUGMENTATIONS[name].model_copy(update={"colour": 0.0}))
    met = 0
    for seed in range(12):
        with seeded(seed):
            out, target = transform(*scene(height, width, [box]))
        out_height, out_width = out.shape[1:]
        assert target.masks.shape == (len(target.boxes), out_height, out_width)
        if not len(target.boxes):
            continue
        met += 1
        placed = target.boxes[0]
        assert (placed >= 0).all()
        assert (placed <= torch.tensor([out_width, out_height] * 2)).all()
        assert np.abs(np.array(bounds(target.masks[0])) - placed.numpy()).max() <= 4, "two resizes, each by a pixel"
        bright = out[0] > 0
        overlap = (bright & (target.masks[0] > 0)).sum() / (bright | (target.masks[0] > 0)).sum()
        assert overlap > 0.6
    assert met > 0


def test_flip_is_exact():
    transform = TrainTransform(Preprocess(long_side=10, short_side=6), Augmentation(flip=1.0))
    image = torch.arange(180, dtype=torch.uint8).reshape(3, 6, 10)
    out, target = transform(image, torch.tensor([[1.0, 2.0, 4.0, 5.0]]), torch.tensor([3]))
    assert torch.equal(out, (image.flip(-1).float() - 127.5) / 127.5)
    assert target.boxes.tolist() == [[6.0, 2.0, 9.0, 5.0]]
    assert target.masks is None


def test_turns_are_exact_and_show_an_image_in_all_eight_ways():
    image = torch.arange(180, dtype=torch.uint8).reshape(3, 6, 10)
    transform = TrainTransform(Preprocess(long_side=10, short_side=6), Augmentation(turn=0.75))
    ways = {}
    for seed in range(60):
        with seeded(seed):
            out, target = transform(image, torch.tensor([[1.0, 2.0, 4.0, 5.0]]), torch.tensor([3]))
        ways[tuple(out.shape[1:]), tuple(out.flatten().tolist())] = target.boxes[0].tolist()
    plain = (image.float() - 127.5) / 127.5
    boxes = {(False, 0): [1, 2, 4, 5], (True, 0): [6, 2, 9, 5], (False, 1): [2, 6, 5, 9], (True, 1): [2, 1, 5, 4],
             (False, 2): [6, 1, 9, 4], (True, 2): [1, 1, 4, 4],
             (False, 3): [1, 1, 4, 4], (True, 3): [1, 6, 4, 9]}  # fmt: skip
    expected = {}
    for (flip, quarters), box in boxes.items():
        way = torch.rot90(plain.flip(-1) if flip else plain, quarters, (1, 2))
        expected[tuple(way.shape[1:]), tuple(way.flatten().tolist())] = box
    assert ways == expected


def test_without_turns_the_other_random_numbers_are_what_they_were():
    with seeded(3):
        TrainTransform(PREPROCESS, Augmentation())(*scene(30, 60, [[0, 0, 60, 30]]))
        after = torch.rand(())
    with seeded(3):
        torch.rand(())  # the flip's
        assert torch.rand(()) == after


def test_what_a_crop_cuts_away_is_gone_with_label_and_mask():
    boxes = [[0, 20, 30, 40], [70, 60, 100, 80], [45, 40, 55, 60]]
    transform = TrainTransform(Preprocess(long_side=100, short_side=100), Augmentation(flip=0.0, largest=50))
    seen = set()
    for seed in range(20):
        with seeded(seed):
            out, target = transform(*scene(100, 100, boxes))
        assert out.shape == (3, 50, 50)
        assert len(target.labels) == len(target.boxes) == len(target.masks)
        assert ((target.boxes[:, 2:] - target.boxes[:, :2]) >= 1).all()
        for label, mask in zip(target.labels.tolist(), target.masks, strict=True):
            grey = (255 - 40 * label - 127.5) / 127.5
            assert torch.allclose(out[0][mask > 0], torch.tensor(grey))
        seen.add(tuple(target.labels.tolist()))
    assert len(seen) > 1


def test_only_kept_objects_cost_a_mask_and_few_at_a_time(monkeypatch):
    monkeypatch.setattr("piip.data.detection.transforms.MASK_BYTES", 3 * 40 * 60)
    asked: list[list[int]] = []

    def masks(positions: list[int]) -> torch.Tensor:
        asked.append(positions)
        return torch.ones(len(positions), 40, 60, dtype=torch.uint8)

    boxes = torch.tensor([[0.0, 0.0, 60.0, 40.0]] * 8)
    boxes[4] = torch.tensor([5.0, 5.0, 5.2, 20.0])
    _, target = TestTransform(PREPROCESS)(torch.zeros(3, 40, 60, dtype=torch.uint8), boxes, torch.arange(8), masks)
    assert asked == [[0, 1, 2], [3, 5, 6], [7]]
    assert target.labels.tolist() == [0, 1, 2, 3, 5, 6, 7]


def test_objects_without_a_visible_pixel_are_dropped():
    image, boxes, labels, _ = scene(40, 60, [[0, 0, 20, 20], [20, 20, 40, 40]])
    empty_first = torch.zeros(2, 40, 60, dtype=torch.uint8)
    empty_first[1, 25:35, 25:35] = 1
    _, target = TestTransform(PREPROCESS)(image, boxes, labels, lambda kept: empty_first[kept])
    assert target.labels.tolist() == [1]
    assert len(target.masks) == len(target.boxes) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (15, 15), (96, 128), (97, 129)])
@pytest.mark.parametrize("augmentation", [Augmentation(), from_scratch(), multi_scale(0.2, 100)])
def test_odd_sizes_and_images_without_objects(size, augmentation):
    image, boxes, labels, masks = scene(*size, [])
    for seed in range(5):
        with seeded(seed):
            out, target = TrainTransform(PREPROCESS, augmentation)(image, boxes, labels, masks)
        assert out.isfinite().all()
        assert min(out.shape) >= 1
        assert target.boxes.shape == (0, 4)
        assert target.labels.shape == (0,)
        assert target.masks.shape == (0, *out.shape[1:])


def test_the_same_seed_gives_the_same_and_another_another():
    transform = TrainTransform(PREPROCESS, from_scratch())
    arguments = scene(60, 100, [[20, 20, 60, 50]])

    def run(seed: int) -> torch.Tensor:
        with seeded(seed):
            return transform(*arguments)[0]

    assert torch.equal(run(1), run(1))
    assert run(1).shape != run(2).shape or not torch.equal(run(1), run(2))


def test_sizes_stay_within_the_recipe():
    """The recipe's sizes: multiples of 32 as short side if not cut, at most 1024 either way."""
    transform = TrainTransform(Preprocess(long_side=1333, short_side=800), multi_scale())
    sides = set()
    for seed in range(60):
        with seeded(seed):
            steps = transform.steps((480, 640))
            size = shown_after(steps, Shown.tile(0, 0, 640, 480)).size
        assert max(size) <= 1024
        sides.add(min(size))
    assert {480, 800} <= sides
    assert sides <= set(range(480, 801, 32)) | set(range(300, 480))


def test_recipes_are_those_of_the_released_configs(goldens):
    folder = goldens.parent / "configs" / "mmdetection"
    for file, augmentation in {
        "mask_rcnn_internvit_h6b_1024_512_fpn_1x_coco_bs16_ms.json": multi_scale(),
        "dino_4scale_internvit_lh6b_1536_1024_512_fpn_2x_coco_bs32_ms.json": multi_scale(1.5, 1536),
        "dino_4scale_deit_384_sbl_1792_1120_672_fpn_3x_coco_bs32_ms.json": multi_scale(1.75, 1792),
    }.items():
        pipeline = {step["type"]: step for step in json.loads((folder / file).read_text())["train_pipeline"]}
        scales, (first, crop, again) = (policy for policy in pipeline["AutoAugment"]["policies"])
        shorts = tuple(short for short, _ in scales[0]["img_scale"])
        assert shorts == augmentation.scales == tuple(short for short, _ in again["img_scale"])
        assert {long for _, long in scales[0]["img_scale"] + first["img_scale"]} == {augmentation.long_side}
        assert tuple(short for short, _ in first["img_scale"]) == augmentation.crop.scales
        assert tuple(crop["crop_size"]) == augmentation.crop.sides
        assert pipeline["RandomCrop"]["crop_size"] == [augmentation.largest] * 2
        assert pipeline["RandomFlip"]["flip_ratio"] == augmentation.flip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flip": 1.5}, "flip"),
        ({"crop": {}}, "needs `scales`"),
        ({"zoom": (1.5, 0.5)}, "must not be larger"),
        ({"zoom": (0.5, 1.5), "scales": (400,)}, "either `zoom` or `scales`"),
        ({"scales": ()}, "scales"),
        ({"scales": (400,), "crop": {"sides": (600, 384)}}, "sides"),
        ({"flips": 0.5}, "flips"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        Augmentation(**values)
