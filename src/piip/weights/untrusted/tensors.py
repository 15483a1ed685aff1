"""Tensors out of storages: sizes, strides and offsets are checked before anything is laid over the file's bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from piip.weights.untrusted.errors import Damaged
from piip.weights.untrusted.inert import Inert, Name

DTYPES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
}  # fmt: skip
"""by the typed storages' names"""
STORAGE_TYPES: dict[str, torch.dtype | None] = {
    **{f"torch.{name}Storage": dtype for name, dtype in DTYPES.items()},
    **{f"torch.cuda.{name}Storage": dtype for name, dtype in DTYPES.items()},
    "torch.storage.UntypedStorage": None,
    "torch.UntypedStorage": None,
}
NAMED_DTYPES = {str(dtype): dtype for dtype in (*DTYPES.values(), torch.uint16, torch.uint32, torch.uint64)}
REPEATED = 1 << 20
"""a tensor that repeats elements of its storage may have so many; else no more than the storage"""

Bytes = Callable[[str, torch.dtype, int], Tensor]
"""a storage's elements, as a tensor [N], by its key, their type and their number"""


@dataclass(frozen=True)
class Storage:
    """A storage of the file, of one type or of bytes."""

    key: str
    dtype: torch.dtype | None
    size: int
    """in elements, or in bytes where there is no type"""

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return 1 if self.dtype is None else self.dtype.itemsize


class Tensors:
    """Stands in for the functions with which PyTorch pickles tensors."""

    def __init__(self, stored: Bytes) -> None:
        self.stored = stored
        self.seen: dict[str, Storage] = {}
        """the file's storages, by their keys"""
        self.whole: dict[tuple[str, torch.dtype], Tensor] = {}
        """their elements: tensors of one storage share them"""

    def makers(self) -> dict[str, Callable[..., Any]]:
        """Our functions by the names of PyTorch's. (Not kept: they refer back to this, and so to a mapped file.)"""
        return {
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_tensor_v3": self._tensor_of_bytes,
            "torch._utils._rebuild_parameter": _parameter,
            "torch._utils._rebuild_parameter_with_state": _parameter,
            "torch.nn.parameter.Parameter": _parameter,
            "torch.nn.Parameter": _parameter,
            "torch._tensor._rebuild_from_type_v2": self._of_type,
        }

    def storage(self, identity: tuple[Any, ...]) -> Storage:
        """What a persistent id names."""
        of, key, size = str(identity[1]), identity[2], identity[4]
        if of not in STORAGE_TYPES:
            raise Damaged(f"storage of an unknown type, {of}")
        if not isinstance(key, str) or not isinstance(size, int) or size < 0:
            raise Damaged("a storage without key and size")
        if len(identity) > 5 and identity[5] is not None:
            raise Damaged("a view of a storage, as PyTorch wrote them before version 0.4")
        storage = self.seen.setdefault(key, Storage(key, STORAGE_TYPES[of], size))
        if storage != Storage(key, STORAGE_TYPES[of], size):
            raise Damaged(f"storage {key!r} of two kinds")
        return storage

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
        if not isinstance(storage, Storage) or storage.dtype is None:
            raise Damaged("a tensor without a storage")
        return self._laid_over(storage, storage.dtype, storage.size, offset, size, stride)

    def _tensor_of_bytes(self, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
        dtype = NAMED_DTYPES.get(str(rest[2])) if len(rest) > 2 else None
        if not isinstance(storage, Storage) or dtype is None:
            raise Damaged("a tensor of an unknown type")
        return self._laid_over(storage, dtype, storage.size * storage.itemsize // dtype.itemsize, offset, size, stride)

    def _laid_over(
        self, storage: Storage, dtype: torch.dtype, elements: int, offset: Any, size: Any, stride: Any
    ) -> Tensor:
        if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride) or len(size) > 64:
            raise Damaged("a tensor without size and stride")
        if not all(type(number) is int and 0 <= number < 1 << 62 for number in (offset, *size, *stride)):
            raise Damaged("a tensor of impossible size")
        count = prod(size)
        last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
        if count and last >= elements:
            raise Damaged(f"a tensor of size {size[:8]} reaches beyond its storage of {elements}")
        if count > max(elements, REPEATED):
            raise Damaged(f"a tensor of size {size[:8]} out of {elements} elements")
        if not count:
            return torch.empty(size, dtype=dtype)
        kind = storage.key, dtype
        if kind not in self.whole:
            self.whole[kind] = self.stored(*kind, elements)
        return self.whole[kind].as_strided(size, stride, offset)

    def _of_type(self, function: Any, of: Any, arguments: Any, state: Any) -> Any:
        """A tensor with attributes, or of a subclass: the tensor alone."""
        maker = self.makers().get(str(function)) if isinstance(function, Name) else None
        if maker is None or not isinstance(arguments, tuple):
            return Inert(of if isinstance(of, Name) else Name("torch", "Tensor"), (arguments,))
        return maker(*arguments)


def _parameter(data: Any = None, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise Damaged("a parameter without a tensor")
    return data
