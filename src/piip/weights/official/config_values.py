"""Values of expressions in config files, on their syntax trees: literals, `dict(...)`, arithmetic, names set above."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from piip.weights.errors import WeightsError

LARGEST_NUMBER = 1 << 256
LONGEST = 100_000
"""items of a list, characters of a text, and values of a whole config"""

ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip
SIGNS: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_,
}  # fmt: skip
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda part, whole: part in whole, ast.NotIn: lambda part, whole: part not in whole,
}  # fmt: skip

NUMERIC: dict[str, Callable[..., Any]] = {
    "int": int, "float": float, "bool": bool, "round": round, "abs": abs, "min": min, "max": max,
}  # fmt: skip


class ConfigError(Exception):
    """Something in a config that is no plain data, and where."""

    def __init__(self, message: str, node: ast.AST) -> None:
        super().__init__(message)
        self.line = getattr(node, "lineno", 0)


def evaluate(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """The value of an expression; `names` are the values that were set above it."""
    reader = READERS.get(type(node))
    if reader is None:
        raise ConfigError(f"an expression of kind {type(node).__name__} is no plain data", node)
    try:
        return reader(node, names)
    except (TypeError, KeyError, IndexError, ZeroDivisionError, OverflowError) as error:
        raise ConfigError(f"no such value ({error})", node) from error


def is_true(node: ast.expr, names: Mapping[str, Any]) -> bool:
    """Whether the value of an expression counts as true."""
    return bool(evaluate(node, names))


def plain(value: Any, source: str) -> Any:
    """A copy in which no list or dictionary is shared, of at most `LONGEST` values."""
    left = [LONGEST]

    def copied(value: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise WeightsError(f"{source}: more than {LONGEST} values; no config is that large")
        if isinstance(value, dict):
            return {key: copied(item) for key, item in value.items()}
        return type(value)(copied(item) for item in value) if isinstance(value, list | tuple | set) else value

    return copied(value)


def _constant(node: ast.Constant, _: Mapping[str, Any]) -> Any:
    if node.value is Ellipsis:
        raise ConfigError("`...` is no plain data", node)
    return node.value


def _name(node: ast.Name, names: Mapping[str, Any]) -> Any:
    if node.id not in names:
        raise ConfigError(f"the name {node.id!r} is not set above", node)
    return names[node.id]


def _items(nodes: list[ast.expr], names: Mapping[str, Any]) -> list[Any]:
    values: list[Any] = []
    for node in nodes:
        if isinstance(node, ast.Starred):
            values += evaluate(node.value, names)
        else:
            values.append(evaluate(node, names))
    return _short(values, nodes[0]) if nodes else values


def _dictionary(node: ast.Dict, names: Mapping[str, Any]) -> dict[Any, Any]:
    values: dict[Any, Any] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None:
            values.update(_mapping(value, names))
        else:
            values[evaluate(key, names)] = evaluate(value, names)
    return values


def _mapping(node: ast.expr, names: Mapping[str, Any]) -> dict[Any, Any]:
    value = evaluate(node, names)
    if not isinstance(value, dict):
        raise ConfigError("`**` needs a dictionary", node)
    return value


def _call(node: ast.Call, names: Mapping[str, Any]) -> Any:
    """`dict`, `list`, `tuple` and functions of numbers; no other call has a value here."""
    called = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)[:80]
    arguments = _items(node.args, names)
    if called in ("list", "tuple") and len(arguments) < 2 and not node.keywords:
        kept = arguments[0] if arguments else []
        if isinstance(kept, list | tuple):
            return list(kept) if called == "list" else tuple(kept)
    if called in NUMERIC and arguments and not node.keywords and all(isinstance(a, int | float) for a in arguments):
        return NUMERIC[called](*arguments)
    if called == "dict" and len(arguments) < 2:
        values: dict[Any, Any] = dict(arguments[0]) if arguments else {}
        for keyword in node.keywords:
            if keyword.arg is None:
                values.update(_mapping(keyword.value, names))
            else:
                values[keyword.arg] = evaluate(keyword.value, names)
        return values
    raise ConfigError(f"{called}(...) is not called", node)


def _binary(node: ast.BinOp, names: Mapping[str, Any]) -> Any:
    left, right = evaluate(node.left, names), evaluate(node.right, names)
    if type(node.op) not in ARITHMETIC or (isinstance(node.op, ast.Mod) and isinstance(left, str | bytes)):
        raise ConfigError("such an operation is not worked out", node)
    sizes = [len(value) if isinstance(value, list | tuple | str | bytes) else None for value in (left, right)]
    if isinstance(node.op, ast.Mult):
        for size, factor in zip(sizes, (right, left), strict=True):
            if size is not None and isinstance(factor, int) and size * factor > LONGEST:
                raise ConfigError(f"more than {LONGEST} items", node)
    if isinstance(node.op, ast.Pow) and not (abs(left) <= LARGEST_NUMBER and abs(right) <= 256):
        raise ConfigError("a number that is too large", node)
    return _short(ARITHMETIC[type(node.op)](left, right), node)


def _short(value: Any, node: ast.AST) -> Any:
    if isinstance(value, list | tuple | str | bytes) and len(value) > LONGEST:
        raise ConfigError(f"more than {LONGEST} items", node)
    if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        raise ConfigError("a number that is too large", node)
    return value


def _sign(node: ast.UnaryOp, names: Mapping[str, Any]) -> Any:
    if type(node.op) not in SIGNS:
        raise ConfigError("such an operation is not worked out", node)
    return SIGNS[type(node.op)](evaluate(node.operand, names))


def _boolean(node: ast.BoolOp, names: Mapping[str, Any]) -> Any:
    value: Any = None
    for part in node.values:
        value = evaluate(part, names)
        if bool(value) == isinstance(node.op, ast.Or):
            return value
    return value


def _comparison(node: ast.Compare, names: Mapping[str, Any]) -> bool:
    left = evaluate(node.left, names)
    for operation, part in zip(node.ops, node.comparators, strict=True):
        right = evaluate(part, names)
        if not COMPARISONS[type(operation)](left, right):
            return False
        left = right
    return True


def _choice(node: ast.IfExp, names: Mapping[str, Any]) -> Any:
    return evaluate(node.body if is_true(node.test, names) else node.orelse, names)


def _part(node: ast.Subscript, names: Mapping[str, Any]) -> Any:
    return evaluate(node.value, names)[evaluate(node.slice, names)]


def _slice(node: ast.Slice, names: Mapping[str, Any]) -> slice:
    return slice(*(None if part is None else evaluate(part, names) for part in (node.lower, node.upper, node.step)))


def _formatted(node: ast.JoinedStr, names: Mapping[str, Any]) -> str:
    """An f-string of texts and whole numbers, without formats."""
    text = ""
    for part in node.values:
        value = evaluate(part.value, names) if isinstance(part, ast.FormattedValue) else evaluate(part, names)
        simple = not isinstance(part, ast.FormattedValue) or (part.conversion == -1 and part.format_spec is None)
        if not simple or not isinstance(value, str | int):
            raise ConfigError("an f-string of anything but texts and whole numbers is not worked out", node)
        text += str(value)
    return str(_short(text, node))


READERS: dict[type[ast.expr], Callable[[Any, Mapping[str, Any]], Any]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.List: lambda node, names: _items(node.elts, names),
    ast.Tuple: lambda node, names: tuple(_items(node.elts, names)),
    ast.Set: lambda node, names: set(_items(node.elts, names)),
    ast.Dict: _dictionary,
    ast.Call: _call,
    ast.BinOp: _binary,
    ast.UnaryOp: _sign,
    ast.BoolOp: _boolean,
    ast.Compare: _comparison,
    ast.IfExp: _choice,
    ast.Subscript: _part,
    ast.Slice: _slice,
    ast.JoinedStr: _formatted,
}
