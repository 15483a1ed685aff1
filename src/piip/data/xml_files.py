"""XML that came with somebody's data: read piece by piece, without document types and so without entities."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from piip.data.report import DataError
from piip.data.text_files import LARGEST, text_encoding

DEEPEST = 64
"""elements inside each other"""
AT_ONCE = 1 << 16
"""bytes that are parsed before what they complete is handed out"""
PEEK_BYTES = 1 << 14


@dataclass(slots=True)
class Element:
    """One element with all that is in it."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, tag: str) -> list[Element]:
        """The children called `tag`."""
        return [child for child in self.children if child.tag == tag]

    def first(self, *path: str) -> Element | None:
        """The first child called so, its first child called so, and so on; None where there is none."""
        found: Element | None = self
        for tag in path:
            found = None if found is None else next((child for child in found.children if child.tag == tag), None)
        return found

    def value(self, *path: str) -> str | None:
        """The text of `first`, without the spaces around it."""
        found = self.first(*path)
        return None if found is None else found.text.strip()


def root_tag(path: Path) -> str | None:
    """What the outermost element is called, for a first look; None where that is no XML."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            beginning = file.read(PEEK_BYTES)
    except OSError:
        return None
    text = beginning.decode(text_encoding(beginning), "ignore")
    found = re.search(r"<([A-Za-z_][\w.:-]*)", re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))
    return found[1] if found and text.lstrip("\ufeff \t\r\n").startswith("<") else None


def children_of_root(path: Path, largest: int = LARGEST) -> Iterator[Element]:
    """The elements directly below the outermost one, each as soon as it is complete.

    Raises DataError for what is no regular file of at most `largest` bytes or no XML, and for a document type: with
    one, a few bytes can stand for gigabytes or for another file.
    """
    try:
        if not path.is_file():
            raise DataError(f"{path}: cannot be read (there is no such file)")
        if path.stat().st_size > largest:
            raise DataError(f"{path}: cannot be read: larger than {largest / 1e6:.0f} MB")
        with path.open("rb") as file:
            builder = _Builder()
            parser = builder.parser()
            while chunk := file.read(AT_ONCE):
                parser.Parse(chunk, False)
                yield from builder.take()
            parser.Parse(b"", True)
            yield from builder.take()
    except expat.ExpatError as error:
        raise DataError(f"{path}: not readable as XML ({error})") from error
    except _Refused as error:
        raise DataError(f"{path}: not readable as XML: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, LookupError) as error:  # an encoding that expat does not know
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not readable as XML ({error}); save it as UTF-8") from error


class _Refused(Exception):
    """XML that is not taken, whatever it says."""


class _Builder:
    def __init__(self) -> None:
        self.open: list[Element] = []
        self.complete: list[Element] = []

    def parser(self) -> expat.XMLParserType:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self.start
        parser.EndElementHandler = self.end
        parser.CharacterDataHandler = self.text
        parser.StartDoctypeDeclHandler = self.refuse
        return parser

    def take(self) -> list[Element]:
        taken, self.complete = self.complete, []
        return taken

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self.open) >= DEEPEST:
            raise _Refused("nested too deeply")
        element = Element(tag, attributes)
        if len(self.open) > 1:
            self.open[-1].children.append(element)
        self.open.append(element)

    def end(self, tag: str) -> None:
        element = self.open.pop()
        if len(self.open) == 1:
            self.complete.append(element)

    def text(self, data: str) -> None:
        if len(self.open) > 1:
            self.open[-1].text += data

    def refuse(self, *_: object) -> None:
        raise _Refused("it declares a document type (<!DOCTYPE ...>), which annotations do not need; remove it")
