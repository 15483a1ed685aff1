"""Classified images are found in folders and tables, and their faults are reported."""

import shutil
from pathlib import Path

import pytest
from class_folders import write_classes, write_image

from piip.data.classification.images import check_classes, open_class_split
from piip.data.classification.splits import find_class_splits
from piip.data.report import DataError
from piip.tasks import check_data


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two training images and one for validation of each of three classes."""
    write_classes(tmp_path / "train", 2)
    write_classes(tmp_path / "val", 1, seed=50)
    return tmp_path


def found(report, kind: str, severity: str):
    finding = report.find(kind, severity)
    assert finding is not None, [(f.severity, f.kind) for f in report.findings]
    return finding


# -- folders ---------------------------------------------------------------------------------------------------------


def test_class_folders(folders):
    assert list(find_class_splits(folders)) == ["train", "val"]
    data = open_class_split(folders, "train")
    assert data.classes == ("blue", "green", "red")
    assert data.counts == (2, 2, 2)
    assert [(image.path.parent.name, image.label) for image in data.images[::2]] == [
        ("blue", 0),
        ("green", 1),
        ("red", 2),
    ]
    with pytest.raises(DataError, match="no split 'test'; it has train, val"):
        open_class_split(folders, "test")


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_other_names_of_splits(folders, name):
    (folders / "val").rename(folders / name)
    assert set(find_class_splits(folders)) == {"train", "val"}


def test_a_folder_without_splits(folders):
    assert list(find_class_splits(folders / "train")) == ["train"]
    assert list(find_class_splits(folders / "val")) == ["val"]
    (folders / "train").rename(folders / "pictures")
    assert list(find_class_splits(folders / "pictures")) == ["train"]


def test_images_deeper_inside_and_what_is_left_aside(folders):
    write_image(folders / "train" / "red" / "session 2" / "a.png", 7)
    (folders / "train" / "red" / "notes.txt").write_text("x")
    (folders / "train" / ".cache").mkdir()
    (folders / "train" / "red" / ".DS_Store").write_text("x")
    write_image(folders / "train" / "stray.png", 8)
    data = open_class_split(folders, "train")
    assert data.classes == ("blue", "green", "red")
    assert data.counts == (2, 2, 3)
    report = check_classes(folders)["train"]
    assert found(report, "file that is no image", "note").examples == ["red/notes.txt"]
    assert found(report, "image outside of the class folders", "left out").examples == ["stray.png"]
    assert report.errors == 0


def test_numbers_are_ordered_as_numbers(tmp_path):
    write_classes(tmp_path / "train", 1, classes=("10", "9", "1"))
    assert open_class_split(tmp_path, "train").classes == ("1", "9", "10")


def test_imagenet_folders_get_readable_names(tmp_path):
    write_classes(tmp_path / "train", 1, classes=("n02012849", "n01440764", "n03126707"))
    assert open_class_split(tmp_path, "train").classes == ("tench", "crane (n02012849)", "crane (n03126707)")


def test_labels_of_a_model(folders):
    data = open_class_split(folders, "val").with_classes(("red", "yellow", "blue", "green"))
    assert [(image.path.parent.name, image.label) for image in data.images] == [("blue", 2), ("green", 3), ("red", 0)]
    assert data.counts == (1, 0, 1, 1)
    with pytest.raises(DataError, match="classes that the model does not know: red, yellow; it knows blue, green"):
        data.with_classes(("blue", "green"))


# -- faults ----------------------------------------------------------------------------------------------------------


def test_a_good_set_has_no_findings(folders):
    reports = check_data(folders)
    assert {name: report.findings for name, report in reports.items()} == {"train": [], "val": []}
    assert reports["train"].to_dict()["class_counts"] == {"blue": 2, "green": 2, "red": 2}
    assert "6 images, 3 classes, 2 images each" in str(reports["train"].table("train").caption)


def test_unreadable_files_are_left_out(folders):
    (folders / "train" / "red" / "empty.png").write_bytes(b"")
    whole = (folders / "train" / "red" / "0.png").read_bytes()
    (folders / "train" / "red" / "cut.png").write_bytes(whole[: len(whole) // 2])
    report = check_classes(folders)["train"]
    assert found(report, "file that cannot be read", "left out").count == 2
    assert all("red" in example for example in report.findings[0].examples)
    assert report.images == 6
    # A training opens headers only; a file that is cut off shows when it is read.
    assert open_class_split(folders, "train").counts == (2, 2, 3)


def test_classes_without_images(folders):
    (folders / "train" / "violet").mkdir()
    shutil.rmtree(folders / "val" / "red")
    write_image(folders / "val" / "black" / "0.png", 3)
    reports = check_classes(folders)
    assert found(reports["train"], "class without images", "left out").examples == ["violet"]
    assert found(reports["val"], "class of train without images", "note").examples == ["red"]
    assert found(reports["val"], "class that train does not have", "error").examples == ["black"]
    assert reports["val"].errors == 1
    assert open_class_split(folders, "train").classes == ("blue", "green", "red")


def test_repeats(folders):
    source = folders / "train" / "red" / "0.png"
    shutil.copy(source, folders / "train" / "red" / "again.png")
    shutil.copy(source, folders / "train" / "blue" / "as-blue.png")
    shutil.copy(source, folders / "val" / "red" / "known.png")
    reports = check_classes(folders)
    # In the order of reading, blue comes first.
    assert found(reports["train"], "same image in two classes", "note").count == 2
    assert found(reports["val"], "same image in train", "note").examples == ["blue/as-blue.png and red/known.png"]
    assert reports["train"].errors == reports["val"].errors == 0


def test_a_single_class_is_an_error(tmp_path):
    write_classes(tmp_path / "train", 2, classes=("only",))
    assert found(check_classes(tmp_path)["train"], "only one class, nothing to tell apart", "error").examples == [
        "only"
    ]


def test_nothing_usable(folders):
    for file in (folders / "val").rglob("*.png"):
        file.write_bytes(b"no image")
    assert check_classes(folders)["val"].errors == 1
    with pytest.raises(DataError, match=r"val: has no image that can be used \(3 files listed\)"):
        open_class_split(folders, "val")


def test_nothing_recognised(tmp_path):
    with pytest.raises(DataError, match="Looked for class folders"):
        find_class_splits(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        find_class_splits(tmp_path / "none")


# -- tables ----------------------------------------------------------------------------------------------------------


def write_table(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return path


def test_a_table_with_a_split_column(folders):
    table = write_table(
        folders / "all.csv",
        [
            "Filename;Split;Class",
            "train/red/0.png;train;rot",
            "train/blue/0.png;training;blau",
            "val/red/0.png;val;rot",
        ],
    )
    assert set(find_class_splits(table)) == {"train", "val"}
    data = open_class_split(table, "train")
    assert data.classes == ("blau", "rot")
    assert [image.path for image in data.images] == [folders / "train/red/0.png", folders / "train/blue/0.png"]
    assert open_class_split(table, "val").counts == (1,)


def test_tables_beside_the_images(folders):
    for split in ("train", "val"):
        rows = [f"{split}/{name}/0.png,{label}" for label, name in enumerate(("red", "blue"))]
        write_table(folders / f"{split}.csv", ["path,label", *rows])
    assert open_class_split(folders, "train").classes == ("0", "1")
    assert open_class_split(folders, "val").counts == (1, 1)


def test_faults_in_a_table(folders):
    table = write_table(
        folders / "train.csv",
        [
            "path,label,remark",
            "train/red/0.png,red,",
            "train/red/0.png,red,again",
            "train/red/0.png,blue,again",
            "train/red/none.png,red,",
            "train/red/1.png,,",
            "../outside.png,red,",
            "train/blue/0.png,blue",
        ],
    )
    write_image(folders.parent / "outside.png", 1)
    data = open_class_split(table, "train")
    assert data.counts == (1, 1)
    report = check_classes(table)["train"]
    assert found(report, "file listed twice", "left out").count == 1
    assert found(report, "file listed again with another class", "left out").examples[0].startswith("line 4")
    assert found(report, "missing file", "left out").count == 2
    assert found(report, "row without a path or a class", "left out").examples == ["line 6"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["file,size", "a,b"], r"columns \['file', 'size'\]; needed are a path .* and a class \(label"),
        ([""], "columns"),
        (["path,label,split", "a.png,x,somewhere"], "mean nothing here: .*somewhere.*; write train, val or test"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        open_class_split(write_table(tmp_path / "table.csv", content), "train")


def test_a_table_that_is_no_text(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"\xfe\x80\x00\x01")
    with pytest.raises(DataError, match="not readable as text"):
        open_class_split(tmp_path, "train")
