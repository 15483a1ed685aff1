"""Long lists of a JSON file, of which each record is made when it is asked for: made at once, they take ten times the
memory of the file."""  # fmt: skip

from __future__ import annotations

import codecs
import gc
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from piip.data.text_files import LARGEST_ANNOTATIONS, parsed_json, read_bytes

Kind = TypeVar("Kind", bound=msgspec.Struct)
BLOCK = 1 << 12
"""records that are looked at together"""
_CHUNK = 1 << 22


class Ids(msgspec.Struct, gc=False):
    """What annotation records are known by, whatever it is."""

    id: Any = None
    category_id: Any = None


class Records(Sequence[Any]):
    """A list of records, of which those that are still text become values when they are asked for, each time anew."""

    def __init__(self, items: list[Any], source: tuple[Path, bytes] | None = None) -> None:
        """`items`: values, or parts of a file, whose name and bytes are the `source`."""
        self._items = items
        self._source = source

    @classmethod
    def of(cls, items: list[Any] | Records) -> Records:
        """Those, or a list as what they are."""
        return items if isinstance(items, cls) else cls(list(items))

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        return self._value(self._items[index])

    def __iter__(self) -> Iterator[Any]:
        return map(self._value, self._items)

    def as_kind(self, kind: type[Kind], start: int, stop: int) -> list[Kind | None]:
        """Some of the records as what they should be; None for those that are something else."""
        decode = msgspec.json.Decoder(kind).decode
        found: list[Kind | None] = []
        for item in self._items[start:stop]:
            try:
                found.append(decode(item) if type(item) is msgspec.Raw else msgspec.convert(item, kind))
            except (ValueError, RecursionError):
                found.append(None)
        return found

    def ids(self) -> Iterator[Ids]:
        """The ids of each record that is an object."""
        for start in range(0, len(self), BLOCK):
            for position, ids in enumerate(self.as_kind(Ids, start, start + BLOCK), start):
                record = self[position] if ids is None else {}
                if isinstance(record, dict):
                    yield ids or Ids(record.get("id"), record.get("category_id"))

    def _value(self, item: Any) -> Any:
        if type(item) is not msgspec.Raw:
            return item
        try:
            return _decoded(item)
        except (ValueError, RecursionError):
            assert self._source is not None
            parsed_json(*self._source)  # says where in the file
            raise


@contextmanager
def without_collections() -> Iterator[None]:
    """Inside the block Python looks for no circles among what it holds: it would, among millions of short lists which
    have none, for as long as it takes to read them."""  # fmt: skip
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_json_lists(path: Path, keys: Collection[str]) -> Any:
    """What a JSON file holds, as `text_files.read_json`; the lists under these keys of an object are `Records`."""
    data = read_bytes(path, LARGEST_ANNOTATIONS)
    try:
        _check_text(data)
        start = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
        parts = msgspec.json.decode(memoryview(data)[start:], type=dict[str, msgspec.Raw])
        return {key: _list(raw, path, data) if key in keys else _decoded(raw) for key, raw in parts.items()}
    except (ValueError, RecursionError):  # something that only the usual reader takes, or no JSON
        content = parsed_json(path, data)
        if isinstance(content, dict):
            content |= {key: Records(content[key]) for key in keys if isinstance(content.get(key), list)}
        return content


def _list(raw: msgspec.Raw, path: Path, data: bytes) -> Any:
    try:
        return Records(msgspec.json.decode(raw, type=list[msgspec.Raw]), (path, data))
    except msgspec.ValidationError:
        return _decoded(raw)


def _decoded(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:  # half of a surrogate pair, and numbers beyond the largest float
        return json.loads(bytes(raw))


def _check_text(data: bytes) -> None:
    """UnicodeDecodeError for what is not UTF-8, as the whole would raise it: parts are passed over unread."""
    if data.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")
    for start in range(0, len(data), _CHUNK):
        decoder.decode(data[start : start + _CHUNK], final=start + _CHUNK >= len(data))
