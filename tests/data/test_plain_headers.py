"""What is said of a file without Pillow is what Pillow says, whatever is done to the file."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from piip.data import decode
from piip.data.image_files import FORMATS, ImageError, exif_orientation, read_header
from piip.data.plain_headers import ENOUGH, plain_size

EXIF = Image.Exif()
EXIF[0x0112] = 6
MUTANTS = 1500


def encoded(format: str, mode: str = "RGB", size: tuple[int, int] = (37, 23), **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, format, **options)
    return file.getvalue()


USUAL = {
    "jpeg": encoded("JPEG"),
    "grey jpeg": encoded("JPEG", "L"),
    "progressive jpeg": encoded("JPEG", progressive=True),
    "jpeg with a comment": encoded("JPEG", comment=b"by hand", dpi=(72, 72)),
    "png": encoded("PNG"),
    "grey png": encoded("PNG", "L"),
    "png with alpha": encoded("PNG", "RGBA", dpi=(72, 72)),
}
TEXT = PngImagePlugin.PngInfo()
TEXT.add_text("a", "b")
UNUSUAL = {
    "turned jpeg": encoded("JPEG", exif=EXIF),
    "upright jpeg with exif data": encoded("JPEG", exif=Image.Exif()) + b"",
    "cmyk jpeg": encoded("JPEG", "CMYK"),
    "jpeg with a profile": encoded("JPEG", icc_profile=b"x" * 100),
    "turned png": encoded("PNG", exif=EXIF),
    "palette png": encoded("PNG", "P"),
    "png with a text": encoded("PNG", pnginfo=TEXT),
    "16-bit png": encoded("PNG", "I;16"),
    "gif": encoded("GIF"),
    "webp": encoded("WEBP"),
    "tiff": encoded("TIFF"),
    "bmp": encoded("BMP"),
}


def by_pillow(data: bytes) -> tuple[tuple[int, int], int]:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return (image.height, image.width), exif_orientation(image)


@pytest.mark.parametrize("name", USUAL)
def test_usual_files_are_known_without_pillow(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plain_size(USUAL[name][:ENOUGH]) == (23, 37)
    (tmp_path / "a").write_bytes(USUAL[name])
    monkeypatch.setattr(decode.Image, "open", lambda *_, **__: pytest.fail("Pillow is asked"))
    assert read_header(tmp_path / "a") == ((23, 37), 1)


@pytest.mark.parametrize("name", UNUSUAL)
def test_pillow_is_asked_of_all_others(name: str, tmp_path: Path) -> None:
    data = UNUSUAL[name]
    assert plain_size(data[:ENOUGH]) in ((23, 37) if by_pillow(data)[1] == 1 else None, None)
    (tmp_path / "a").write_bytes(data)
    assert read_header(tmp_path / "a") == by_pillow(data)


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Some bytes of the header changed, left out, doubled or exchanged, or the end cut off."""
    changed = bytearray(data[:800])
    for _ in range(draw.randint(1, 3)):
        place, kind = draw.randrange(len(changed)), draw.randrange(5)
        if kind < 2:
            changed[place] = draw.choice((0, 1, 8, 0xFF, 0xE1, 0xC0, 0xDA, draw.randrange(256)))
        elif kind == 2:
            del changed[place : place + draw.randint(1, 12)]
        elif kind == 3:
            changed[place:place] = changed[place : place + draw.randint(1, 20)]
        else:
            del changed[max(place, 40) :]
    return bytes(changed)


@pytest.mark.parametrize("name", [*USUAL, "turned jpeg", "jpeg with a profile"])
@pytest.mark.filterwarnings("ignore")
def test_what_is_said_of_broken_files_is_what_pillow_says(name: str) -> None:
    draw, said = random.Random(name), 0
    for _ in range(MUTANTS):
        data = mutated((USUAL | UNUSUAL)[name], draw)
        size = plain_size(data[:ENOUGH])
        if size is not None and min(size) > 0:
            said += 1
            assert by_pillow(data) == (size, 1)
    assert said or name not in USUAL


@pytest.mark.parametrize("size", [(0, 5), (40_000, 1), (20_000, 20_000)])
def test_sizes_beyond_the_limits_are_refused_as_before(size: tuple[int, int], tmp_path: Path) -> None:
    data = bytearray(USUAL["jpeg"])
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = size[1].to_bytes(2, "big") + size[0].to_bytes(2, "big")
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.jpg: (\d+ x \d+ pixels is too large|too large|not an image)"):
        read_header(tmp_path / "a.jpg")
