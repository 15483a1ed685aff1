"""Samples of a detection data set: targets, frames, randomness, failures."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from coco_records import HEIGHT, WIDTH, annotation, image
from PIL import Image

from piip.config import Preprocess
from piip.data import decode
from piip.data.augmentation import from_scratch, multi_scale
from piip.data.detection.coco import read_coco
from piip.data.detection.dataset import DetectionDataset
from piip.data.detection.transforms import TestTransform, TrainTransform
from piip.data.image_files import ImageError

PREPROCESS = Preprocess(long_side=WIDTH, short_side=HEIGHT)
CROWD = {"iscrowd": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [600, 600]}}


def test_sample(write):
    data, _ = read_coco(*write([annotation(1), annotation(2, **CROWD), annotation(3, image_id=2, category_id=7)]))
    dataset = DetectionDataset(data, TestTransform(PREPROCESS))
    assert len(dataset) == 2
    sample = dataset[0, 1]
    assert (sample.index, sample.original_size, sample.image.shape) == (1, (HEIGHT, WIDTH), (3, HEIGHT, WIDTH))
    assert sample.target.labels.tolist() == [1]
    first = dataset[0, 0].target
    assert first.boxes.tolist() == [[4, 6, 16, 16]], "the crowd region is no target"
    assert first.masks.dtype == torch.uint8
    assert first.masks[0, 6:16, 4:16].all()
    assert first.masks.sum() == 120
    assert dataset.file_of(1).endswith("2.png")


def test_masks_only_where_wanted_and_there(write):
    data, _ = read_coco(*write())
    assert DetectionDataset(data, TestTransform(PREPROCESS), masks=False)[0, 0].target.masks is None
    boxes_only, _ = read_coco(*write([annotation(segmentation=[])]))
    assert DetectionDataset(boxes_only, TestTransform(PREPROCESS))[0, 0].target.masks is None


def test_images_without_objects(write):
    records = [annotation(1, **CROWD), annotation(2, image_id=2)]
    images = [image(1), image(2), image(3)]
    data, _ = read_coco(*write(records, images=images, files=("1.png", "2.png", "3.png")))
    empty = DetectionDataset(data, TestTransform(PREPROCESS))[0, 0].target
    assert (empty.boxes.shape, empty.labels.shape, empty.masks.shape) == ((0, 4), (0,), (0, HEIGHT, WIDTH))
    assert len(DetectionDataset(data, TestTransform(PREPROCESS))) == 3
    dataset = DetectionDataset(data, TestTransform(PREPROCESS), keep_empty=False)
    # A crowd is an annotation: the official filter keeps its image, too.
    assert [dataset[0, position].index for position in range(len(dataset))] == [0, 1]


def test_orientations_are_those_of_the_images_that_are_drawn_from(write):
    records = [annotation(i, image_id=i) for i in (2, 3, 4)]
    data, _ = read_coco(
        *write(records, images=[image(i) for i in range(1, 5)], files=[f"{i}.png" for i in range(1, 5)])
    )
    sizes = [(30, 40), (40, 30), (30, 30), (49, 50)]  # height, width
    data = replace(
        data, images=tuple(replace(record, size=size) for record, size in zip(data.images, sizes, strict=True))
    )
    dataset = DetectionDataset(data, TestTransform(PREPROCESS))
    assert dataset.orientations() == [1, 0, 0, 1]
    assert DetectionDataset(data, TestTransform(PREPROCESS), keep_empty=False).orientations() == [0, 0, 1]
    assert DetectionDataset(data, TestTransform(PREPROCESS), smallest=31).indices == [3]


def test_randomness_follows_from_seed_epoch_and_image_alone(write):
    data, _ = read_coco(*write())

    def pixels(seed: int, epoch: int, position: int = 0) -> torch.Tensor:
        dataset = DetectionDataset(data, TrainTransform(PREPROCESS, from_scratch()), seed=seed)
        return dataset[epoch, position].image

    first = pixels(1, 0)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert torch.equal(first, pixels(1, 0))
    assert torch.equal(before, torch.get_rng_state()), "the model's randomness must not depend on the data's"
    for other in (pixels(2, 0), pixels(1, 1), pixels(1, 0, 1)):
        assert other.shape != first.shape or not torch.equal(other, first)


@pytest.mark.parametrize("frame", ["stored", "upright"])
def test_a_rotated_image_is_read_in_the_frame_of_its_annotations(write, frame):
    """A white rectangle in a turned JPEG, annotated in either frame, is where its box is."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[8:16, 16:32] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    if frame == "stored":
        record = image(1, file_name="1.jpg")
        box = [16, 8, 16, 8]
    else:  # turned clockwise: x = HEIGHT - y, y = x
        record = image(1, file_name="1.jpg", width=HEIGHT, height=WIDTH)
        box = [HEIGHT - 16, 16, 8, 16]
    path, folder = write([annotation(bbox=box, segmentation=[])], images=[record], files=())
    Image.fromarray(pixels).save(folder / "1.jpg", exif=exif, quality=95)
    data, _ = read_coco(path, folder)
    sample = DetectionDataset(data, TestTransform(Preprocess(long_side=40, short_side=30)))[0, 0]
    assert sample.original_size == (record["height"], record["width"])
    x1, y1, x2, y2 = (int(v) for v in sample.target.boxes[0])
    bright = sample.image[0] > 0
    assert bright[y1:y2, x1:x2].float().mean() > 0.95
    assert bright.sum() == pytest.approx(128, abs=20)


def test_a_file_that_fails_or_changes_later_is_named(write):
    path, folder = write()
    data, _ = read_coco(path, folder)
    dataset = DetectionDataset(data, TestTransform(PREPROCESS))
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"1\.png: broken or truncated"):
        dataset[0, 0]
    Image.new("RGB", (9, 9)).save(folder / "2.png")
    with pytest.raises(ImageError, match=r"2\.png: 9 x 9 pixels, but 40 x 30.*changed"):
        dataset[0, 1]


def test_many_objects(write):
    records = [annotation(i, bbox=[i % 30, i % 20, 8, 8]) for i in range(1, 301)]
    data, _ = read_coco(*write(records))
    target = DetectionDataset(data, TestTransform(PREPROCESS))[0, 0].target
    assert len(target.boxes) == len(target.masks) == 300


def test_real_masks_fill_their_boxes(coco100):
    """On COCO, after random transforms: a mask's bounds and its box agree, but for the annotators' rounding."""
    data, _ = read_coco(coco100 / "annotations" / "instances_train2017.json", coco100 / "train2017")
    dataset = DetectionDataset(data, TrainTransform(Preprocess(long_side=320, short_side=200), from_scratch()))
    differences = []
    for position in range(len(dataset)):
        sample = dataset[0, position]
        for box, mask in zip(sample.target.boxes, sample.target.masks, strict=True):
            rows, columns = torch.nonzero(mask.any(1))[:, 0], torch.nonzero(mask.any(0))[:, 0]
            own = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            differences.append((own - box).abs().max().item())
    assert len(differences) > 350
    assert np.median(differences) < 1
    assert np.quantile(differences, 0.9) < 3


@pytest.mark.parametrize("make", [TestTransform, lambda small: TrainTransform(small, from_scratch()),
                                  lambda small: TrainTransform(small, multi_scale(0.004))])  # fmt: skip
def test_a_large_photo_is_decoded_smaller_to_the_same_targets(write, make, monkeypatch):
    data, _ = read_coco(*write([annotation(1)]))
    record = data.images[0]
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    Image.fromarray(np.stack([5 * rows, 4 * columns, 60 + rows + columns], axis=-1).astype(np.uint8)).save(record.path)
    dataset = DetectionDataset(data, make(Preprocess(long_side=WIDTH // 8, short_side=HEIGHT // 8)), seed=1)
    whole = dataset[0, 0]
    monkeypatch.setattr(decode, "LARGE", 0)
    seen = []
    monkeypatch.setattr(decode, "_reduced", lambda image, part: seen.append(part) or image.reduce(part))
    small = dataset[0, 0]
    assert seen
    assert (small.original_size, small.image.shape) == (whole.original_size, whole.image.shape)
    assert torch.equal(small.target.boxes, whole.target.boxes)
    assert torch.equal(small.target.masks, whole.target.masks)
    assert (small.image - whole.image).abs().mean() < 0.25  # of a standard deviation of pixels
