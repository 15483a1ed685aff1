"""The blocks of code in a page of the documentation, and what runs them."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer
from markdown_it import MarkdownIt

from piip.cli import app

DOCS = Path(__file__).parents[2] / "docs"


class Block(NamedTuple):
    """A fenced block."""

    language: str
    text: str
    place: str
    """page and line, for an error"""


def blocks(page: str) -> Iterator[Block]:
    """Those of a page, in order; of a command line each line is one."""
    for token in MarkdownIt().parse((DOCS / page).read_text(encoding="utf-8")):
        if token.type != "fence":
            continue
        line = token.map[0] + 2 if token.map else 0
        language = token.info.strip() or "commands"
        if language != "commands":
            yield Block(language, token.content, f"{page}:{line}")
            continue
        for number, text in enumerate(token.content.splitlines()):
            if text.startswith(("piip ", "curl ")):
                yield Block(language, text, f"{page}:{line + number}")


def run_command(text: str) -> None:
    """A line that begins with "piip", in this process."""
    words = shlex.split(text, comments=True)[1:]
    code = typer.main.get_command(app).main(words, prog_name="piip", standalone_mode=False)
    assert not code, f"{text}: exit code {code}"


def run_python(block: Block, text: str, names: dict[str, Any]) -> None:
    """A block of Python, after those before it on the page."""
    exec(compile(text, block.place, "exec"), names)  # noqa: S102
