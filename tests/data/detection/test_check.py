"""The report over all splits of a data set."""

import io
import json

import pytest
from coco_records import annotation, image
from rich.console import Console

from piip.data.detection.check import DataError, check, print_reports
from piip.data.report import EXAMPLES, CheckReport, printable


def test_a_report_per_split_as_json_and_as_a_table(write, tmp_path):
    write([annotation(i, bbox=[1, 1, 0, 0], segmentation=[]) for i in range(1, 9)])
    write(name="val", files=("1.png", "3.png"), images=[image(1), image(2, file_name="3.png")])
    reports = check(tmp_path)
    assert list(reports) == ["train", "val"]
    content = json.loads(json.dumps({name: report.to_dict() for name, report in reports.items()}))
    empty = next(f for f in content["train"]["findings"] if f["kind"] == "box of zero size")
    assert (empty["severity"], empty["count"], len(empty["examples"])) == ("left out", 8, EXAMPLES)
    assert "annotation 1 of image 1 (1.png)" in empty["examples"][0]
    assert content["train"]["findings"][0]["severity"] == "error"
    text = io.StringIO()
    print_reports(reports, Console(file=text, width=200))
    for words in ("train: ", "box of zero size", "8", "no objects at all", "val: ", "1 objects (with outlines)"):
        assert words in text.getvalue()


def test_what_shows_only_between_splits(write, tmp_path):
    write()
    write(name="val", categories=[{"id": 3, "name": "dog"}, {"id": 7, "name": "cow"}])
    reports = check(tmp_path)
    assert reports["train"].errors == 0
    assert reports["val"].errors == 1
    assert reports["val"].find("categories differ from those of train")
    assert reports["val"].find("image also in train (same name and length)").count == 2


def test_an_unusable_split_is_a_finding(write, tmp_path):
    write()
    path, _ = write(name="val")
    path.write_text(path.read_text()[:100])
    reports = check(tmp_path)
    assert reports["train"].errors == 0
    assert "not a whole JSON file" in reports["val"].find("cannot be used").examples[0]


def test_no_data_set_is_an_error(tmp_path):
    with pytest.raises(DataError):
        check(tmp_path)


def test_hostile_names_cannot_break_the_terminal(write):
    report = CheckReport("file")
    report.add("note", "kind [bold]", "name \ud800 \x1b[31m \n [red]markup[/]")
    text = io.StringIO()
    Console(file=text, width=300, force_terminal=False).print(report.table("[/] title"))
    assert r"name \ud800 \x1b[31m \n [red]markup[/]" in text.getvalue()
    assert "kind [bold]" in text.getvalue()
    assert printable("é 图") == "é 图"


def test_a_clean_report_says_so():
    text = io.StringIO()
    Console(file=text, width=100).print(CheckReport("file").table("train"))
    assert "nothing to remark" in text.getvalue()


def test_the_same_classes_under_other_ids_are_no_error(write, tmp_path):
    write()
    write(name="val", categories=[{"id": 3, "name": "dog"}, {"id": 7, "name": "cat"}])
    report = check(tmp_path)["val"]
    assert report.errors == 0
    assert report.find("categories with other ids than in train (names count)", "note").count == 1
