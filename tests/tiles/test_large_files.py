"""Photos in files that are too large for memory: in tiles no more rows are read than a tile has."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.test_image_windows import tiff
from tests.prediction.test_tiled import detector, noise, segmentor

import piip
from piip.data import surround
from piip.data.file_rows import FileRows
from piip.data.surround import Shown, Surroundings
from piip.data.windows import FileImage
from piip.prediction.label_map import SegmentationResult
from piip.prediction.objects import Result
from piip.tiles.grid import grid

PHOTO = noise(150, 110)
ENOUGH = 100_000


@pytest.fixture
def photo_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That is refused but with `max_pixels`, and of which all would be too much."""
    monkeypatch.setattr("piip.data.image_files.MAX_PIXELS", 5000)
    monkeypatch.setattr(FileImage, "whole", None)
    return tiff(tmp_path / "scan.tif", PHOTO)


def test_parts_in_any_order(tmp_path: Path) -> None:
    tensor = torch.from_numpy(PHOTO).permute(2, 0, 1)
    with FileImage(tiff(tmp_path / "x.tif", PHOTO), ENOUGH) as file:
        rows = FileRows(file)
        assert tuple(rows.shape) == tuple(tensor.shape)
        for top, bottom in ((0, 30), (20, 50), (0, 90), (60, 90), (80, 110), (140, 150), (10, 20), (30, 30), (0, 150)):
            part = slice(None), slice(top, bottom), slice(top // 2, 100)
            assert torch.equal(rows[part], tensor[part])


def test_tiles_and_what_is_around_them_read_each_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    of_file = FileImage.__getitem__

    def watched(file: FileImage, window: tuple[slice, slice]) -> np.ndarray:
        read.extend(range(window[0].start, window[0].stop))
        return of_file(file, window)

    monkeypatch.setattr(FileImage, "__getitem__", watched)
    with FileImage(tiff(tmp_path / "x.tif", PHOTO), ENOUGH) as file:
        rows = FileRows(file)
        around = Surroundings(rows, detector(masks=False).config.preprocess, (1, 1.5, 3))
        for tile in grid(PHOTO.shape[:2], 30):
            assert rows[:, tile.top : tile.bottom, tile.left : tile.right].shape == (3, 30, 30)
            around.of(Shown.tile(*tile))
            assert len(rows._rows) <= 90
    assert read == list(range(150))


def test_a_file_gives_what_its_pixels_give(photo_file: Path) -> None:
    held = piip.PIIP(detector(), device="cpu").with_views((1, 2))
    given = {"conf": 0.0, "tiles": 48, "batch_size": 3}
    expected = held.predict(PHOTO, **given)  # type: ignore[arg-type]
    (found,) = held.predict([photo_file], max_pixels=ENOUGH, **given)  # type: ignore[arg-type]
    assert isinstance(found, Result)
    assert isinstance(expected, Result)
    assert len(found) > 3
    assert found.to_coco(1) == expected.to_coco(1)
    assert found.picture.size == PHOTO.shape[:2]


def test_a_label_map_of_a_file(photo_file: Path) -> None:
    held = piip.PIIP(segmentor(), device="cpu")
    expected = held.predict(PHOTO, tiles=48)
    (found,) = held.predict([photo_file], max_pixels=ENOUGH, tiles=48)
    assert isinstance(found, SegmentationResult)
    assert isinstance(expected, SegmentationResult)
    assert np.array_equal(found.labels, expected.labels)


def test_a_view_of_all_of_it_is_shrunk_in_strips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preprocess, shown = detector(masks=False).config.preprocess, Shown.tile(10, 20, 40, 50)
    at_once = Surroundings(torch.from_numpy(PHOTO).permute(2, 0, 1), preprocess, (1, "image")).of(shown)[1]
    monkeypatch.setattr(surround, "AT_ONCE", 110 * 13)
    with FileImage(tiff(tmp_path / "x.tif", PHOTO), ENOUGH) as file:
        rows = FileRows(file)
        in_strips = Surroundings(rows, preprocess, (1, "image")).of(shown)[1]
        assert len(rows._rows) <= 13
    assert at_once is not None
    assert in_strips is not None
    assert torch.equal(in_strips.frame, at_once.frame)
    levels = 1.01 / min(preprocess.std)
    assert torch.allclose(in_strips.image, at_once.image, atol=levels)
    assert in_strips.image.std() > 0


def test_a_file_that_is_damaged_further_down(photo_file: Path) -> None:
    content = photo_file.read_bytes()
    photo_file.write_bytes(content[: len(content) * 3 // 4])
    model = piip.PIIP(detector(masks=False), device="cpu")
    (failure,) = model.predict_report([photo_file], max_pixels=ENOUGH, tiles=48).failures
    assert failure.path == photo_file
    assert "broken or truncated image" in failure.reason


def test_a_photo_that_has_to_be_turned_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("piip.data.image_files.MAX_PIXELS", 5000)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PHOTO).save(tmp_path / "x.jpg", exif=exif)
    model = piip.PIIP(detector(masks=False), device="cpu")
    (result,) = model.predict([tmp_path / "x.jpg"], max_pixels=ENOUGH, tiles=48)
    assert result.picture.size == (110, 150)
    assert model.predict_report([tmp_path / "x.jpg"], tiles=48).failures
