"""The colours that a description of label masks names for its classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from piip.config.model import Colour

KEYS = ("colors", "colours")


def colours_of(content: Any, classes: Sequence[str], values: Sequence[int]) -> tuple[Colour | None, ...] | None:
    """In label order, of a description's `colors` (or `colours`); None where it has none.

    A list with an entry for each class, or a mapping from classes or mask values, of which some may be missing; a
    colour is [red, green, blue] from 0 to 255, or "#rrggbb". Raises ValueError for anything else.
    """
    named = next((content[key] for key in KEYS if isinstance(content, dict) and content.get(key)), None)
    if named is None:
        return None
    if isinstance(named, list):
        if len(named) != len(classes):
            raise ValueError(f"{len(named)} colors for {len(classes)} classes: give one for each, or a mapping")
        named = dict(zip(classes, named, strict=True))
    if not isinstance(named, dict):
        raise ValueError(f"colors {named!r:.40}: write a list, or a mapping from classes")
    keys = {str(key): colour for key, colour in named.items()}
    if unknown := sorted(set(keys) - set(classes) - set(map(str, values))):
        raise ValueError(f"colors: {unknown[0]!r:.40} is no class and no mask value")
    found = (keys.get(name, keys.get(str(value))) for name, value in zip(classes, values, strict=True))
    return tuple(None if colour is None else _colour(colour) for colour in found)


def _colour(written: Any) -> Colour:
    if isinstance(written, str) and re.fullmatch("#[0-9a-fA-F]{6}", written):
        red, green, blue = bytes.fromhex(written[1:])
        return red, green, blue
    if isinstance(written, list) and len(written) == 3:
        channels = [int(str(value)) if re.fullmatch("[0-9]{1,3}", str(value)) else 256 for value in written]
        if max(channels) < 256:
            return channels[0], channels[1], channels[2]
    raise ValueError(f'{written!r:.40} is no colour: write [red, green, blue] from 0 to 255, or "#rrggbb"')
