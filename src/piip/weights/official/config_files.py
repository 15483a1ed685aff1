"""Config files of mmdetection, mmsegmentation and classification (`.py`), read as data: nothing in them is run.

A config is a list of assignments of numbers, texts, lists and dictionaries. That much Python is understood here, on
the syntax tree, with `_base_` files, `_delete_`, arithmetic, names that were assigned above and `if` on such values;
everything else is an error that names the line.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from piip.weights.errors import WeightsError
from piip.weights.official.config_values import ConfigError, evaluate, is_true, plain

Values = dict[str, Any]

BASE, DELETE = "_base_", "_delete_"
LARGEST = 4 << 20
"""bytes of a config's text"""
DEEPEST = 16
"""`_base_` files of `_base_` files"""


def read_config_file(path: str | Path) -> Values:
    """The values of a config file, those of its `_base_` files included.

    Raises WeightsError (a ValueError) with file and line where something is no plain data, and for a base that is
    missing, refers back to the file, or sets a key that another one sets.
    """
    return plain(_file(Path(path), ()), str(path))


def read_config_text(text: str, source: str) -> Values:
    """The values of a config's text, such as the one that mmcv puts into a checkpoint's `meta["config"]`.

    Raises WeightsError as `read_config_file` does, naming `source`.
    """
    values = _values(text, source)
    if BASE in values:
        raise WeightsError(f"{source}: refers to {BASE} files; only a resolved config can stand alone")
    return plain(values, source)


def _file(path: Path, within: tuple[Path, ...]) -> Values:
    resolved = path.resolve()
    if resolved in within:
        raise WeightsError(f"{path}: a {BASE} file of itself")
    if len(within) >= DEEPEST:
        raise WeightsError(f"{path}: more than {DEEPEST} {BASE} files deep")
    try:
        if path.stat().st_size > LARGEST:
            raise WeightsError(f"{path}: too large for a config")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file" + (f", a {BASE} of {within[-1]}" if within else "")) from None
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path}: not readable as a config ({error})") from None
    values = _values(text, str(path))
    merged: Values = {}
    for base in _bases(values.pop(BASE, []), path):
        found = _file(base, (*within, resolved))
        if twice := sorted(found.keys() & merged.keys()):
            raise WeightsError(f"{path}: its {BASE} files set {', '.join(twice[:8])} twice")
        merged |= found
    return merge(merged, values, str(path))


def _bases(listed: Any, path: Path) -> list[Path]:
    listed = [listed] if isinstance(listed, str) else listed
    if not isinstance(listed, list | tuple) or not all(isinstance(name, str) for name in listed):
        raise WeightsError(f"{path}: {BASE} must be a file name or a list of them")
    if other := [name for name in listed if not name.endswith(".py") or "::" in name]:
        raise WeightsError(f"{path}: {BASE} {other[0]!r} is no .py file beside or above it")
    return [path.parent / name for name in listed]


def merge(base: Values, changes: Values, source: str) -> Values:
    """`base` with `changes`: dictionaries key by key, except where one says `_delete_=True`; all else is replaced."""
    merged = dict(base)
    for key, value in changes.items():
        if not isinstance(value, dict):
            merged[key] = value
            continue
        deletes, rest = value.get(DELETE, False), {name: item for name, item in value.items() if name != DELETE}
        old = merged.get(key)
        if key not in merged or deletes:
            merged[key] = merge({}, rest, source)
        elif isinstance(old, dict):
            merged[key] = merge(old, rest, source)
        else:
            raise WeightsError(f"{source}: {key} is a dictionary here and a {type(old).__name__} in its {BASE} file; "
                               f"write {DELETE}=True into it to replace that")  # fmt: skip
    return merged


def _values(text: str, source: str) -> Values:
    try:
        tree = ast.parse(text)
        values: Values = {}
        for statement in tree.body:
            for name, value in _assigned(statement, values):
                values[name] = value
    except SyntaxError as error:
        raise WeightsError(f"{source}, line {error.lineno}: not Python ({error.msg})") from None
    except ConfigError as error:
        raise WeightsError(f"{source}, line {error.line}: {error}") from None
    except (RecursionError, MemoryError, ValueError) as error:
        raise WeightsError(f"{source}: not readable as a config ({error})") from None
    return {name: value for name, value in values.items() if not name.startswith("__")}


def _assigned(statement: ast.stmt, values: Values) -> Iterator[tuple[str, Any]]:
    """Names and values that a statement sets, one after the other."""
    if isinstance(statement, ast.Assign):
        value = evaluate(statement.value, values)
        for target in statement.targets:
            if not isinstance(target, ast.Name):
                raise ConfigError("only names are set in a config", target)
            yield target.id, value
    elif isinstance(statement, ast.If):
        for inner in statement.body if is_true(statement.test, values) else statement.orelse:
            yield from _assigned(inner, values)
    elif not isinstance(statement, ast.Pass) and not _is_text(statement):
        raise ConfigError(f"{_kind(statement)} is not run; resolve the config where its packages are installed, and "
                          "give the resolved one", statement)  # fmt: skip


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _kind(statement: ast.stmt) -> str:
    names = {"Import": "an import", "ImportFrom": "an import", "FunctionDef": "a function", "ClassDef": "a class",
             "With": "a `with` block", "For": "a loop", "While": "a loop", "Expr": "a call"}  # fmt: skip
    return names.get(type(statement).__name__, f"a statement of kind {type(statement).__name__}")
