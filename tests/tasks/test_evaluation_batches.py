"""The numbers of an evaluation do not depend on how its images are batched, and every size of input is evaluated."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests import tiny

import piip
from piip import config, tasks
from piip.data.batches import in_batches
from piip.files import numbered
from piip.model import PIIPModel
from piip.prediction.predictor import Predictor
from piip.tasks import detection, segmentation
from piip.training.settings import Settings
from piip.training.start import last_look, with_image_size

SHAPES = [(60, 160), (160, 60), (120, 120), (60, 160), (120, 118), (160, 60), (60, 160), (120, 120)]


def photo(path: Path, size: tuple[int, int], seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def boxes(root: Path, names: list[str] | None = None) -> Path:
    names = names or [f"{index}.png" for index in range(len(SHAPES))]
    for number, (name, size) in enumerate(zip(names, SHAPES, strict=False)):
        photo(root / "val" / name, size, number)
    images = [
        {"id": number, "file_name": name, "height": size[0], "width": size[1]}
        for number, (name, size) in enumerate(zip(names, SHAPES, strict=False))
    ]
    objects = [
        {"id": i + 1, "image_id": i, "category_id": 1 + i % 3, "bbox": [5, 5, 40, 40], "area": 1600, "iscrowd": 0}
        for i in range(len(images))
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(("disc", "square", "star"), 1)]
    (root / "annotations").mkdir()
    content = {"images": images, "annotations": objects, "categories": categories}
    (root / "annotations" / "instances_val.json").write_text(json.dumps(content))
    return root


def masks(root: Path) -> Path:
    for number, size in enumerate(SHAPES):
        photo(root / "images" / "val" / f"{number}.png", size, number)
        labels = np.random.default_rng(number).integers(0, 3, size, dtype=np.uint8)
        (root / "masks" / "val").mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(root / "masks" / "val" / f"{number}.png")
    (root / "classes.json").write_text(json.dumps({"classes": ["disc", "square", "star"]}))
    return root


def detector() -> PIIPModel:
    torch.manual_seed(0)
    model = PIIPModel(tiny.model(2, masks=False)).eval()
    with torch.no_grad():
        model.head.box.scores.bias[:3] += 3  # so that something is found
    return model


def segmentor() -> PIIPModel:
    torch.manual_seed(0)
    head = config.UperNet(channels=16, auxiliary_channels=None)
    return PIIPModel(tiny.model(2).model_copy(update={"head": head})).eval()


def test_batches_of_one_size() -> None:
    sizes = [(1, 2), (2, 1), (1, 2), (1, 2), (2, 2), (2, 1), (1, 2)]
    assert in_batches(sizes, 2) == [[0, 2], [1, 5], [3, 6], [4]]
    assert in_batches(sizes, 1) == [[index] for index in range(7)]
    assert in_batches([], 3) == []


def test_a_detector_s_numbers_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    data, model = detection.open_split(boxes(tmp_path), "val"), detector()
    one, four = (dict(_found(model, data, size)) for size in (1, 4))
    assert sorted(one) == sorted(four) == list(range(len(SHAPES)))
    for index, found in one.items():
        assert len(found["scores"]) == len(four[index]["scores"]) > 0
        torch.testing.assert_close(found["scores"], four[index]["scores"], atol=1e-5, rtol=0)
        torch.testing.assert_close(found["boxes"], four[index]["boxes"], atol=1e-2, rtol=0)
    scores = [tasks.of(model.config).evaluate(model, data, size, 0).scalars() for size in (1, 4)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def _found(model: PIIPModel, data: detection.CocoData, batch_size: int) -> list[tuple[int, dict[str, torch.Tensor]]]:
    return list(detection.predict_all(Predictor(model, "cpu"), data, batch_size, workers=0))


def test_a_segmentor_s_numbers_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    data, model = segmentation.open_split(masks(tmp_path), "val"), segmentor()
    one, four = (segmentation.evaluate(model, data, size, 0).confusion for size in (1, 4))
    assert one.sum() == four.sum() == sum(height * width for height, width in SHAPES)
    assert np.abs(one - four).sum() <= 4  # pixels between two classes that rounding may move


def test_small_inputs_of_a_classifier_are_evaluated_as_they_are_trained(tmp_path: Path) -> None:
    for name in ("dark", "light"):
        photo(tmp_path / "test" / name / "0.png", (20, 24), 0)
    described = with_image_size(piip.PIIP("piip_nano_classifier").config, 32)
    model = PIIPModel(described.model_copy(update={"classes": ("dark", "light"), "category_ids": None}))
    data = tasks.named("classification").open_split(tmp_path, "test")
    metrics = tasks.of(model.config).evaluate(model, data, batch_size=2, workers=0)
    assert 0.0 < metrics.scalars()["top1"] < 1.0  # two images alike, of two classes
    assert len(Predictor(model, "cpu").predict(tmp_path / "test" / "dark").results) == 1


def test_a_run_s_pictures_of_one_name_are_all_there(tmp_path: Path) -> None:
    root = boxes(tmp_path / "data", [f"{folder}/frame_0.png" for folder in "abc"])
    data, model = detection.open_split(root, "val"), detector()
    for _ in range(2):  # a run that was resumed looks again, and replaces its own
        last_look(model, data, Settings(workers=0), tmp_path / "run")
        pictures = sorted(path.name for path in (tmp_path / "run").glob("*.jpg"))
        assert pictures == ["frame_0-2.jpg", "frame_0-3.jpg", "frame_0.jpg"]
    with Image.open(tmp_path / "run" / "frame_0.jpg") as picture:  # annotated and found side by side
        assert picture.width >= 2 * 640
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_a_run_s_pictures_are_spread_over_the_set_and_show_label_maps_too(tmp_path: Path) -> None:
    data, model = segmentation.open_split(masks(tmp_path), "val"), segmentor()
    last_look(model, data, Settings(workers=0), tmp_path / "run")
    assert len(list((tmp_path / "run").glob("*.jpg"))) == min(8, len(data.images))
    assert tasks.spread(100, 4) == [0, 25, 50, 75]


def test_an_evaluation_keeps_masks_of_one_name_apart(tmp_path: Path) -> None:
    data, model = segmentation.open_split(masks(tmp_path / "data"), "val"), segmentor()
    segmentation.evaluate_to_folder(model, data, tmp_path / "out", 4, 0)
    names = numbered(image.mask.name for image in data.images)
    assert sorted(path.name for path in (tmp_path / "out" / "masks").iterdir()) == sorted(names)
    for image, name in zip(data.images, names, strict=True):
        with Image.open(tmp_path / "out" / "masks" / name) as mask:
            assert (mask.height, mask.width) == image.size


def test_masks_of_formats_other_than_png_are_evaluated_too(tmp_path: Path) -> None:
    root, model = masks(tmp_path / "data"), segmentor()
    for number, kind in enumerate(("tif", "bmp", "gif")):
        mask = root / "masks" / "val" / f"{number}.png"
        with Image.open(mask) as labels:
            labels.save(mask.with_suffix(f".{kind}"))
        mask.unlink()
    segmentation.evaluate_to_folder(model, segmentation.open_split(root, "val"), tmp_path / "out", 4, 0)
    written = sorted(path.name for path in (tmp_path / "out" / "masks").iterdir())
    assert written == [f"{number}.png" for number in range(len(SHAPES))]
