"""The two formats of PyTorch files: a zip archive with a pickle and a record for each storage, and, before version
1.6, pickles one after the other with the storages behind them. Files are mapped, not read."""

from __future__ import annotations

import io
import mmap
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from piip.weights.untrusted.errors import Damaged
from piip.weights.untrusted.machine import Machine
from piip.weights.untrusted.tensors import Storage, Tensors

ZIP = b"PK\x03\x04"
LARGEST_PICKLE = 1 << 30
LARGEST_RATIO = 100
"""a compressed record may be so many times larger than in the file, and all together than the file; weights shrink by a
few percent"""
ALWAYS_ALLOWED = 1 << 20
LOCAL_HEADER = 30
"""bytes of a zip entry's own header, before its name"""
MAGIC = 0x1950A86A20F9469CFC6C
"""the first value in a file of the older format"""
STREAM_VERSION = 1001


def read_file(path: Path) -> Any:
    """What a PyTorch file holds, as plain data and tensors that are mapped from it.

    Raises Refused or Damaged.
    """
    with path.open("rb") as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except ValueError as error:
            raise Damaged("the file is empty") from error
    return Archive(content, path).load() if content[: len(ZIP)] == ZIP else _stream(content)


def is_archive(path: Path) -> bool:
    """Whether the file has today's format, whose tensors are mapped; those of older ones are read."""
    with path.open("rb") as file:
        return file.read(len(ZIP)) == ZIP


class Archive:
    """A zip archive of `torch.save`."""

    def __init__(self, content: mmap.mmap, path: Path) -> None:
        self.content = content
        try:
            self.zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
            raise Damaged(str(error)) from error
        self.records = {info.filename: info for info in self.zip.infolist()}
        if len(self.records) != len(self.zip.infolist()):
            raise Damaged("two records of one name")
        pickles = [name for name in self.records if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise Damaged("an archive without data.pkl")
        self.folder = pickles[0].removesuffix("data.pkl")
        self.read: dict[str, bytearray] = {}

    def load(self) -> Any:
        """The value of the archive's pickle."""
        with self.zip:
            self._refuse_growth()
            if f"{self.folder}constants.pkl" in self.records:
                raise Damaged("a TorchScript program, which holds code; a state dict is needed")
            order = self.records.get(f"{self.folder}byteorder")
            if order is not None and self._bytes(order) != b"little":
                raise Damaged("written on a machine of the other byte order")
            info = self.records[f"{self.folder}data.pkl"]
            if info.file_size > LARGEST_PICKLE:
                raise Damaged(f"a pickle of {info.file_size} bytes")
            tensors = Tensors(self._storage)
            return Machine(tensors.storage, tensors.makers()).load(io.BytesIO(self._bytes(info)))

    def _refuse_growth(self) -> None:
        """Damaged where small records, or records that lie over each other, are much together."""
        grown = sum(info.file_size for info in self.records.values() if info.compress_type != zipfile.ZIP_STORED)
        if grown > max(ALWAYS_ALLOWED, LARGEST_RATIO * len(self.content)):
            raise Damaged(f"its records would grow from {len(self.content)} to {grown} bytes")

    def _storage(self, key: str, dtype: torch.dtype, elements: int) -> Tensor:
        info = self.records.get(f"{self.folder}data/{key}")
        if info is None:
            raise Damaged(f"no storage {key!r}")
        if info.file_size < elements * dtype.itemsize:
            raise Damaged(f"storage {key!r} has {info.file_size} bytes instead of {elements * dtype.itemsize}")
        if info.compress_type == zipfile.ZIP_STORED:
            return laid_over(self.content, self._start(info), dtype, elements)
        if key not in self.read:
            self.read[key] = bytearray(self._bytes(info))
        return laid_over(self.read[key], 0, dtype, elements)

    def _start(self, info: zipfile.ZipInfo) -> int:
        """Where a record's bytes lie in the file."""
        header = self.content[info.header_offset : info.header_offset + LOCAL_HEADER]
        if len(header) != LOCAL_HEADER or header[: len(ZIP)] != ZIP:
            raise Damaged(f"no record at the place of {info.filename!r}")
        names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        start = info.header_offset + LOCAL_HEADER + names
        if start + info.file_size > len(self.content):
            raise Damaged(f"{info.filename!r} is cut off")
        return start

    def _bytes(self, info: zipfile.ZipInfo) -> bytes:
        if info.file_size > max(ALWAYS_ALLOWED, LARGEST_RATIO * info.compress_size):
            raise Damaged(f"{info.filename!r} would grow from {info.compress_size} to {info.file_size} bytes")
        try:
            return self.zip.read(info)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
            raise Damaged(str(error)) from error


class _Pickles:
    """A mapped file as a stream of pickles, in which nothing is longer than a pickle may be."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content = content

    def read(self, size: int) -> bytes:
        if size > LARGEST_PICKLE:
            raise Damaged(f"{size} bytes in one piece")
        return self.content.read(size)

    def readline(self) -> bytes:
        return self.content.readline()

    def tell(self) -> int:
        return self.content.tell()


def _stream(content: mmap.mmap) -> Any:
    """The older format. Its pickle comes before the storages' places are known, so it is gone through twice."""

    def unknown(key: str, dtype: torch.dtype, elements: int) -> Tensor:
        return torch.empty(elements, dtype=dtype, device="meta")

    def known(key: str, dtype: torch.dtype, elements: int) -> Tensor:
        start, stored = places[key]
        if elements * dtype.itemsize > stored:
            raise Damaged(f"storage {key!r} has {stored} bytes instead of {elements * dtype.itemsize}")
        return laid_over(content, start, dtype, elements)

    pickles, first = _Pickles(content), Tensors(unknown)
    machine = Machine(first.storage, first.makers())
    if machine.load(pickles) != MAGIC or machine.load(pickles) != STREAM_VERSION:
        raise Damaged("it is no file of torch.save")
    system = machine.load(pickles)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Damaged("written on a machine of the other byte order")
    start = pickles.tell()
    machine.load(pickles)
    places = _places(content, machine.load(pickles), first.seen, pickles.tell())
    content.seek(start)
    second = Tensors(known)
    return Machine(second.storage, second.makers()).load(pickles)


def _places(content: mmap.mmap, keys: Any, seen: dict[str, Storage], place: int) -> dict[str, tuple[int, int]]:
    """Where each storage lies and how many bytes it has, by its key."""
    places = {}
    if not isinstance(keys, list):
        raise Damaged("no list of storages")
    for key in keys:
        header = content[place : place + 8]
        if len(header) != 8 or key not in seen:
            raise Damaged(f"cut off at storage {key!r}")
        stored = int.from_bytes(header, "little") * seen[key].itemsize
        end = place + 8 + stored
        if end > len(content):
            raise Damaged(f"cut off in storage {key!r}")
        places[key] = (place + 8, stored)
        place = end
    return places


def laid_over(content: mmap.mmap | bytearray, start: int, dtype: torch.dtype, elements: int) -> Tensor:
    """Elements [N] of a buffer, in place; a copy of them where they lie across the machine's words."""
    end = start + elements * dtype.itemsize
    if start < 0 or end > len(content):
        raise Damaged("a storage is cut off")
    if start % dtype.itemsize:
        return torch.frombuffer(bytearray(content[start:end]), dtype=dtype)
    return torch.frombuffer(content, dtype=dtype, count=elements, offset=start)
