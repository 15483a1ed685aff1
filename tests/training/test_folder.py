from pathlib import Path

import pytest

from piip.training.folder import RunFolder, new_run_folder


def test_a_second_run_gets_its_own_folder(tmp_path: Path) -> None:
    names = [new_run_folder(tmp_path / "runs", "detection", "try") for _ in range(3)]
    assert [path.relative_to(tmp_path).as_posix() for path in names] == [
        "runs/detection/try",
        "runs/detection/try-2",
        "runs/detection/try-3",
    ]
    assert all(path.is_dir() for path in names)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../up"])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="run name"):
        new_run_folder(tmp_path, "detection", name)


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.prepare(resume=False)
    assert folder.checkpoint.parent.is_dir()
    folder.prepare(resume=False)  # an empty one may be used
    folder.results.write_text("epoch\n")
    with pytest.raises(FileExistsError, match="holds a run already; resume it"):
        folder.prepare(resume=False)
    folder.prepare(resume=True)


def test_leftovers_of_interrupted_writes_go(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.prepare(resume=False)
    keep = [folder.best, folder.checkpoint, tmp_path / "notes.txt"]
    for path in keep:
        path.write_text("x")
    for path in (folder.checkpoint, folder.results):
        path.with_name(f"{path.name}.tmp-12ab34cd").write_text("half")
    folder.best.with_name(".tmp6IS54l").write_text("half")  # as safetensors calls a file that it is writing
    folder.prepare(resume=True)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(keep)
