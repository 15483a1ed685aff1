"""Drawings stay inside the image, show what they are told to and cope with any size."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from piip.config import Preprocess
from piip.pictures.colours import area_colour, class_colour
from piip.pictures.objects import draw_detections, draw_object_batch
from piip.pictures.tags import font_size_for, place_among, texts_of
from piip.structures import Batch, Instances


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, dtype=np.uint8)


def test_the_box_has_the_colour_of_its_class_and_its_place():
    drawn = draw_detections(grey(60, 80), torch.tensor([[10.0, 20.0, 50.0, 40.0]]), torch.tensor([1]))
    for y, x in ((20, 12), (39, 30), (30, 10), (30, 49)):
        assert tuple(drawn[y, x]) == class_colour(1)
    assert (drawn[23:37, 13:47] == 128).all()
    assert (drawn[41:] == 128).all()
    assert (drawn[:, 51:] == 128).all()


def test_the_mask_is_tinted_and_outlined():
    mask = torch.zeros(1, 60, 80, dtype=torch.bool)
    mask[0, 20:40, 30:60] = True
    drawn = draw_detections(grey(60, 80), torch.zeros(1, 4), torch.tensor([0]), None, mask)
    colour = np.array(class_colour(0))
    assert np.allclose(drawn[30, 45], np.round(128 * 0.75 + colour * 0.25), atol=1)
    assert np.allclose(drawn[20, 45], np.round(128 * 0.15 + colour * 0.85), atol=1)
    assert (drawn[50:, 60:] == 128).all()


def test_the_image_is_not_changed():
    image = grey(50, 50)
    draw_detections(image, torch.tensor([[0.0, 0.0, 50.0, 50.0]]), torch.tensor([0]), torch.tensor([0.5]))
    assert (image == 128).all()


def test_a_read_only_image_and_an_image_seen_from_elsewhere():
    image = grey(50, 100)
    image.setflags(write=False)
    drawn = draw_detections(image[:, ::2], torch.tensor([[5.0, 5.0, 45.0, 45.0]]), torch.tensor([0]))
    assert drawn.shape == (50, 50, 3)
    assert (drawn != 128).any()


@pytest.mark.parametrize("size", [(1, 1), (20, 20), (5, 900), (900, 5), (300, 200), (2100, 3000)])
def test_any_size_and_boxes_beyond_the_image(size):
    height, width = size
    boxes = torch.tensor(
        [
            [-50.0, -50.0, 2.0 * width, 2.0 * height],
            [0.4 * width, 0.4 * height, 0.4 * width, 0.4 * height],
            [width + 10.0, height + 10.0, width + 20.0, height + 20.0],
            [float("nan"), 0.0, float("inf"), 1.0],
        ]
    )
    names = ("a name that is much longer than the image is wide", "line\nbreak", "", "Größe")
    drawn = draw_detections(grey(*size), boxes, torch.arange(4), torch.linspace(0.1, 1.0, 4), None, names)
    assert drawn.shape == (height, width, 3)
    assert (drawn != 128).any()


def test_no_objects_and_a_mask_without_pixels():
    nothing = draw_detections(grey(50, 50), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    assert (nothing == 128).all()
    empty = torch.zeros(1, 50, 50, dtype=torch.bool)
    drawn = draw_detections(grey(50, 50), torch.tensor([[5.0, 5, 20, 20]]), torch.tensor([0]), None, empty)
    assert (drawn[30:, 30:] == 128).all()


def test_the_name_is_written_where_there_is_room():
    box, label = torch.tensor([[100.0, 100.0, 180.0, 180.0]]), torch.tensor([0])
    plain = draw_detections(grey(300, 300), box, label, None, None, ("x",))
    named = draw_detections(grey(300, 300), box, label, None, None, ("a longer name",))
    assert (plain != named).any()
    assert np.argwhere((plain != named).any(axis=2))[:, 0].max() < 100  # above the box, not in it


def test_labels_of_the_same_place_do_not_hide_each_other():
    boxes = torch.tensor([[100.0, 100.0, 180.0, 180.0]] * 3)
    drawn = draw_detections(grey(300, 300), boxes, torch.arange(3), torch.tensor([0.9, 0.8, 0.7]), None, "abc")
    for label in range(3):
        assert (drawn == np.array(class_colour(label))).all(axis=2).sum() > 100


def test_the_best_object_is_on_top():
    boxes = torch.tensor([[10.0, 10.0, 40.0, 40.0]] * 2)
    drawn = draw_detections(grey(50, 50), boxes, torch.tensor([0, 1]), torch.tensor([0.9, 0.1]))
    assert tuple(drawn[39, 25]) == class_colour(0)


def test_neighbouring_classes_have_different_colours():
    colours = np.array([class_colour(label) for label in range(90)], dtype=float)
    assert len({tuple(colour) for colour in colours}) == 90
    assert np.linalg.norm(colours[1:] - colours[:-1], axis=1).min() > 100


def test_areas_have_calm_colours_that_differ():
    colours = np.array([area_colour(label) for label in range(20)], dtype=float)
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=2) + 1000 * np.eye(20)
    assert apart.min() > 50
    assert (colours.max(axis=1) - colours.min(axis=1)).max() < 180  # of 255, which pure colours have


def test_areas_have_the_data_s_own_colours():
    own = ((1, 2, 3), None)
    assert [area_colour(label, own) for label in range(3)] == [(1, 2, 3), area_colour(1), area_colour(2)]


PREPROCESS = Preprocess(long_side=64, short_side=64, mean=(120.0, 110.0, 100.0), std=(50.0, 60.0, 70.0))


def batch_of(pixels: np.ndarray, targets: list[Instances]) -> Batch:
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (PREPROCESS.mean, PREPROCESS.std))
    sizes = [pixels.shape[1:3]] * len(pixels)
    return Batch((images - mean) / std, sizes, sizes, targets, list(range(len(pixels))))


def nothing() -> Instances:
    return Instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 32, 48, dtype=torch.uint8))


def test_the_mosaic_shows_the_original_pixels_enlarged():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), dtype=np.uint8)
    mosaic = draw_object_batch(batch_of(pixels, [nothing()] * 3), PREPROCESS)
    assert mosaic.shape == (32 * 13, 3 * 48 * 13, 3)
    assert np.array_equal(mosaic[6::13, 6::13], np.concatenate(list(pixels), axis=1))


def test_padding_that_all_images_have_is_not_shown_and_places_are_filled():
    pixels = np.full((7, 32, 48, 3), 100, dtype=np.uint8)
    batch = replace(batch_of(pixels, [nothing()] * 7), image_sizes=[(20, 30), (32, 24)] + [(8, 8)] * 5)
    mosaic = draw_object_batch(batch, PREPROCESS)
    times = 16  # 4 columns of 30 pixels in 1920
    assert mosaic.shape == (2 * 32 * times, 4 * 30 * times, 3)
    assert (mosaic[32 * times :, 3 * 30 * times :] == 255).all()
    assert (mosaic[32 * times :, : 3 * 30 * times] == 100).all()


def test_the_mosaic_shows_the_targets_at_their_place():
    pixels = np.full((1, 32, 48, 3), 100, dtype=np.uint8)
    masks = torch.zeros(1, 30, 40, dtype=torch.uint8)  # of an image that was padded to 32 x 48
    masks[0, 10:20, 10:20] = 1
    target = Instances(torch.tensor([[8.0, 8.0, 24.0, 24.0]]), torch.tensor([2]), masks)
    mosaic = draw_object_batch(batch_of(pixels, [target]), PREPROCESS, ("a", "b", "c"))
    assert tuple(mosaic[13 * 24 - 1, 13 * 16]) == class_colour(2)
    inside = (mosaic[13 * 10 : 13 * 20, 13 * 10 : 13 * 20] != 100).any(axis=2)
    assert inside.all()
    assert (mosaic[13 * 20 : 13 * 23, 13 * 9 : 13 * 23] == 100).all()
    assert (mosaic[:, 13 * 30 :] == 100).all()


def test_a_large_batch_becomes_a_mosaic_of_bounded_size():
    images = torch.zeros(20, 3, 700, 1000)
    target = Instances(torch.tensor([[0.0, 0.0, 1000.0, 700.0]]), torch.tensor([0]))
    batch = Batch(images, [(700, 1000)] * 20, [(700, 1000)] * 20, [target] * 20, list(range(20)))
    mosaic = draw_object_batch(batch, PREPROCESS)
    assert max(mosaic.shape) <= 1920
    assert mosaic.shape[0] == 4 * round(700 * 0.48)


def test_hundreds_of_labels_hide_neither_each_other_nor_an_object():
    rng = np.random.default_rng(0)
    corner = np.stack(np.meshgrid(np.arange(25), np.arange(12)), axis=-1).reshape(-1, 2) * (54, 72)
    corner = corner + rng.integers(0, 20, (300, 2)) + 12
    boxes = np.concatenate((corner, corner + rng.integers(20, 42, (300, 2))), axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    size, labels = (1400, 900), []
    font_size = font_size_for(size, boxes)
    assert font_size < font_size_for(size, boxes[:30])
    for box in boxes.tolist():
        tag = place_among(texts_of(0, 0.5, ["white cell"]), tuple(box), size, (0, 0, 0), labels, boxes, font_size)
        if tag is not None:
            labels.append(tag.area)
    assert 150 < len(labels) < 300
    for number, (left, top, right, bottom) in enumerate(labels):
        others = np.array(labels[:number] or [(0, 0, 0, 0)])
        for shapes, most in ((others, 0.0), (boxes, 0.1 * areas)):
            start, end = np.maximum((left, top), shapes[:, :2]), np.minimum((right, bottom), shapes[:, 2:])
            assert ((end - start).clip(0).prod(axis=1) <= most).all()


def test_frames_of_many_small_objects_are_thin():
    boxes = torch.tensor([[20.0 * x, 20.0 * y, 20 * x + 12, 20 * y + 12] for x in range(10) for y in range(40)])
    inside = draw_detections(grey(1900, 1900), boxes, torch.zeros(len(boxes), dtype=torch.int64), None, None, "x")
    assert (inside[2:10, 2:10] == grey(1, 1)[0, 0]).all()
