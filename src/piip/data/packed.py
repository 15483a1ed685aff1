"""Records as rows of bytes instead of objects; a record is made when it is asked for.

A process that is started to read images, or that shares a training, uses the same memory: a file in the temporary
folder, see `shared_file`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar, overload

from typing_extensions import Self

from piip.data.shared_file import SharedFile, passing, shared

Record = TypeVar("Record")
Buffer = bytes | bytearray | memoryview


class Packed(Sequence[Record]):
    """A list of records that cannot be changed; its rows are the first of some runs of bytes.

    Pickled, it is the bytes; on the way to another process of the machine, the name of a file that both use.
    """

    ROW: ClassVar[struct.Struct]
    """a row"""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._hold(self.packed(records))

    @classmethod
    def of(cls, records: Iterable[Record]) -> Self:
        """Those, or what is made of them."""
        return records if isinstance(records, cls) else cls(records)

    @classmethod
    def of_buffers(cls, buffers: Sequence[Buffer]) -> Self:
        """What `packed` gives."""
        records = cls.__new__(cls)
        records._hold(buffers)
        return records

    @classmethod
    def of_file(cls, name: str, lengths: Sequence[int]) -> Self:
        """What another process has put into a file."""
        records = cls.__new__(cls)
        records._use(SharedFile(name, lengths))
        return records

    def packed(self, records: Iterable[Record]) -> Sequence[Buffer]:
        """The runs of bytes of some records."""
        raise NotImplementedError

    def record(self, row: tuple[Any, ...]) -> Record:
        """What the numbers of a row stand for."""
        raise NotImplementedError

    def _hold(self, buffers: Sequence[Buffer]) -> None:
        self.parts = tuple(memoryview(buffer).toreadonly() for buffer in buffers)
        """the runs of bytes"""
        self._file: SharedFile | None = None

    def _use(self, file: SharedFile) -> None:
        self.parts = file.parts
        self._file = file

    def __len__(self) -> int:
        return len(self.parts[0]) // self.ROW.size

    def __iter__(self) -> Iterator[Record]:
        return map(self.record, self.ROW.iter_unpack(self.parts[0]))

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Record | Self:
        if isinstance(index, slice):
            return type(self)(self[i] for i in range(*index.indices(len(self))))
        place = range(len(self))[index]
        return self.record(self.ROW.unpack_from(self.parts[0], place * self.ROW.size))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} images>"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if passing() and self._in_a_file():
            assert self._file is not None
            return type(self).of_file, (self._file.name, self._file.lengths)
        return type(self).of_buffers, (tuple(bytes(part) for part in self.parts),)

    def _in_a_file(self) -> bool:
        """Whether the bytes are in a file now, so that they are not in this process's own memory any more."""
        if self._file is None or not os.path.exists(self._file.name):
            made = shared(self.parts)
            if made is None:
                return False
            self._use(made)
        return True
