"""Lines of text for people, on a terminal or in a file."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console


def say(console: Console, text: str, style: str = "") -> None:
    """Print `text` as it is.

    It is not broken at the console's width (80 columns where there is no terminal), so that a path can be searched for
    and copied, and brackets in paths and names of classes are no markup.
    """
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def shortened(names: Sequence[str], most: int) -> str:
    """The first `most` names and how many there are beyond, for messages.

    >>> shortened(("cat", "dog", "owl"), 2)
    'cat, dog and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
