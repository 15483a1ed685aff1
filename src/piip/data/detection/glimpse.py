"""What a JSON file holds, by a look at its beginning and its end: annotation files can be gigabytes.

A data set's folder has other JSON files, too (findings, settings, captions, other tools' annotations): only the keys
tell which of them are COCO's.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from piip.data.text_files import text_encoding

PEEK_BYTES = 1 << 18
"""read from each end of a file"""

KEYS = ("images", "annotations", "categories")
"""that make a JSON object COCO annotations"""

_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:)?|[\[{]|[\]}]')


def is_coco(file: Path) -> bool:
    """Whether a file looks like COCO annotations: an object with at least two of the keys, or with image records.

    Also if it is cut off: the reader says so better than a recogniser that passes it over.
    """
    beginning, end = _ends(file)
    if not beginning.lstrip().startswith("{"):
        return False
    found = _first_keys(beginning)
    if not found:
        return False
    found |= {key for key in KEYS if re.search(rf'"{key}"\s*:\s*[\[{{]', end)}
    records = beginning + end
    named = "images" in found and re.search(r'"(?:file_name|coco_url)"\s*:|"images"\s*:\s*[\[{]\s*[\]}]', records)
    placed = "annotations" in found and re.search(r'"image_id"\s*:', records)
    return len(found) > 1 or bool(named) or bool(placed)


def image_names(file: Path, most: int = 8) -> list[str]:
    """The first images' names as the annotation file writes them, as far as its beginning tells."""
    beginning, _ = _ends(file)
    for key in ("file_name", "coco_url"):
        found = re.finditer(rf'"{key}"\s*:\s*("(?:[^"\\]|\\.)+")', beginning)
        names = [name for match in islice(found, most) if (name := _text(match[1])) is not None]
        if names:
            return [name_in_url(name) if key == "coco_url" else name for name in names]
    return []


def _text(literal: str) -> str | None:
    """What a JSON text says; None for what is none."""
    try:
        return str(json.loads(literal, strict=False))
    except ValueError:
        return None


def name_in_url(url: str) -> str:
    """The folder and the file at the end of an address: "http://host/train2017/1.jpg" has "train2017/1.jpg"."""
    return "/".join(urlsplit(url).path.split("/")[-2:]).lstrip("/")


def _ends(file: Path) -> tuple[str, str]:
    """The beginning and the end of a file, as far as they are text; two empty texts where it cannot be read."""
    try:
        if not file.is_file():
            return "", ""
        with file.open("rb") as stream:
            beginning = stream.read(PEEK_BYTES)
            size = file.stat().st_size
            stream.seek(max(len(beginning), (size - PEEK_BYTES) // 4 * 4))
            end = stream.read(PEEK_BYTES + 4)
    except OSError:
        return "", ""
    encoding = text_encoding(beginning)
    plain = {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(encoding, "utf-8")  # the end has no mark of its own
    return beginning.decode(encoding, "ignore"), end.decode(plain, "ignore")


def _first_keys(text: str) -> set[str]:
    """Which of `KEYS` are keys of the object that a text begins with, and have a list or an object."""
    depth, found, key = 0, set[str](), ""
    for token in _TOKEN.finditer(text):
        opening = token[0][0]
        if opening in "[{":
            if depth == 1 and key in KEYS:
                found.add(key)
            depth += 1
        elif opening in "]}":
            depth -= 1
            if depth == 0:
                break
        elif depth == 1 and token[2]:
            key = token[1]
            continue
        key = ""
    return found
