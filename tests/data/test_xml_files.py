"""XML is read piece by piece, and nothing in it is carried out."""

import os
from pathlib import Path

import pytest

from piip.data.report import DataError
from piip.data.xml_files import Element, children_of_root, root_tag

BOMB = ('<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>'
        "<a><name>&c;&c;&c;&c;</name></a>")  # fmt: skip


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_elements_as_they_are_written(tmp_path: Path) -> None:
    file = written(tmp_path / "a.xml", '<a>x<b c="1"> two <d>&amp;<e/></d></b><b/></a>')
    first, second = children_of_root(file)
    assert first == Element("b", {"c": "1"}, " two ", [Element("d", {}, "&", [Element("e", {})])])
    assert (first.value("d"), first.value("d", "no"), second) == ("&", None, Element("b", {}))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    declared = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>'
    file = written(tmp_path / "a.xml", f"{declared}<a><b>Käse</b></a>", encoding)
    assert [element.text for element in children_of_root(file)] == ["Käse"]
    assert root_tag(file) == "a"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "document type"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "document type"),
        ("<b>" * 5000, "nested too deeply"),
        ("<a><b></a>", "not readable as XML"),
        ("", "not readable as XML"),
        ('<?xml version="1.0" encoding="gbk"?><a>\u4e2d</a>', "save it as UTF-8"),
    ],
)
def test_what_is_not_taken_names_the_file(text: str, reason: str, tmp_path: Path) -> None:
    file = written(tmp_path / "bad.xml", text, "gbk" if "gbk" in text else "utf-8")
    with pytest.raises(DataError, match=rf"bad\.xml.*{reason}"):
        list(children_of_root(file))


def test_a_pipe_is_not_waited_at(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.xml")
    assert root_tag(tmp_path / "pipe.xml") is None
    with pytest.raises(DataError, match="no such file"):
        list(children_of_root(tmp_path / "pipe.xml"))


def test_a_long_file_is_not_held_as_a_whole(tmp_path: Path) -> None:
    file = written(tmp_path / "a.xml", "<a>" + "<b><c/></b>" * 50_000 + "<broken")
    elements = children_of_root(file)
    assert next(elements).tag == "b"
    with pytest.raises(DataError):
        list(elements)
