"""What the pages of the documentation say that can be looked up: their code, links and headings."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import typer
from markdown_it import MarkdownIt
from markdown_it.token import Token

from piip.cli import app

ROOT = Path(__file__).parents[2]
MADE = {f"docs/reference/{name}.md" for name in ("commands", "settings", "models")}
"""pages that docs/reference/generate.py writes"""
PAGES = sorted(
    {str(path.relative_to(ROOT)) for where in (".", "docs", "docs/reference") for path in (ROOT / where).glob("*.md")}
    | {str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*.md")} - MADE
)


class Said(NamedTuple):
    """A piece of code in a page."""

    text: str
    language: str
    """of a block, "" if it has none; "inline" in a sentence"""
    place: str
    """page and line"""


@cache
def tokens(page: str) -> list[Token]:
    """The page, parsed once."""
    return MarkdownIt().enable("table").parse((ROOT / page).read_text(encoding="utf-8"))


def said(page: str) -> Iterator[Said]:
    """All code of a page, in order."""
    line = 0
    for token in tokens(page):
        line = token.map[0] + 1 if token.map else line
        if token.type == "fence":
            yield Said(token.content, token.info.strip(), f"{page}:{line}")
        for child in token.children or ():
            if child.type == "code_inline":
                yield Said(child.content, "inline", f"{page}:{line}")


@cache
def all_said() -> tuple[Said, ...]:
    """That of all pages."""
    return tuple(piece for page in PAGES for piece in said(page))


def commands(piece: Said) -> Iterator[list[str]]:
    """What follows each "piip" of a piece, in words: without comments, brackets, dots and what the shell does."""
    if piece.language not in ("", "bash", "inline"):
        return
    for line in piece.text.replace("\\\n", " ").splitlines():
        for part in re.split(r"[|;&]\s|\bdo\b", line):
            match = re.search(r"^(?:\w+=\S+ )*(?:torchrun .*-m )?piip ([a-z]\S*.*)", part.strip())
            if match is not None:
                yield shlex.split(re.sub(r"\.\.\.(?=\s|$)|[\[\]]", "", match[1]), comments=True)


@cache
def command_line() -> Any:
    """`piip`, with its commands."""
    return typer.main.get_command(app)


def verbs(group: Any = None) -> Iterator[Any]:
    """The commands of the command line, those of groups too."""
    for command in (group or command_line()).commands.values():
        if hasattr(command, "commands"):
            yield from verbs(command)
        else:
            yield command


def options_of(command: Any) -> set[str]:
    """All spellings."""
    return {one for option in command.params for one in (*option.opts, *option.secondary_opts)} | {"--help"}


def links(page: str) -> Iterator[str]:
    """Where links and pictures lead to, but for other sites."""
    for token in tokens(page):
        for child in token.children or ():
            target = str(child.attrs.get("href") or child.attrs.get("src") or "")
            if target and "://" not in target:
                yield target


def anchors(page: str) -> set[str]:
    """Of its headings, as the site and GitHub make them."""
    found, before = set(), None
    for token in tokens(page):
        if before == "heading_open":
            plain = re.sub(r"[^\w\s-]", "", token.content.lower()).strip()
            found.add(re.sub(r"\s", "-", plain))
        before = token.type
    return found
