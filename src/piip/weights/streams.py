"""Writing `.safetensors` one tensor at a time, so that no model has to fit into memory twice, or even once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from piip.weights.errors import WeightsError

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""torch's dtypes by safetensors' names"""
HEADER_ALIGNMENT = 8
CHECKED_AT_ONCE = 1 << 24
"""elements"""


def order(layout: Mapping[str, Tensor]) -> list[str]:
    """The order of tensors in a file: wide dtypes first, so that each lies at a multiple of its element's size."""
    return sorted(layout, key=lambda name: (-layout[name].element_size(), name))


def write_stream(
    path: Path, layout: Mapping[str, Tensor], tensors: Iterable[tuple[str, Tensor]], metadata: Mapping[str, str]
) -> None:
    """Write a `.safetensors` file.

    Args:
        path: of the file; an existing one is overwritten.
        layout: tensors whose shapes and dtypes the file will hold; their values are not read (they may be on the meta
            device).
        tensors: names and values, in `order(layout)`; each is written before the next is asked for.
        metadata: texts for the header.

    Raises:
        WeightsError: a NaN or an infinity, or a dtype that the format does not know. The file is incomplete then.
    """
    names = order(layout)
    with path.open("wb") as file:
        file.write(_header(layout, names, metadata))
        for expected, (name, tensor) in zip(names, tensors, strict=True):
            if name != expected or tensor.shape != layout[name].shape or tensor.dtype != layout[name].dtype:
                raise RuntimeError(f"tensor {name!r} is not the one announced at its place, {expected!r}")
            _write(file, name, tensor)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a `.safetensors` file of tensors on the CPU; raises as `write_stream`.

    The bytes are the same each time. Of safetensors' own writer they are not: the order of its metadata is chance.
    """
    write_stream(path, tensors, ((name, tensors[name]) for name in order(tensors)), metadata)


def _header(layout: Mapping[str, Tensor], names: list[str], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name in names:
        tensor = layout[name]
        if tensor.dtype not in DTYPES:
            raise WeightsError(f"{name} is of type {tensor.dtype}, which a safetensors file cannot hold")
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _write(file: BinaryIO, name: str, tensor: Tensor) -> None:
    flat = tensor.detach().contiguous().reshape(-1)
    for chunk in flat.split(CHECKED_AT_ONCE):
        if chunk.is_floating_point() and not chunk.isfinite().all():
            raise WeightsError(f"NaN or infinite weights in {name}")
        file.write(chunk.view(torch.uint8).numpy().data)


def in_shards(names: Iterable[str], layout: Mapping[str, Tensor], limit: int) -> Iterator[list[str]]:
    """The names, in lists whose tensors hold about `limit` bytes together (or one tensor that holds more)."""
    shard: list[str] = []
    size = 0
    for name in names:
        nbytes = layout[name].numel() * layout[name].element_size()
        if shard and size + nbytes > limit:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += nbytes
    if shard:
        yield shard
