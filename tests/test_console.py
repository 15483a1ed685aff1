"""Lines for people stay whole, and what they name stays as it is."""

import io

import pytest
from rich.console import Console

from piip.console import say, shortened


@pytest.mark.parametrize("width", [20, 80])
def test_lines_are_printed_as_they_are(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    text = "skipped /data/[b]old[/b]/" + "very/" * 40 + "long.jpg: not an image"
    say(console, text, "bold red")
    assert console.file.getvalue() == text + "\n"  # type: ignore[attr-defined]


def test_long_lists_are_shortened() -> None:
    assert shortened(["cat", "dog"], 2) == "cat, dog"
    assert shortened(("cat", "dog", "owl", "ant"), 2) == "cat, dog and 2 more"
