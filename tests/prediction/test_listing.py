"""Images that are named: by folders, patterns, lists and tables."""

from pathlib import Path

import pytest
from PIL import Image
from tests import tiny
from typer.testing import CliRunner

import piip
from piip.cli import app
from piip.prediction.listing import Paths, from_lines, paths_of
from piip.prediction.sources import images_of, is_one_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("in/a.png", "in/b.jpg", "in/deep/c.png", "in/.hidden.png", "in/deep/.git/d.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 24)).save(path)
    return tmp_path


def names(paths: Paths) -> list[str]:
    return [path.name for path in paths]


def test_folders_in_a_folder(folder: Path) -> None:
    assert names(paths_of(folder / "in")) == ["a.png", "b.jpg"]
    assert names(paths_of(folder / "in", recursive=True)) == ["a.png", "b.jpg", "c.png"]
    with pytest.raises(FileNotFoundError, match="there are some in its folders: use recursive"):
        paths_of(folder)
    assert len(piip.PIIP(tiny.model(), device="cpu").predict(folder, recursive=True)) == 3


def test_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    assert names(paths_of("~/in")) == ["a.png", "b.jpg"]
    assert names(paths_of("~/in/*.jpg")) == ["b.jpg"]
    assert is_one_image("~/in/a.png")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "in/b.jpg\n\n in/a.png \nin/gone.png\n"),
        ("list.txt", "./in/b.jpg\r\n./in/a.png\r\nin/gone.png"),
        ("table.csv", "label,file_name\n1,in/b.jpg\n2,in/a.png\n3,in/gone.png\n"),
        ("table.csv", "in/b.jpg\nin/a.png\nin/gone.png\n"),
        ("table.tsv", "Path\tx\nin/b.jpg\t1\nin/a.png\t2\nin/gone.png\t\n"),
        ("names", "in/b.jpg\nin/a.png\nin/gone.png\n"),
    ],
)
def test_lists_and_tables(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    found = paths_of(f"@{folder / name}" if name == "names" else folder / name)
    assert list(found) == [folder / "in" / "b.jpg", folder / "in" / "a.png", folder / "in" / "gone.png"]
    assert not is_one_image(folder / "list.txt")


def test_a_list_of_paths_from_where_the_program_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "in" / "list.txt").write_text("in/a.png\nin/b.jpg\n")
    assert list(paths_of("in/list.txt")) == [Path("in/a.png"), Path("in/b.jpg")]
    (folder / "in" / "absolute.txt").write_text(f"{folder}/in/a.png\n")
    assert list(paths_of("in/absolute.txt")) == [folder / "in" / "a.png"]


def test_lists_that_name_nothing(folder: Path) -> None:
    (folder / "list.txt").write_text("\n\n")
    (folder / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(FileNotFoundError, match="names no image"):
        paths_of(folder / "list.txt")
    with pytest.raises(ValueError, match="no column of paths among a, b; name it path"):
        paths_of(folder / "table.csv")
    with pytest.raises(FileNotFoundError, match="there is no such list"):
        paths_of("@nowhere")


@pytest.mark.parametrize("address", ["https://example.org/a.jpg", "s3://bucket/a.jpg"])
def test_nothing_is_fetched(address: str) -> None:
    with pytest.raises(FileNotFoundError, match="standard input is read by the command alone"):
        paths_of("-")
    with pytest.raises(ValueError, match="nothing is fetched from the network; download the image"):
        images_of(address)


def test_paths_are_a_sequence() -> None:
    paths = from_lines(["a.png\n", "\n", "b.png\n", "c.png"])
    assert list(paths) == [Path("a.png"), Path("b.png"), Path("c.png")]
    assert paths[-1] == Path("c.png")
    assert list(paths[::2]) == [Path("a.png"), Path("c.png")]
    assert images_of(paths) is paths
    assert isinstance(images_of([Path(__file__), __file__]), Paths)


def test_the_verb_takes_a_list_from_a_pipe_and_says_what_it_found(folder: Path) -> None:
    weights = piip.PIIP(tiny.model(), device="cpu").save(folder / "model")
    stdin = "".join(f"{path}\n" for path in paths_of(folder / "in", recursive=True))
    command = ["predict", "-", "--weights", str(weights), "--no-pictures", "--conf", "1", "--output"]
    done = CliRunner().invoke(app, [*command, str(folder / "out")], input=stdin)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].startswith("1/3 ")
    assert "a.png: nothing, " in lines[0]
    assert lines[0].endswith(" ms")
    assert lines[-1] == f"3 images, 0 objects; JSON is in {folder / 'out'}"
    quiet = CliRunner().invoke(app, [*command, str(folder / "out2"), "--quiet", "--shard", "2/2"], input=stdin)
    assert quiet.output.splitlines() == [f"1 image, 0 objects; JSON is in {folder / 'out2' / '2-of-2'}"]
    wrong = CliRunner().invoke(app, [*command[:-1], "--shard", "2/2"], input=stdin)
    assert "need --output" in str(wrong.exception)
