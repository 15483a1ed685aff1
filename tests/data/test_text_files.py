"""One reader each for text, JSON, YAML and tables: byte order marks, limits, and nothing but values."""

import codecs
import json
import os
from pathlib import Path

import pytest

from piip.data import text_files
from piip.data.report import DataError
from piip.data.text_files import (
    read_json,
    read_lines,
    read_table,
    read_text,
    read_typed_yaml,
    read_yaml,
    table_titles,
    typed_yaml,
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "a"
    file.write_bytes("path,label\r\né.png,1\r\n".encode(encoding))
    assert read_lines(file) == ["path,label", "é.png,1", ""]
    assert table_titles(file) == ["path", "label"]
    titles, rows = read_table(file)
    assert (titles, list(rows)) == (["path", "label"], [(2, ["é.png", "1"])])
    file.write_bytes('{"é": [1]}'.encode(encoding))
    assert read_json(file) == {"é": [1]}
    assert read_yaml(file) == {"é": ["1"]}


def test_utf_16_of_the_other_order(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(codecs.BOM_UTF16_BE + "ab".encode("utf-16-be"))
    assert read_text(tmp_path / "a") == "ab"


@pytest.mark.parametrize("data", [b"caf\xe9", b"a\0b", b"\x89PNG\r\n\x1a\n\0"])
def test_no_text(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(DataError, match=r"a: not readable as text.*save it as UTF-8"):
        read_text(tmp_path / "a")


def test_names_in_yaml_are_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text('names: [no, yes, 010, 12:30, 1_000, 1.10, ~, "on", 2024-01-01, 0x1F, .5]\n')
    names = ["no", "yes", "010", "12:30", "1_000", "1.10", "~", "on", "2024-01-01", "0x1F", ".5"]
    assert read_yaml(tmp_path / "a.yaml") == {"names": names}


def test_a_few_aliases_do_not_become_billions_of_values(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    (tmp_path / "a.yaml").write_text("\n".join([*lines, "names: *i"]))
    with pytest.raises(DataError, match=r"a\.yaml: not readable as YAML \(more than 200000 values"):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 5000, "nested too deeply"),
        ("&a [*a]", "nested too deeply|more than"),
        ("[", "not readable as YAML"),
        ("a: !!python/object/apply:os.system [echo]", "the tag"),
        ("a: !mine 1", "the tag"),
        ("? [a]\n: 1", "a key that is no text"),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize(("text", "message"), [("[" * 100_000, "nested too deeply"), ('{"a": ', "is it cut off")])
def test_json_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_json(tmp_path / "a.json")


def test_limits_and_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    with pytest.raises(DataError, match="cannot be read: 0 MB"):
        read_text(tmp_path / "a", largest=4)
    monkeypatch.setattr(text_files, "LARGEST_DESCRIPTION", 4)
    with pytest.raises(DataError, match="cannot be read"):
        read_yaml(tmp_path / "a")
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match="no such file"):
            read_text(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_nobody_waits_at_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="no such file"):
        read_text(tmp_path / "pipe")
    assert table_titles(tmp_path / "pipe") == []


def test_tables(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('path;label\n"two\nlines.png";a\n\n x ; "b;c" \n')
    titles, rows = read_table(file)
    assert titles == ["path", "label"]
    assert next(iter(rows)) == (3, ["two\nlines.png", "a"])
    file.write_text("a,b\n" + "x" * 200_000 + ",1\n")
    with pytest.raises(DataError, match="line 2: field larger"):
        read_table(file)


def test_empty_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    assert read_yaml(tmp_path / "a") is None
    assert read_table(tmp_path / "a")[0] == []
    with pytest.raises(DataError):
        read_json(tmp_path / "a")
    (tmp_path / "a").write_text(json.dumps({"a": 1}))
    assert read_json(tmp_path / "a") == {"a": 1}


def test_settings_keep_their_types(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("lr: 1.0e-4\nepochs: 5\nname: null\nuse: true\nboth: &a [1]\nagain: *a\n")
    values = {"lr": 1e-4, "epochs": 5, "name": None, "use": True, "both": [1], "again": [1]}
    assert read_typed_yaml(tmp_path / "a.yaml") == values
    assert typed_yaml("", "x") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 5000, "x: not readable as YAML .nested too deeply"),
        ("&a [*a]", "nested too deeply|more than"),
        ("[", "x: not readable as YAML"),
        ("2024-99-99", "x: not readable as YAML"),
        ("!!python/object/apply:os.system [echo]", "x: not readable as YAML"),
        ("9" * 5000, "x: not readable as YAML"),
        ("a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
        ), "more than 200000 values"),
    ],
)  # fmt: skip
def test_settings_beyond_limits(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        typed_yaml(text, "x")
