"""Tables of classified images as people have them."""

from pathlib import Path

import pytest
from class_folders import write_image

from piip.data.classification.images import check_classes, open_class_split
from piip.data.kinds import kind_of_data
from piip.data.report import DataError
from piip.tasks import check_data


@pytest.mark.parametrize("folder", ["train", "Train", "images", "train_images", "."])
@pytest.mark.parametrize("ending", ["", ".jpg", ".JPG"])
def test_ids_of_images_in_a_folder_beside_the_table(tmp_path: Path, folder: str, ending: str) -> None:
    for seed, name in enumerate(("abc", "abd")):
        write_image(tmp_path / folder / f"{name}.jpg", seed)
    (tmp_path / "train.csv").write_text(f"image_id,label\nabc{ending},cat\nabd{ending},dog\n")
    report = check_data(tmp_path)["train"]
    assert report.class_counts == {"cat": 1, "dog": 1}
    assert report.findings == []


def test_what_cannot_be_found_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("image,label\nabc,cat\nabd,dog\n")
    with pytest.raises(DataError, match=r"\(0 files listed\); first: missing file, line 2: abc: there is no such file"):
        open_class_split(tmp_path, "train")


def test_rows_of_an_unknown_split_are_reported_once(tmp_path: Path) -> None:
    rows = ["0,a,train", "1,b,train", "2,a,holdout", "3,b,", "4,a,val", "5,b,val"]
    for row in rows:
        write_image(tmp_path / f"{row[0]}.png", int(row[0]))
    (tmp_path / "all.csv").write_text("\n".join(["id,label,split", *rows]))
    reports = check_classes(tmp_path / "all.csv")
    finding = reports["train"].find("row whose split is none of train, val and test", "left out")
    assert finding is not None
    assert (finding.count, finding.examples) == (2, ["line 4: 'holdout'", "line 5: ''"])
    assert reports["val"].findings == []
    assert [reports[name].images for name in ("train", "val")] == [2, 2]


def test_boxes_are_no_classes(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 1)
    (tmp_path / "train.csv").write_text("filename,width,height,class,xmin,ymin,xmax,ymax\na.png,9,9,cat,1,1,5,5\n")
    assert kind_of_data(tmp_path / "train.csv") == kind_of_data(tmp_path) == "detection"
    (tmp_path / "train.csv").write_text("filename,width,height,class,xmin,ymin,xmax\na.png,9,9,cat,1,1,5\n")
    with pytest.raises(DataError, match=r"a table of boxes \(columns xmin, ymin, xmax\)"):
        check_data(tmp_path / "train.csv")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_of_spreadsheets(tmp_path: Path, encoding: str) -> None:
    for name in "ab":
        write_image(tmp_path / f"{name}.png", ord(name))
    (tmp_path / "Train.tsv").write_bytes("path\tlabel\r\na.png\tKäfer\r\nb.png\tAmsel\r\n".encode(encoding))
    assert check_data(tmp_path)["train"].class_counts == {"Amsel": 1, "Käfer": 1}
