"""Lines of text for people, on a terminal or in a file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment


class PIIPWarning(UserWarning):
    """What a user should know though all goes on; the command line shows it as a line."""


class Terminal(Console):
    """A console on which what a file says is text and nothing else.

    Names of classes, files and weights may hold escape sequences, which set a terminal's title, hide what was printed
    or worse. Here they are written out, wherever they stand: in lines, tables and bars. Of several processes of one
    training, only the main one's speaks, unless `everywhere`.
    """

    def __init__(self, *, everywhere: bool = False, **options: Any) -> None:
        super().__init__(**options)
        if not everywhere and int(os.environ.get("RANK") or 0) > 0:
            self.quiet = True

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does, without characters that a terminal would act upon."""
        for segment in super().render(renderable, options):
            text = segment.text
            if segment.control or text.isprintable():
                yield segment
            else:
                yield Segment(_written_out(text), segment.style)


def _written_out(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))


def printable(text: str) -> str:
    """`text` without the lone surrogates and control characters that break terminals and JSON files."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in encodable(text))


def encodable(text: str) -> str:
    """`text` without the lone surrogates that stand for undecodable bytes of file names, and that no file takes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def say(console: Console, text: str, style: str = "") -> None:
    """Print `text` as it is.

    It is not broken at the console's width (80 columns where there is no terminal), so that a path can be searched for
    and copied, and brackets in paths and names of classes are no markup.
    """
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def counted(number: int, thing: str) -> str:
    """A number with its noun in the singular or plural.

    >>> counted(1, "epoch"), counted(2, "class"), counted(1234, "image")
    ('1 epoch', '2 classes', '1,234 images')
    """
    ending = "" if number == 1 else "es" if thing.endswith("s") else "s"
    return f"{number:,} {thing}{ending}"


def shortened(names: Sequence[str], most: int) -> str:
    """The first `most` names and how many there are beyond, for messages.

    >>> shortened(("cat", "dog", "owl"), 2)
    'cat, dog and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
