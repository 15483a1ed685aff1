"""Lines for people stay whole, and what they name stays as it is."""

import ast
import io
from pathlib import Path

import pytest
from rich.table import Table

import piip
from piip.console import Terminal, say, shortened


@pytest.mark.parametrize("width", [20, 80])
def test_lines_are_printed_as_they_are(width: int) -> None:
    console = Terminal(file=io.StringIO(), width=width)
    text = "skipped /data/[b]old[/b]/" + "very/" * 40 + "long.jpg: not an image"
    say(console, text, "bold red")
    assert console.file.getvalue() == text + "\n"  # type: ignore[attr-defined]


def test_long_lists_are_shortened() -> None:
    assert shortened(["cat", "dog"], 2) == "cat, dog"
    assert shortened(("cat", "dog", "owl", "ant"), 2) == "cat, dog and 2 more"


HOSTILE = "\x1b]0;pwned\x00cat\x9b31m\udcff"


def test_what_files_say_does_not_reach_the_terminal_as_commands() -> None:
    console = Terminal(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    say(console, f"class {HOSTILE}\nsecond line")
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert not {"\x1b", "\x00", "\x9b", "\udcff"} & set(printed)
    assert printed.startswith("class \\x1b]0;pwned\\x00cat\\x9b31m\\udcff\nsecond line\n")


def test_styles_of_our_own_are_kept() -> None:
    console = Terminal(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
    say(console, "\x1b[1m", "red")
    assert console.file.getvalue() == "\x1b[31m\\x1b[1m\x1b[0m\n"  # type: ignore[attr-defined]


def test_there_is_no_other_console() -> None:
    """Whatever prints goes through the one that cleans; JSON and the version, which are ASCII, are printed plainly."""
    package = Path(piip.__file__).parent
    plain = {f"cli/{name}.py" for name in ("benchmark", "design", "info", "models", "settings", "__init__")}
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            assert called != "Console", f"{file}:{node.lineno}"
            assert called != "print" or file.relative_to(package).as_posix() in plain, f"{file}:{node.lineno}"
