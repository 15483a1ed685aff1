"""The names that may stand in a pickle, and the plain data that come of them.

Four kinds: functions of PyTorch that put tensors together (ours stand in for them), containers and numbers, whose
values are built, well-known classes of data (dates, paths, namespaces), of which the arguments are kept, and any
other class, if the pickle only makes an object of it and gives it its state. A *call* of anything else is refused, and
so is a standard library's name that is not listed, called or not.
"""

from __future__ import annotations

import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # Python 2's names, which protocols below 3 write
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from piip.weights.untrusted.arrays import ARRAYS, ArrayData, DType
from piip.weights.untrusted.errors import Damaged, Refused
from piip.weights.untrusted.inert import Inert, Name, checked_key

Makers = Mapping[str, Callable[..., Any]]

MOVED = {
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
    "pathlib._local": "pathlib",
}
"""modules that have another name in newer versions, with the older one"""
ENCODINGS = ("latin1", "latin-1", "utf-8", "utf8", "ascii")


def _listed(*names: tuple[str, str]) -> frozenset[str]:
    return frozenset(f"{module}.{name}" for module, several in names for name in several.split(" "))


PLAIN_TYPES = _listed(
    ("builtins", "int float complex bool str bytes bytearray list tuple dict set frozenset object slice range NoneType")
)
"""named as values, as in `argparse.Namespace(type=int)`"""
DATA = _listed(
    ("argparse", "Namespace"),
    ("builtins", "slice range"),
    ("collections", "deque"),
    ("datetime", "datetime date time timedelta timezone"),
    ("decimal", "Decimal"),
    ("fractions", "Fraction"),
    ("pathlib", "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath"),
    ("torch", "device"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage _rebuild_qtensor _rebuild_sparse_tensor"),
    ("torch._utils", "_rebuild_wrapper_subclass"),
    ("torch.serialization", "_get_layout"),
    ("types", "SimpleNamespace"),
    ("uuid", "UUID"),
)
"""calls that are known to give data and do nothing else: kept as what they were called with"""
FAMILIES = ("mmcv", "mmengine", "mmdet", "mmseg", "mmcls", "mmpretrain", "addict", "deepspeed")
"""packages whose classes may be called with arguments; what begins with a capital letter is a class there"""


def _mapping(*arguments: Any) -> dict[Any, Any]:
    """Of a dictionary's arguments: nothing, another one, a list of pairs, or each pair by itself."""
    if len(arguments) == 1 and isinstance(arguments[0], dict):
        return dict(arguments[0])
    pairs = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], list) else arguments
    return {checked_key(key): value for key, value in pairs}


def _default_mapping(*arguments: Any) -> dict[Any, Any]:
    return _mapping(*arguments[1:])  # the first one would be called for a missing key


def _encoded(text: str = "", encoding: str = "utf-8") -> bytes:
    if not isinstance(text, str) or encoding not in ENCODINGS:
        raise Damaged(f"text in {encoding!r}")
    return text.encode(encoding)


def _bytearray(content: Any = b"", encoding: str | None = None) -> bytearray:
    if isinstance(content, bytes):
        return bytearray(content)
    if isinstance(content, str) and encoding in ENCODINGS:
        return bytearray(content.encode(encoding))
    raise Damaged("a bytearray of something else than bytes")  # of a number, it would be as long as that


def _set(values: Any = ()) -> set[Any]:
    return {checked_key(value) for value in _sequence(values)}


def _frozenset(values: Any = ()) -> frozenset[Any]:
    return frozenset(_set(values))


def _sequence(values: Any = ()) -> Any:
    if not isinstance(values, list | tuple):
        raise Damaged(f"items out of a {type(values).__name__}")
    return values


def _complex(real: float = 0.0, imaginary: float = 0.0) -> complex:
    return complex(float(real), float(imaginary))


MAPPINGS = ("collections.OrderedDict", "collections.Counter", "mmcv.utils.config.ConfigDict",
            "mmengine.config.config.ConfigDict", "mmengine.config.ConfigDict", "addict.addict.Dict")  # fmt: skip

VALUES: Makers = dict.fromkeys(MAPPINGS, _mapping) | {
    "collections.defaultdict": _default_mapping,
    "_codecs.encode": _encoded,
    "builtins.bytes": _encoded,
    "builtins.bytearray": _bytearray,
    "builtins.set": _set,
    "builtins.frozenset": _frozenset,
    "builtins.list": lambda values=(): list(_sequence(values)),
    "builtins.tuple": lambda values=(): tuple(_sequence(values)),
    "builtins.dict": _mapping,
    "builtins.complex": _complex,
    "torch.Size": lambda values=(): tuple(_sequence(values)),
    **ARRAYS,
}
"""calls whose value is built, here, out of plain data"""

RECONSTRUCTOR = "copyreg._reconstructor"
ATTRIBUTE = "builtins.getattr"


def named(module: str, qualified: str, makers: Makers) -> Name:
    """The name, if it may stand in a pickle at all; else Refused."""
    module, qualified = NAME_MAPPING.get((module, qualified), (IMPORT_MAPPING.get(module, module), qualified))
    name = Name(MOVED.get(module, module), qualified)
    whole = str(name)
    listed = whole in makers or whole in VALUES or whole in DATA or whole in PLAIN_TYPES
    if not listed and whole not in (RECONSTRUCTOR, ATTRIBUTE) and _is_standard(name):
        raise Refused(whole)
    return name


def construct(function: Any, arguments: Any, makers: Makers) -> Any:
    """What a call in the pickle stands for.

    Raises Refused for a call of anything that is not known to do nothing.
    """
    if not isinstance(function, Name):
        raise Refused(f"a call of a {type(function).__name__}")
    if not isinstance(arguments, tuple):
        raise Damaged("arguments that are no tuple")
    whole = str(function)
    maker = makers.get(whole) or VALUES.get(whole)
    if maker is not None:
        return maker(*arguments)
    if whole == RECONSTRUCTOR and len(arguments) == 3 and isinstance(arguments[0], Name):
        return instantiate(arguments[0], () if arguments[2] is None else (arguments[2],), makers)
    if whole == ATTRIBUTE:
        return _method(arguments)
    if whole in DATA or (function.module.split(".")[0] in FAMILIES and function.qualified[:1].isupper()):
        return Inert(function, arguments)
    raise Refused(whole)


def instantiate(of: Any, arguments: Any, makers: Makers) -> Any:
    """A new object of a class: built where the class is a container or a number, else inert."""
    if not isinstance(of, Name):
        raise Refused(f"an object of a {type(of).__name__}")
    if not isinstance(arguments, tuple):
        raise Damaged("arguments that are no tuple")
    whole = str(of)
    maker = makers.get(whole) or VALUES.get(whole)
    if maker is not None:
        return maker(*arguments)
    if whole in (RECONSTRUCTOR, ATTRIBUTE):
        raise Refused(whole)
    return Inert(of, arguments)


def build_state(target: Any, state: Any) -> None:
    """Give an object its pickled state."""
    if isinstance(target, Inert):
        target.state = state
    elif isinstance(target, DType | ArrayData):
        target.set_state(state)
    elif isinstance(target, dict):  # a config's own items once more; an OrderedDict's attributes are left out
        if isinstance(state, dict) and "_metadata" not in state:
            target.update(state)
    elif isinstance(target, Name):
        raise Refused(f"a change of {target}")
    elif not isinstance(target, Tensor):
        raise Damaged(f"a state for a {type(target).__name__}")


def _method(arguments: tuple[Any, ...]) -> Name:
    """A class's method by its name, as protocol 2 writes it: still nothing but a name."""
    if len(arguments) == 2 and isinstance(arguments[0], Name) and isinstance(arguments[1], str):
        of, attribute = arguments
        if not _is_standard(of) and attribute.isidentifier() and not attribute.startswith("_"):
            return Name(of.module, f"{of.qualified}.{attribute}")
    raise Refused(ATTRIBUTE)


def _is_standard(name: Name) -> bool:
    return name.module.split(".")[0] in sys.stdlib_module_names
