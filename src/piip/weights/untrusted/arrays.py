"""numpy's scalars and arrays in pickles: numbers and arrays, each of exactly the bytes that are there."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from piip.weights.untrusted.errors import Damaged

NUMBERS = re.compile(r"[<>=|]?[?biufcSU]\d{0,4}")
"""texts of dtypes that are plain numbers or characters"""


class DType:
    """A dtype; None where it holds objects, whose arrays are left out."""

    def __init__(self, text: Any, *_: Any) -> None:
        text = text.decode("ascii") if isinstance(text, bytes) else text
        self.dtype = np.dtype(text) if isinstance(text, str) and NUMBERS.fullmatch(text) else None

    def set_state(self, state: Any) -> None:
        """(version, byte order, ...), as numpy pickles it."""
        order = state[1]
        if self.dtype is not None and order in ("<", ">", "=", "|"):
            self.dtype = self.dtype.newbyteorder(order)


class ArrayData:
    """An array whose content comes after it; `array` is None until then, and for objects."""

    def __init__(self, *_: Any) -> None:
        self.array: np.ndarray[Any, Any] | None = None

    def set_state(self, state: Any) -> None:
        """(version, shape, dtype, whether columns come first, content)."""
        _, shape, dtype, fortran, content = state
        if isinstance(content, bytes | bytearray | str):
            content = content.encode("latin-1") if isinstance(content, str) else bytes(content)
            self.array = _array(content, dtype, shape, "F" if fortran else "C")


def _array(content: bytes, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any] | None:
    if not isinstance(dtype, DType):
        raise Damaged("an array without a dtype")
    if dtype.dtype is None:
        return None
    shape = shape if isinstance(shape, tuple) else (shape,)
    if not all(isinstance(side, int) and side >= 0 for side in shape) or order not in ("C", "F"):
        raise Damaged("an array of no shape")
    if prod(shape) * dtype.dtype.itemsize != len(content):
        raise Damaged(f"an array of shape {shape[:8]} in {len(content)} bytes")
    return np.frombuffer(content, dtype.dtype).reshape(shape, order=order)


def _scalar(dtype: Any, content: Any = None) -> Any:
    if not isinstance(content, bytes | str):  # an object
        return content
    array = _array(content.encode("latin-1") if isinstance(content, str) else content, dtype, (1,), "C")
    return None if array is None else array.item()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> ArrayData:
    made = ArrayData()
    made.array = _array(bytes(content) if isinstance(content, bytearray) else content, dtype, shape, order)
    return made


ARRAYS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": DType,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.multiarray._reconstruct": ArrayData,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy.ndarray": ArrayData,
}
