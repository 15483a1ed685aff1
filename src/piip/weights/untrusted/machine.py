"""A pickle's opcodes, carried out on plain data alone.

The standard library's `pickletools` reads the opcodes; here they fill lists, dictionaries and tuples. Nothing is
imported, no constructor and no method of a pickled class is called. A name of code is only ever a `Name`; what may come
of names is listed in `constructions`, everything else is refused before the next opcode is looked at.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any, Protocol

from piip.weights.untrusted.constructions import Makers, build_state, construct, instantiate, named
from piip.weights.untrusted.errors import Damaged, Refused
from piip.weights.untrusted.inert import Inert, Name, checked_key

MOST_OPCODES = 10_000_000
"""each makes an object of 50 bytes and more; checkpoints have about 30 per tensor"""
PUSHED = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
))  # fmt: skip
"""opcodes that push their argument"""
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_SET": set,
}  # fmt: skip
IGNORED = frozenset(("PROTO", "FRAME"))
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Stream(Protocol):
    """Bytes that are read once, from the front."""

    def read(self, size: int, /) -> bytes:
        """So many bytes, or what is left."""

    def readline(self) -> bytes:
        """Bytes up to the next line's end, which is included."""

    def tell(self) -> int:
        """How many bytes were read."""


class Machine:
    """Reads pickles.

    Args:
        storage: what a persistent id, ("storage", type, key, device, elements), stands for
        makers: functions that build tensors out of it, by the names of PyTorch's own
    """

    def __init__(self, storage: Callable[[Any], Any], makers: Makers) -> None:
        self.storage, self.makers = storage, makers
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def load(self, stream: Stream) -> Any:
        """The value of the pickle at the stream's place; the stream then stands behind it.

        Raises:
            Refused: it would run code in other readers.
            Damaged: it is no well-formed pickle, or larger than any checkpoint's.
        """
        self.stack, self.marks, self.memo = [], [], {}
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):  # type: ignore[arg-type]
                if count > MOST_OPCODES:
                    raise Damaged(f"more than {MOST_OPCODES} steps")
                self._step(opcode.name, argument)
            (result,) = self.stack
        except (Refused, Damaged):
            raise
        except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, UnicodeError) as error:
            raise Damaged(str(error)) from error
        return result

    def _step(self, name: str, argument: Any) -> None:
        if name in PUSHED:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name]())
        elif name in TUPLES:
            self._push_tuple(TUPLES[name])
        elif name not in IGNORED:
            step = getattr(self, f"_{name.lower()}", None)
            if step is None:
                raise Damaged(f"opcode {name}")
            step(argument)

    # -- containers ----------------------------------------------------------------------------------------------

    def _push_tuple(self, length: int) -> None:
        parts = self.stack[len(self.stack) - length :]
        if len(parts) != length:
            raise Damaged("the stack is empty")
        self.stack[len(self.stack) - length :] = [tuple(parts)]

    def _mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def _since_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _pop(self, _: Any) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _stop(self, _: Any) -> None:
        if self.marks:
            raise Damaged("ends inside a list")

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _list(self, _: Any) -> None:
        self.stack.append(self._since_mark())

    def _dict(self, _: Any) -> None:
        values = self._since_mark()
        self.stack.append({})
        self._set(values)

    def _frozenset(self, _: Any) -> None:
        self.stack.append(frozenset(checked_key(value) for value in self._since_mark()))

    def _append(self, _: Any) -> None:
        value = self.stack.pop()
        self._extend([value])

    def _appends(self, _: Any) -> None:
        values = self._since_mark()
        self._extend(values)

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        target = target.items if isinstance(target, Inert) else target
        if not isinstance(target, list):
            raise Damaged(f"items for a {type(target).__name__}")
        target.extend(values)

    def _additems(self, _: Any) -> None:
        values = [checked_key(value) for value in self._since_mark()]
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.items.extend(values)
        elif isinstance(target, set):
            target.update(values)
        else:
            raise Damaged(f"items for a {type(target).__name__}")

    def _setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _setitems(self, _: Any) -> None:
        values = self._since_mark()
        self._set(values)

    def _set(self, values: list[Any]) -> None:
        target = self.stack[-1]
        target = target.values if isinstance(target, Inert) else target
        if not isinstance(target, dict) or len(values) % 2:
            raise Damaged(f"keys and values for a {type(target).__name__}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[checked_key(key)] = value

    # -- the memo ------------------------------------------------------------------------------------------------

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    _binget = _long_binget = _get

    def _put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    # -- names and what is made of them --------------------------------------------------------------------------

    def _global(self, argument: str) -> None:
        module, _, qualified = argument.partition(" ")
        self.stack.append(named(module, qualified, self.makers))

    def _stack_global(self, _: Any) -> None:
        qualified, module = self.stack.pop(), self.stack.pop()
        if not isinstance(module, str) or not isinstance(qualified, str):
            raise Damaged("a name that is no text")
        self.stack.append(named(module, qualified, self.makers))

    def _ext1(self, code: int) -> None:
        raise Refused(f"copyreg extension {code}")

    _ext2 = _ext4 = _ext1

    def _reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(construct(function, arguments, self.makers))

    def _inst(self, argument: str) -> None:
        module, _, qualified = argument.partition(" ")
        self.stack.append(construct(named(module, qualified, self.makers), tuple(self._since_mark()), self.makers))

    def _obj(self, _: Any) -> None:
        function, *arguments = self._since_mark()
        self.stack.append(construct(function, tuple(arguments), self.makers))

    def _newobj(self, _: Any) -> None:
        arguments, of = self.stack.pop(), self.stack.pop()
        self.stack.append(instantiate(of, arguments, self.makers))

    def _newobj_ex(self, _: Any) -> None:
        keywords, arguments, of = self.stack.pop(), self.stack.pop(), self.stack.pop()
        if not isinstance(keywords, dict):
            raise Damaged("keywords that are no dictionary")
        self.stack.append(instantiate(of, (*arguments, *((keywords,) if keywords else ())), self.makers))

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        build_state(self.stack[-1], state)

    def _persid(self, argument: str) -> None:
        self.stack.append(self._stored(argument))

    def _binpersid(self, _: Any) -> None:
        self.stack.append(self._stored(self.stack.pop()))

    def _stored(self, identity: Any) -> Any:
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
            raise Refused("a persistent id that is no storage of a tensor")
        if not isinstance(identity[1], Name):
            raise Damaged("a storage without a type")
        return self.storage(identity)
