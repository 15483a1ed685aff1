"""Files that open and do not decode are found by the check, once."""

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mask_sets import make_masks
from PIL import Image

from piip.data import whole_images
from piip.data.detection.check import check
from piip.data.segmentation.masks import check_masks
from piip.data.whole_images import undecodable


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIIP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are decoded."""
    seen: list[Path] = []
    real = whole_images.decode_image

    def counted(file: Path, reduction: int) -> np.ndarray:
        seen.append(file)
        return real(file, reduction=reduction)

    monkeypatch.setattr(whole_images, "decode_image", counted)
    return seen


def photo(path: Path, cut: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    if cut is not None:
        path.write_bytes(path.read_bytes()[:cut])
    return path


def test_broken_files_are_named_with_the_reason(tmp_path: Path) -> None:
    good, cut, gone = photo(tmp_path / "a" / "1.png"), photo(tmp_path / "b" / "1.png", 900), tmp_path / "a" / "3.png"
    found = undecodable([good, cut, gone])
    assert set(found) == {cut, gone}
    assert "broken or truncated image" in found[cut]
    assert "there is no such file" in found[gone]


def test_nothing_is_decoded_twice_until_it_changes(tmp_path: Path, decoded: list[Path]) -> None:
    one, two = photo(tmp_path / "1.png"), photo(tmp_path / "2.png", 900)
    first = undecodable([one, two])
    assert sorted(decoded) == [one, two]
    decoded.clear()
    assert undecodable([one, two]) == first
    assert decoded == []
    photo(two)
    os.utime(one, ns=(1, 1))
    assert undecodable([one, two]) == {}
    assert sorted(decoded) == [one, two]


def test_in_processes_of_which_a_file_ends_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_images, "WORTH_PROCESSES", 8)
    files = [photo(tmp_path / f"{number:02}.png", 900 if number in (3, 20) else None) for number in range(24)]
    named = undecodable(files)
    assert sorted(named) == [files[3], files[20]]
    if multiprocessing.get_start_method() != "fork":
        return  # the decoder below would be another
    real = whole_images.decode_image

    def fatal(file: Path, reduction: int) -> np.ndarray:
        if file in (files[5], files[22]):
            os.kill(os.getpid(), signal.SIGSEGV)
        return real(file, reduction=reduction)

    monkeypatch.setattr(whole_images, "decode_image", fatal)
    monkeypatch.setenv("PIIP_HOME", str(tmp_path / "another"))
    found = undecodable(files)
    assert sorted(found) == [files[3], files[5], files[20], files[22]]
    assert found[files[5]] == f"{files[5]}: broken in a way that ends the process which decodes it"
    assert found[files[3]] == named[files[3]]
    assert undecodable(files) == found  # without another process that ends


def test_a_file_that_is_missing_is_looked_for_again(tmp_path: Path) -> None:
    assert undecodable([tmp_path / "1.png"])
    assert undecodable([photo(tmp_path / "1.png")]) == {}


@pytest.mark.parametrize("record", ["", "[]", "[" * 100_000, '{"1.png": 3}', '{"1.png": []}'])
def test_a_damaged_record_costs_nothing_but_time(tmp_path: Path, home: Path, record: str) -> None:
    file = photo(tmp_path / "1.png", 900)
    undecodable([file])
    (kept,) = home.rglob("*.json")
    kept.write_text(record)
    assert set(undecodable([file])) == {file}


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PIIP_HOME", str(tmp_path / "file" / "below"))
    assert undecodable([photo(tmp_path / "1.png")]) == {}


def test_too_little_memory_is_no_fault_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("piip.data.decode._to_rgb", fail)
    with pytest.raises(MemoryError):
        undecodable([photo(tmp_path / "1.png")])


def test_the_check_of_objects_leaves_them_out(tmp_path: Path) -> None:
    photo(tmp_path / "train" / "1.png")
    photo(tmp_path / "train" / "2.png", 900)
    box = {"category_id": 1, "bbox": [4, 4, 10, 10], "area": 100, "iscrowd": 0}
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 50, "height": 40} for i in (1, 2)],
        "annotations": [{"id": i, "image_id": i, **box} for i in (1, 2)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    report = check(tmp_path)["train"]
    finding = report.find("image file that cannot be decoded", "left out")
    assert finding is not None
    assert finding.count == 1
    assert "2.png: broken or truncated" in finding.examples[0]
    assert (report.images, report.objects, report.class_counts) == (1, 1, {"cat": 1})


def test_the_check_of_masks_leaves_them_out(tmp_path: Path) -> None:
    root = make_masks(tmp_path / "set")
    file = sorted((root / "images" / "train").iterdir())[0]
    file.write_bytes(file.read_bytes()[:-200])
    report = check_masks(root)["train"]
    assert report.find("image file that cannot be decoded", "left out") is not None
    assert report.images == 3


def test_the_case(reliability_cases: Path) -> None:
    report = check(reliability_cases / "03_truncated_image_passes_check")["train"]
    finding = report.find("image file that cannot be decoded")
    assert finding is not None
    assert "1.png" in finding.examples[0]
