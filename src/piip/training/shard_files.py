"""The folders in which a sharded training keeps the parts of its checkpoints."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def damage_of_shards(shards: Mapping[str, Any], root: Path) -> str | None:
    """What is wrong with a folder of shards, or None."""
    folder = root / shards["folder"]
    for name, wanted in shards["sums"].items():
        if not (folder / name).is_file():
            return f"its shard {folder / name} is not there"
        if checksum(folder / name) != wanted:
            return f"its shard {folder / name} is damaged"
    return None


def forget_others(root: Path, kept: set[str]) -> None:
    """Delete the folders of shards that no checkpoint speaks of."""
    for folder in root.iterdir() if root.is_dir() else ():
        if folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def checksum(file: Path) -> int:
    """CRC-32 of a file: safetensors have none, and a flipped bit would become a weight."""
    value = 0
    with file.open("rb") as opened:
        while piece := opened.read(1 << 24):
            value = zlib.crc32(piece, value)
    return value
