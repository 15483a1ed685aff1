"""Sizes of JPEG and PNG files from their first bytes, where nothing about these is unusual: most files of a data set.

Pillow opens a file in about five times as long. What it would refuse, or turn by EXIF data, is not known here: that is
asked of Pillow, see `image_files.read_header`.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from piip.structures import Size

ENOUGH = 4096
"""bytes from the beginning of a file, in which a header ends that has no pictures or profiles inside"""

JPEG_MARK = b"\xff\xd8\xff"
"""how a JPEG begins"""
_FRAMES = (0xC0, 0xC1, 0xC2)
"""baseline, extended and progressive, with Huffman codes"""
_PASSED_OVER = (0xC4, 0xDD, 0xFE)
"""Huffman tables, restart intervals, comments"""
_APPLICATION = {0xE0: (b"JFIF\0", 12), 0xEE: (b"Adobe", 10)}
"""segments that say nothing of the size or the way up: how they begin, and at least how long they are"""
_TABLES, _SCAN = 0xDB, 0xDA
_SIDES = struct.Struct(">HH")
_LENGTHS = {0: 64, 1: 128}
"""of a quantisation table, by its precision"""

_PNG = b"\x89PNG\r\n\x1a\n"
_KINDS = {(8, 0), (8, 2), (8, 4), (8, 6)}
"""bits, and how pixels are coloured: all ways but palettes"""
_CHUNKS = {b"gAMA": 4, b"sRGB": 1, b"pHYs": 9, b"tIME": 7, b"cHRM": 32}
"""chunks that say nothing of the size or the way up, and their lengths"""


def plain_size(beginning: bytes) -> Size | None:
    """(height, width) of an upright image whose file begins so; None where that is not sure."""
    if beginning.startswith(JPEG_MARK):
        return _of_jpeg(beginning)
    return _of_png(beginning) if beginning.startswith(_PNG) else None


def _of_jpeg(data: bytes) -> Size | None:
    size, place = None, 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        kind, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        start, place = place + 4, place + 2 + length
        if length < 2 or place > len(data):
            return None
        if kind == _SCAN:
            return size
        if kind in _FRAMES:
            if size is not None or not _is_usual(data[start:place]):
                return None
            size = _SIDES.unpack_from(data, start + 1)
        elif kind in _APPLICATION:
            begins, least = _APPLICATION[kind]
            if length - 2 < least or not data.startswith(begins, start):
                return None
        elif not (kind in _PASSED_OVER or (kind == _TABLES and _are_whole(data[start:place]))):
            return None
    return None


def _is_usual(frame: bytes) -> bool:
    """Eight bits, grey or in colours."""
    return len(frame) > 5 and frame[0] == 8 and frame[5] in (1, 3) and len(frame) == 6 + 3 * frame[5]


def _are_whole(tables: bytes) -> bool:
    place = 0
    while place < len(tables):
        place += 1 + _LENGTHS.get(tables[place] >> 4, len(tables))
    return place == len(tables)


def _of_png(data: bytes) -> Size | None:
    header = _chunk(data, len(_PNG), b"IHDR", 13)
    if header is None or (header[8], header[9]) not in _KINDS or header[10:13] not in (b"\0\0\0", b"\0\0\1"):
        return None
    place = len(_PNG) + 12 + 13
    while (kind := data[place + 4 : place + 8]) != b"IDAT":
        length = _CHUNKS.get(kind)
        if length is None or _chunk(data, place, kind, length) is None:
            return None
        place += 12 + length
    return int.from_bytes(header[4:8], "big"), int.from_bytes(header[:4], "big")


def _chunk(data: bytes, place: int, kind: bytes, length: int) -> bytes | None:
    """What is in the chunk at a place, if it is of that kind and length, and its checksum is right."""
    start, end = place + 8, place + 8 + length
    if data[place:start] != length.to_bytes(4, "big") + kind:
        return None
    right = zlib.crc32(data[place + 4 : end]).to_bytes(4, "big") == data[end : end + 4]
    return data[start:end] if right else None
