"""Files by the names that annotations give them, never outside the folder."""

import unicodedata
from pathlib import Path

import pytest

from piip.data.find_image import ImageFinder
from piip.data.image_files import ImageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("set/a/1.png", "set/2.JPG", "secret.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path / "set"


@pytest.mark.parametrize(
    "name", ["a/1.png", "a\\1.png", "./a//1.png", "D:\\set\\a\\1.png", "\\\\host\\share\\a\\1.png", "other/a/1.png",
             "A/1.PNG", "a/1", "x/../a/1.png"],
)  # fmt: skip
def test_names_of_other_machines(folder: Path, name: str) -> None:
    assert ImageFinder(folder)(name) == folder / "a" / "1.png"


@pytest.mark.parametrize(
    "form", ["/{0}", "//{0}", "///{0}", "\\\\{0}", "../secret.png", "a/../../secret.png", "..\\secret.png"]
)
def test_nothing_outside_is_ever_found(folder: Path, form: str) -> None:
    name = form.format(str(folder.parent / "secret.png").lstrip("/"))
    with pytest.raises(ImageError, match="leads to another place, which is never followed"):
        ImageFinder(folder)(name)


def test_a_drive_is_no_folder(folder: Path) -> None:
    with pytest.raises(ImageError, match="leads to another place"):
        ImageFinder(folder)("C:/nothing.png")


def test_capitals_and_accents(folder: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "caf\u00e9.png")
    (folder / decomposed).write_bytes(b"")
    finder = ImageFinder(folder)
    assert finder("caf\u00e9.png") == folder / decomposed
    assert finder("2.jpg") == folder / "2.JPG"


def test_what_could_be_two_files_is_not_guessed(folder: Path) -> None:
    (folder / "x.png").write_bytes(b"")
    (folder / "x.jpg").write_bytes(b"")
    (folder / "Y.png").write_bytes(b"")
    (folder / "y.PNG").write_bytes(b"")
    finder = ImageFinder(folder)
    for name in ("x", "y.png"):
        with pytest.raises(ImageError, match="could be"):
            finder(name)
    assert finder("x.jpg") == folder / "x.jpg"


@pytest.mark.parametrize("name", ["", ".", "..", "/", "\0", "a" * 300, "b/" * 2000 + "9", "\ud800.png"])
def test_names_that_no_file_has(folder: Path, name: str) -> None:
    with pytest.raises(ImageError, match="no such file"):
        ImageFinder(folder)(name)


def test_several_folders_in_turn(folder: Path) -> None:
    assert ImageFinder(folder, folder / "a")("1.png") == folder / "a" / "1.png"
