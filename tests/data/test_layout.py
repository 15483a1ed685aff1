"""Names of splits and folders, and images in them, whatever the capitals."""

import unicodedata
from pathlib import Path

import pytest

from piip.data.layout import child, holds_images, images_below, split_folders, split_of


def put(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "split"),
    [("instances_val2017", "val"), ("Validation", "val"), ("TEST-dev", "test"), ("train_set", "train"),
     ("pretrained", None), ("evaluated", None), ("data", None)],
)  # fmt: skip
def test_the_split_that_a_name_speaks_of(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_folders_of_a_split_and_nothing_else(tmp_path: Path) -> None:
    put(
        tmp_path, "Train2017/a.png", "TRAINING/a.png", "train_old/a.png", "trainer/a.png", "valid/a.png", ".train/a.png"
    )
    assert [folder.name for folder in split_folders(tmp_path, "train")] == ["TRAINING", "Train2017"]
    assert [folder.name for folder in split_folders(tmp_path, "val")] == ["valid"]
    assert split_folders(tmp_path / "nowhere", "train") == []


def test_a_name_as_it_is_written_goes_first(tmp_path: Path) -> None:
    put(tmp_path, "IMAGES/a", "masks/a")
    assert child(tmp_path, ("images",)) == tmp_path / "IMAGES"
    assert child(tmp_path, ("labels", "masks")) == tmp_path / "masks"
    put(tmp_path, "images/a")
    assert child(tmp_path, ("images",)) == tmp_path / "images"
    assert child(tmp_path, ("labels",)) is None


def test_accents_in_both_of_unicode_s_ways(tmp_path: Path) -> None:
    written = unicodedata.normalize("NFD", "caf\u00e9")
    put(tmp_path, f"{written}/a")
    assert child(tmp_path, ("caf\u00e9",)) == tmp_path / written


@pytest.mark.parametrize("name", ["1.jpg", "2.JPEG", "3.jfif", "4.JPE", "5.tiff", "6.Webp"])
def test_endings_of_images(tmp_path: Path, name: str) -> None:
    put(tmp_path, f"a/{name}", "a/notes.txt", "a/.hidden.jpg")
    assert images_below(tmp_path) == [tmp_path / "a" / name]


def test_what_systems_write_among_the_data_does_not_count(tmp_path: Path) -> None:
    aside = ("._1.jpg", "__MACOSX/1.jpg", "@eaDir/1.jpg", ".ipynb_checkpoints/1.jpg")
    put(tmp_path, *aside)
    assert images_below(tmp_path) == []
    assert not holds_images(tmp_path)
    put(tmp_path, "__ignore__/1.jpg")  # a class of labelme's
    assert holds_images(tmp_path)


def test_images_deeper_inside(tmp_path: Path) -> None:
    put(tmp_path, "b/c/2.png", "b/1.png", "a.png")
    assert [file.relative_to(tmp_path).as_posix() for file in images_below(tmp_path)] == [
        "a.png",
        "b/1.png",
        "b/c/2.png",
    ]
    (tmp_path / "a.png").unlink()
    assert holds_images(tmp_path)
    assert not holds_images(tmp_path, deep=False)
