"""Text, JSON, YAML and tables that came with somebody's data: one reader for each, for all tasks.

All take the byte order marks that Windows writes and name the file in every error. None reads more than a limit, waits
at a pipe, or does what a file asks of it.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from piip.data.report import DataError

LARGEST = 1 << 30
"""bytes of a list or table"""
LARGEST_DESCRIPTION = 1 << 24
"""bytes of a YAML or JSON file that describes classes"""
LARGEST_ANNOTATIONS = 1 << 33
"""bytes of a JSON file of annotations"""
MOST_NODES = 200_000
"""values in a YAML file, each counted as often as it is referred to"""
DELIMITERS = ",;\t"

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""byte order marks, the longer first where one begins with another"""


class Row(NamedTuple):
    """One row of a table."""

    line: int
    """of the file, from 1"""
    cells: list[str]


def read_bytes(path: Path, largest: int = LARGEST) -> bytes:
    """The bytes of a regular file of at most `largest`; DataError otherwise."""
    try:
        if not path.is_file():
            raise DataError(f"{path}: cannot be read (there is no such file)")
        size = path.stat().st_size
        if size > largest:
            raise DataError(f"{path}: cannot be read: {size / 1e6:.0f} MB, of at most {largest / 1e6:.0f}")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_text(path: Path, largest: int = LARGEST) -> str:
    """A text in UTF-8, or in UTF-16 or UTF-32 with a byte order mark; DataError for anything else."""
    data = read_bytes(path, largest)
    encoding = text_encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not readable as text: {error}; save it as UTF-8") from error
    if "\0" in text:
        raise DataError(f"{path}: not readable as text: it holds zero bytes; save it as UTF-8")
    return text


def text_encoding(beginning: bytes) -> str:
    """What a text is written in, by its first bytes."""
    return next((encoding for mark, encoding in _MARKS if beginning.startswith(mark)), "utf-8")


def read_lines(path: Path, largest: int = LARGEST) -> list[str]:
    """The lines of a text, without their ends, which may be those of any system."""
    return read_text(path, largest).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_json(path: Path, largest: int = LARGEST_ANNOTATIONS) -> Any:
    """What a JSON file holds."""
    return parsed_json(path, read_bytes(path, largest))


def parsed_json(path: Path, data: bytes) -> Any:
    """`read_json` of the bytes of that file."""
    try:
        return json.loads(data)  # bytes: finds out about UTF-8, UTF-16 and byte order marks
    except RecursionError as error:
        raise DataError(f"{path}: not readable: nested too deeply") from error
    except ValueError as error:  # JSON and text encoding errors
        raise DataError(
            f"{path}: not readable: not a whole JSON file ({error}); is it cut off? Export it again"
        ) from error


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, every value as the text that is written there: `no` and `010` are names like others."""
    return yaml_text(read_text(path, LARGEST_DESCRIPTION), str(path))


def yaml_text(text: str, source: str) -> Any:
    """`read_yaml` of a text that `source` holds."""
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
        return None if node is None else _Plain().value(node)
    except RecursionError as error:
        raise DataError(f"{source}: not readable as YAML (nested too deeply)") from error
    except yaml.YAMLError as error:
        raise DataError(f"{source}: not readable as YAML ({str(error).splitlines()[0]})") from error


def read_typed_yaml(path: Path) -> Any:
    """What a YAML file holds, numbers as numbers and `null` as None: for settings, which are ours."""
    return typed_yaml(read_text(path, LARGEST_DESCRIPTION), str(path))


def typed_yaml(text: str, source: str) -> Any:
    """The value of a YAML text; DataError, naming `source`, for what is none or stands for more than limits allow."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _Plain().value(node)  # counts
        return loader.construct_document(node)
    except RecursionError as error:
        raise DataError(f"{source}: not readable as YAML (nested too deeply)") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: dates and numbers that are none
        raise DataError(f"{source}: not readable as YAML ({str(error).splitlines()[0]})") from error
    finally:
        loader.dispose()


class _Plain:
    """Turns YAML's nodes into lists, dicts and texts, and counts them: a few aliases can stand for billions."""

    def __init__(self) -> None:
        self.nodes = 0

    def value(self, node: yaml.Node) -> Any:
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise yaml.YAMLError(f"more than {MOST_NODES} values, with all that its aliases stand for")
        if not node.tag.startswith("tag:yaml.org,2002:") or ":python/" in node.tag:
            raise yaml.YAMLError(f"the tag {node.tag}, which has no meaning here")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item) for item in node.value]
        if not isinstance(node, yaml.MappingNode):
            return node.value
        found = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key that is no text, in line {key.start_mark.line + 1}")
            found[str(key.value)] = self.value(value)
        return found


def read_table(path: Path, largest: int = LARGEST) -> tuple[list[str], Iterator[Row]]:
    """The titles and the rows of a table with commas, semicolons or tabs; rows without any cell are passed over."""
    text = read_text(path, largest)
    delimiter = max(DELIMITERS, key=text.split("\n", 1)[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        titles = [title.strip() for title in next(reader, [])]
        rows = [Row(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if cells]
    except csv.Error as error:
        raise DataError(f"{path}: not readable as a table: line {reader.line_num}: {error}") from error
    return titles, iter(rows)


def read_rows(path: Path, largest: int = LARGEST) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a table or of a file with a JSON object in each line (.jsonl), by their titles, with their lines."""
    if path.suffix.lower() != ".jsonl":
        titles, rows = read_table(path, largest)
        for line, cells in rows:
            yield line, dict(zip(titles, cells, strict=False))
        return
    for line, text in enumerate(read_lines(path, largest), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: line {line} is not readable as JSON ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {line} is no JSON object")
        yield line, row


def beginning_of(path: Path, most: int = 1 << 16) -> str:
    """The beginning of a regular file as text, for a first look; nothing where it cannot be read."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            beginning = file.read(most)
    except OSError:
        return ""
    return beginning.decode(text_encoding(beginning), "ignore").lstrip("\ufeff")


def table_titles(path: Path) -> list[str]:
    """The titles of a table, for a first look; none where they cannot be read."""
    lines = beginning_of(path).splitlines()
    header = lines[0] if lines else ""
    try:
        titles = next(csv.reader([header], delimiter=max(DELIMITERS, key=header.count)), [])
    except csv.Error:  # a NUL, before Python 3.11
        return []
    return [title.strip() for title in titles]
