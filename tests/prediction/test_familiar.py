"""Results by the names that hands know from elsewhere, and sources and options that they expect."""

import copy
import io
import pickle
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tests import tiny

import piip
from piip.cli.predict import classes_of
from piip.data.object_masks import Crop
from piip.model import PIIPModel
from piip.prediction.objects import Result
from piip.prediction.options import labels_of
from piip.prediction.outlines import outline


@pytest.fixture(scope="module")
def held() -> piip.PIIP:
    return piip.PIIP(tiny.model(), device="cpu")


@pytest.fixture
def result() -> Result:
    masks = torch.zeros(2, 20, 40, dtype=torch.bool)
    masks[0, 2:6, 10:30] = True
    masks[1, 5:15, 5:10] = True
    masks[1, 7:9, 6:8] = False  # a hole
    image = np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)
    boxes = torch.tensor([[10.0, 2, 30, 6], [5, 5, 10, 15]])
    return Result(boxes, torch.tensor([0.75, 0.5]), torch.tensor([1, 0]), ("cat", "a/b"), image, masks)


def photo(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def test_boxes_have_other_forms(result: Result) -> None:
    assert result.boxes.xyxy.tolist() == [[10, 2, 30, 6], [5, 5, 10, 15]]
    assert result.boxes.xywh.tolist() == [[20, 4, 20, 4], [7.5, 10, 5, 10]]
    assert result.boxes.xyxyn[0].tolist() == pytest.approx([0.25, 0.1, 0.75, 0.3])
    assert result.boxes.xywhn[0].tolist() == pytest.approx([0.5, 0.2, 0.5, 0.2])
    assert result.boxes.conf.tolist() == [0.75, 0.5]
    assert result.boxes.cls.tolist() == [1, 0]
    assert result[1].boxes.conf.tolist() == [0.5]
    assert result[result.boxes.conf > 0.6].boxes.cls.tolist() == [1]


def test_boxes_are_the_tensor_that_they_were(result: Result) -> None:
    boxes = result.boxes
    assert isinstance(boxes, torch.Tensor)
    assert boxes.tolist() == [[10, 2, 30, 6], [5, 5, 10, 15]]
    for computed in (boxes + 1, boxes[0], boxes[:, 2:], boxes.clone(), boxes.double(), torch.cat((boxes, boxes))):
        assert type(computed) is torch.Tensor
    assert np.asarray(boxes).shape == boxes.numpy().shape == (2, 4)
    assert [len(box) for box in boxes] == [4, 4]
    torch.testing.assert_close(boxes, boxes.xyxy)
    boxes[:, 0] += 1
    assert result.boxes.xyxy[:, 0].tolist() == [11, 6]
    for other in (copy.copy(result), copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert torch.equal(other.boxes, boxes)
        assert other.boxes.conf.tolist() == [0.75, 0.5]
    copied = copy.deepcopy(result)
    copied.boxes[0, 0] = 0
    assert boxes[0, 0] == 11


def test_masks_have_outlines(result: Result) -> None:
    masks = result.masks
    assert masks is not None
    assert type(masks.sum((1, 2))) is torch.Tensor
    assert masks.xy[0].tolist() == [[10, 2], [30, 2], [30, 6], [10, 6]]
    assert masks.xyn[0][0].tolist() == pytest.approx([0.25, 0.1])
    assert sorted(masks.xy[1].tolist()) == [[5, 5], [5, 15], [10, 5], [10, 15]]  # not the hole
    assert torch.equal(copy.deepcopy(masks), masks)


@pytest.mark.parametrize("box", [(3, 2, 20, 15), (0, 0, 29, 19), (4, 6, 9, 13)])
def test_an_outline_covers_just_the_pixels_that_it_is_of(box: tuple[int, int, int, int]) -> None:
    drawn = Image.new("L", (30, 20))
    ImageDraw.Draw(drawn).ellipse(box, fill=1)
    pixels = np.array(drawn, dtype=bool)
    points = outline(Crop(pixels, top=3, left=4))
    x, y = points.T
    assert (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2 == pixels.sum() > 0
    assert points.min(0).tolist() == [box[0] + 4, box[1] + 3]
    assert points.max(0).tolist() == [box[2] + 5, box[3] + 4]


def test_no_pixel_has_no_outline() -> None:
    assert outline(Crop(np.zeros((3, 4), bool), 0, 0)).shape == (0, 2)
    assert outline(Crop(np.zeros((0, 0), bool), 0, 0)).shape == (0, 2)


def test_labels_and_crops_are_written(result: Result, tmp_path: Path) -> None:
    result.save_txt(tmp_path / "labels" / "x.txt")
    assert (tmp_path / "labels" / "x.txt").read_text() == "1 0.5 0.2 0.5 0.2\n0 0.1875 0.5 0.125 0.5\n"
    result.save_txt(tmp_path / "labels" / "x.txt", save_conf=True)
    assert (tmp_path / "labels" / "x.txt").read_text().splitlines()[0] == "1 0.5 0.2 0.5 0.2 0.75"
    for number in ("", "-2"):
        written = result.save_crop(tmp_path / "crops", "x")
        assert written == [tmp_path / "crops" / "a_b" / f"x{number}.jpg", tmp_path / "crops" / "cat" / f"x{number}.jpg"]
    with Image.open(written[0]) as crop:
        assert crop.size == (20, 4)


def test_rows_and_tables(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [row["name"] for row in result.summary()] == ["a/b", "cat"]
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))
    first = result.to_df()[0]
    assert first == {"path": None, "label": 1, "name": "a/b", "score": 0.75, "x1": 10, "y1": 2, "x2": 30, "y2": 6}
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        result.to_df()


def test_a_result_knows_its_image_and_its_time(held: piip.PIIP) -> None:
    found = held(photo())
    assert isinstance(found, Result)
    assert np.array_equal(found.orig_img, photo())
    assert found.orig_shape == (60, 80)
    assert set(found.speed) == {"preprocess", "inference", "postprocess"}
    assert found.speed["inference"] > 0


def test_open_files_and_arrays_of_opencv_are_images(held: piip.PIIP, tmp_path: Path) -> None:
    Image.fromarray(photo()).save(tmp_path / "x.png")
    content = io.BytesIO((tmp_path / "x.png").read_bytes())
    content.read()
    with (tmp_path / "x.png").open("rb") as file:
        for source, options in ((content, {}), (file, {}), (photo()[..., ::-1], {"bgr": True}), (photo(), {})):
            assert np.array_equal(held.predict(source, **options).orig_img, photo())
    with (tmp_path / "x.png").open("r", encoding="latin-1") as text, pytest.raises(TypeError, match='mode "rb"'):
        held.predict(text)


def test_only_some_classes(held: piip.PIIP) -> None:
    everything = held.predict(photo(), conf=0.0)
    kept = {name: (everything.labels == label).sum() for label, name in enumerate(held.names)}
    some = max(kept, key=lambda name: int(kept[name]))
    for chosen in ([some], (held.names.index(some),)):
        found = held.predict(photo(), conf=0.0, classes=chosen)
        assert set(found.class_names) == {some}
        assert len(found) == kept[some]
        assert torch.equal(found.masks, everything[everything.labels == held.names.index(some)].masks)
    assert len(held.predict(photo(), conf=0.0, classes=[])) == 0
    assert classes_of("disc, 2") == ["disc", "2"]
    assert labels_of(classes_of("disc, 2"), ("disc", "square", "star")) == [0, 2]
    assert labels_of(classes_of("2,1,3"), ("1", "2", "star", "three")) == [1, 0, 3]  # first as names


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["dsic"], "no class 'dsic'; near are disc"),
        ([3], "no class 3: the model has 3"),
        ("disc", "use a list of names"),
    ],
)
def test_classes_that_there_are_not(held: piip.PIIP, classes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        held.predict(photo(), classes=classes)


def test_save_alone_takes_the_next_free_folder(
    held: piip.PIIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("predict", "predict2"):
        held.predict(photo(), save=True)
        assert [path.name for path in (tmp_path / "runs" / folder).iterdir()] == ["image.jpg"]
    held.predict(photo(), save=False)
    assert not (tmp_path / "runs" / "predict3").exists()


def test_random_weights_are_not_predicted_with_in_silence() -> None:
    fresh = piip.PIIP(tiny.model(), device="cpu")
    with pytest.warns(UserWarning, match="tiny has random weights, and what it finds means nothing"):
        fresh.predict(photo())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fresh.predict(photo())  # once is enough
        piip.PIIP(PIIPModel(tiny.model()), device="cpu").predict(photo())
