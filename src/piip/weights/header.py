"""The header of a safetensors file, looked at before anything builds on it.

The format's own reader takes headers of 100 MB, which cost a gigabyte and many seconds, and of two tensors of one name
takes one without a word.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from piip.weights.errors import WeightsError

LARGEST = 16 << 20
"""bytes; the header of the largest released model has half a million"""
MOST_TENSORS = 50_000
LENGTH = 8
"""bytes of the header's length, which comes first"""


def check_header(file: Path) -> None:
    """WeightsError for a header that is larger than any model's, or has a name twice; other faults are the reader's."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(LENGTH), "little")
            if length > LARGEST:
                raise WeightsError(f"{file}: not a readable .safetensors file: its header has {length} bytes, of at "
                                   f"most {LARGEST}")  # fmt: skip
            header = json.loads(opened.read(length), object_pairs_hook=lambda pairs: _once(pairs, file))
    except WeightsError:
        raise
    except (OSError, ValueError, RecursionError):
        return  # the reader says what is wrong
    if isinstance(header, dict) and len(header) > MOST_TENSORS:
        raise WeightsError(f"{file}: holds {len(header)} tensors, of at most {MOST_TENSORS}")


def _once(pairs: list[tuple[str, Any]], file: Path) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise WeightsError(f"{file}: damaged: its header has {twice!r:.80} twice")
    return found
