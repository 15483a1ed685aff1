"""Whatever an image file holds, it becomes the right RGB pixels or an ImageError that names the file."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from piip.data import decode
from piip.data.decode import decode_for, decode_image, decode_values, rgb_from_pil
from piip.data.image_files import ImageError, read_header

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (7, 11, 3), dtype=np.uint8)
GREY = RGB[..., 0]
ORIENTATION = 0x0112


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def with_orientation(image: Image.Image, orientation: int, format: str) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(image, format, exif=exif)


def over_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return rgb * share + 255 * (1 - share)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "TIFF"])
def test_lossless_formats_keep_every_pixel(format):
    options = {"lossless": True} if format == "WEBP" else {}
    assert np.array_equal(decode_image(encoded(Image.fromarray(RGB), format, **options)), RGB)


def test_jpeg_by_path_and_by_bytes(tmp_path):
    smooth = np.full((16, 24, 3), (200, 90, 30), dtype=np.uint8)
    (tmp_path / "image.jpg").write_bytes(encoded(Image.fromarray(smooth), "JPEG", quality=95))
    pixels = decode_image(tmp_path / "image.jpg")
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - smooth).max() <= 3
    assert np.array_equal(pixels, decode_image((tmp_path / "image.jpg").read_bytes()))
    assert np.array_equal(pixels, decode_image(str(tmp_path / "image.jpg")))


def test_multi_picture_jpeg_of_phones():
    smooth = Image.fromarray(np.full((16, 24, 3), 90, dtype=np.uint8))
    data = encoded(smooth, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])
    assert np.abs(decode_image(data).astype(int) - 90).max() <= 3


def test_gif_gives_the_first_frame():
    first, second = Image.new("P", (9, 5), 0), Image.new("P", (9, 5), 1)
    for frame in (first, second):
        frame.putpalette([10, 20, 30, 200, 100, 50])
    data = encoded(first, "GIF", save_all=True, append_images=[second])
    assert (decode_image(data) == (10, 20, 30)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation, format):
    # What a viewer shows for each orientation of the stored rows and columns, by EXIF's definition.
    upright = {
        1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, -1), 7: RGB[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(RGB),
    }[orientation]  # fmt: skip
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(RGB).save(buffer, format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    assert np.array_equal(decode_image(buffer.getvalue()), upright)
    if format != "TIFF":  # which is always upright
        assert np.array_equal(decode_image(buffer.getvalue(), upright=False), RGB)


def test_header_tells_size_and_orientation_without_decoding(tmp_path):
    (tmp_path / "turned.jpg").write_bytes(with_orientation(Image.fromarray(RGB), 6, "JPEG"))
    assert read_header(tmp_path / "turned.jpg") == ((7, 11), 6)
    whole = encoded(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert read_header(tmp_path / "cut.png") == ((64, 64), 1)


def test_header_size_of_a_turned_tiff_is_upright(tmp_path):
    (tmp_path / "turned.tiff").write_bytes(with_orientation(Image.fromarray(RGB), 6, "TIFF"))
    assert read_header(tmp_path / "turned.tiff") == ((11, 7), 1)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_invalid_exif_counts_as_upright():
    exif = b"Exif\x00\x00" + b"MM\x00\x2a\xff\xff\xff\xff" + b"\x01" * 20
    assert decode_image(encoded(Image.fromarray(RGB), "JPEG", exif=exif)).shape == RGB.shape
    assert decode_image(with_orientation(Image.fromarray(RGB), 77, "PNG")).shape == RGB.shape


def test_grey_and_one_bit():
    assert np.array_equal(decode_image(encoded(Image.fromarray(GREY))), np.stack([GREY] * 3, axis=-1))
    bits = GREY > 127
    assert np.array_equal(decode_image(encoded(Image.fromarray(bits)))[..., 0], bits * 255)


def test_transparency_lies_over_white():
    alpha = RNG.integers(0, 256, (7, 11), dtype=np.uint8)
    pixels = decode_image(encoded(Image.fromarray(np.dstack([RGB, alpha]))))
    assert np.abs(pixels - over_white(RGB, alpha)).max() <= 1
    pixels = decode_image(encoded(Image.fromarray(np.dstack([GREY, alpha]))))
    assert np.abs(pixels - over_white(np.dstack([GREY] * 3), alpha)).max() <= 1


def test_palette_with_and_without_transparency():
    indices = GREY % 3
    image = Image.frombytes("P", (11, 7), indices.astype(np.uint8).tobytes())
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]])
    assert np.array_equal(decode_image(encoded(image)), colours[indices])
    colours[1] = 255  # transparent
    assert np.array_equal(decode_image(encoded(image, transparency=1)), colours[indices])


def test_cmyk():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = decode_image(encoded(image, "TIFF"))
    assert (red[..., 0] > 200).all()
    assert (red[..., 1:] < 60).all()


def test_sixteen_bits_are_scaled_and_not_clipped():
    values = np.array([[0, 257, 65535], [32768, 128, 129]], dtype=np.uint16)
    expected = np.array([[0, 1, 255], [128, 0, 1]])
    for format in ("PNG", "TIFF"):
        assert np.array_equal(decode_image(encoded(Image.fromarray(values), format))[..., 0], expected)


def test_pixels_of_32_bits_and_floats():
    def grey_of(values: np.ndarray) -> list:
        return decode_image(encoded(Image.fromarray(values), "TIFF"))[..., 0].tolist()

    assert grey_of(np.array([[0, 200]], dtype=np.int32)) == [[0, 200]]
    assert grey_of(np.array([[0, 25700]], dtype=np.int32)) == [[0, 100]]
    assert grey_of(np.array([[0, 0.2, 1]], dtype=np.float32)) == [[0, 51, 255]]
    assert grey_of(np.array([[0, 51, 255]], dtype=np.float32)) == [[0, 51, 255]]


@pytest.mark.parametrize("values", [[-1.0, 0.5], [0.0, 300.0], [0.0, np.nan], [0.0, np.inf]])
def test_float_ranges_that_would_be_guesses_are_refused(values):
    with pytest.raises(ImageError, match=r"float pixel|pixel values"):
        decode_image(encoded(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF"))


def test_pil_images_of_any_mode():
    image = Image.fromarray(RGB)
    for mode in ("RGB", "RGBA", "HSV", "YCbCr", "CMYK", "L", "LA", "P", "1", "I", "F"):
        assert rgb_from_pil(image.convert(mode)).shape == RGB.shape, mode
    pixels = rgb_from_pil(image)
    pixels[:] = 0
    assert np.array_equal(np.asarray(image), RGB), "the result must not share memory with the image"


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_shapes(size):
    assert decode_image(encoded(Image.new("RGB", size))).shape == (*size[::-1], 3)


def png_of_size(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(60000, 60000), (40000, 10), (12000, 9000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_refused_before_decoding(size):
    with pytest.raises(ImageError, match="too large"):
        decode_image(png_of_size(*size))


def test_other_things_than_images(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"page\.jpg.*not an image in one of the formats"):
        decode_image(tmp_path / "page.jpg")
    with pytest.raises(ImageError, match=r"empty\.png"):
        decode_image(tmp_path / "empty.png")
    with pytest.raises(ImageError, match=r"missing\.png: there is no such file"):
        decode_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="this is a folder"):
        decode_image(tmp_path)
    with pytest.raises(ImageError, match="image of 3 bytes"):
        decode_image(b"abc")
    with pytest.raises(ImageError):
        decode_image("with\0nul.png")


def is_refused(data: bytes) -> bool:
    try:
        assert decode_image(data).dtype == np.uint8
    except ImageError:
        return True
    return False


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damage_is_an_image_error_or_an_image_and_nothing_else(format):
    """Cut off at every 5%, and with bytes flipped at random: never another exception."""
    rng = np.random.default_rng(1)
    whole = encoded(Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)), format)
    cut = [whole[: len(whole) * percent // 100] for percent in range(0, 100, 5)]
    flipped = []
    for _ in range(150):
        data = bytearray(whole)
        for position in rng.integers(0, min(len(data), 400 if rng.random() < 0.7 else len(data)), 4):
            data[position] ^= 1 << rng.integers(8)
        flipped.append(bytes(data))
    refused = sum(is_refused(data) for data in cut + flipped)
    assert refused >= len(cut) // 2


def test_a_tiff_of_other_pixels_is_not_called_another_format(tmp_path):
    """Three bands of 32-bit floats, which Pillow does not read."""
    head = struct.pack("<2sHI", b"II", 42, 8)
    tags = [(256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 1, 32), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 200),
            (277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 1, 48), (339, 3, 1, 3)]  # fmt: skip
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    (tmp_path / "a.tif").write_bytes((head + directory).ljust(200, b"\0") + bytes(48))
    for read in (decode_image, read_header):
        with pytest.raises(ImageError, match=r"a\.tif: a TIFF whose kind of pixels is not supported"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("what", ["packed", "plain", "international", "profile"])
def test_metadata_of_some_megabytes_is_no_hindrance(tmp_path: Path, what: str) -> None:
    """Editors write that much: histories of a picture's layers, profiles of printers."""
    info = PngImagePlugin.PngInfo()
    more: dict[str, bytes] = {"icc_profile": bytes(3_000_000)} if what == "profile" else {}
    if what == "international":
        info.add_itxt("XML:com.adobe.xmp", "x" * 3_000_000, zip=True)
    elif not more:
        info.add_text("note", "x" * 3_000_000, zip=what == "packed")
    Image.new("RGB", (4, 5), (200, 30, 60)).save(tmp_path / "a.png", pnginfo=info, **more)
    assert read_header(tmp_path / "a.png")[0] == (5, 4)
    assert (decode_image(tmp_path / "a.png") == (200, 30, 60)).all()


@pytest.mark.parametrize("texts", [1, 3])
def test_too_much_metadata_is_said(tmp_path: Path, texts: int) -> None:
    """One text that unpacks to 40 MB, or three of 30 MB."""
    info = PngImagePlugin.PngInfo()
    for number in range(texts):
        info.add_text(f"note {number}", "x" * (40_000_000 if texts == 1 else 30_000_000), zip=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(ImageError, match="its metadata .* is too large"):
        decode_image(tmp_path / "a.png")


def test_a_jpeg_is_no_mask(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png", format="JPEG")
    with pytest.raises(ImageError, match="a mask in JPEG, which changes values"):
        decode_values(tmp_path / "a.png")


@pytest.mark.parametrize("make", ["pipe", "device"])
def test_nothing_waits_at_pipes_and_devices(tmp_path: Path, make: str) -> None:
    file = tmp_path / "a.png"
    if make == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    for read in (decode_image, decode_values, read_header):
        with pytest.raises(ImageError, match=r"a\.png: a pipe, socket or device, not an image file"):
            read(file)


def test_a_file_beyond_all_images(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate((1 << 31) + 1)  # sparse
    with pytest.raises(ImageError, match=r"a\.png: 2147 MB, of at most 2147"):
        decode_image(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I"])
def test_strips_give_the_same_pixels(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (37, 23, 4), dtype=np.uint8)
    if mode in ("I;16", "I"):
        image = Image.fromarray(noise[..., 0].astype(np.uint16 if mode == "I;16" else np.int32) * 7)
    elif mode == "RGBA":
        image = Image.fromarray(noise)
    else:
        image = Image.fromarray(noise[..., :3]).convert(mode)
    if mode == "P":
        image.info["transparency"] = 7
    whole = rgb_from_pil(image)
    monkeypatch.setattr("piip.data.decode.AT_ONCE", 100)
    monkeypatch.setattr("piip.data.decode.STRIP", 23 * 5)
    assert np.array_equal(rgb_from_pil(image), whole)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_is_what_pillow_does(orientation: int) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    image.getexif()[ExifTags.Base.Orientation] = orientation
    assert np.array_equal(rgb_from_pil(image), np.array(ImageOps.exif_transpose(image)))


# -- large photos ----------------------------------------------------------------------------------------------------


def gradient(height: int = 45, width: int = 70) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([4 * rows, 3 * columns, 100 + rows - columns], axis=-1).astype(np.uint8)


def means(pixels: np.ndarray, part: int) -> np.ndarray:
    """Of each square of `part` pixels a side, as far as it lies in the image."""
    rows, columns = (range(0, side, part) for side in pixels.shape[:2])
    return np.array([[pixels[y : y + part, x : x + part].mean((0, 1)) for x in columns] for y in rows])


KINDS = [("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "RGBA"), ("GIF", "P"), ("TIFF", "L")]


@pytest.mark.parametrize("part", [2, 4, 8])
@pytest.mark.parametrize(("format", "mode"), KINDS)
def test_a_reduced_image_is_the_mean_of_its_pixels(format, mode, part, monkeypatch):
    monkeypatch.setattr(decode, "STRIP", 200)
    sources = [encoded(Image.fromarray(gradient()).convert(mode), format)]
    if format in ("JPEG", "PNG"):
        sources.append(with_orientation(Image.fromarray(gradient(48, 72)).convert(mode), 6, format))
    for source in sources:
        expected = means(decode_image(source).astype(float), part)
        pixels = decode_image(source, reduction=part)
        assert pixels.shape == expected.shape
        difference = np.abs(pixels - expected)
        if format == "JPEG":  # which has averages of its own at the edges
            assert difference[1:-1, 1:-1].max() <= 6
        else:
            assert difference.max() <= 1


def test_only_what_is_needed_of_large_photos(monkeypatch):
    data = encoded(Image.fromarray(gradient()))
    asked = []

    def needed(size):
        asked.append(size)
        return 10, 16

    assert np.array_equal(decode_for(data, needed)[0], gradient())
    assert not asked, "nothing changes for photos of up to 40 megapixels"
    monkeypatch.setattr(decode, "LARGE", 45 * 70 - 1)
    pixels, size = decode_for(data, needed)
    assert (asked, size, pixels.shape) == ([(45, 70)], (45, 70), (23, 35, 3))
    assert decode_for(data, lambda size: (12, 16))[0].shape == (45, 70, 3), "twice as many pixels a side are left"
    assert decode_for(data, lambda size: (5, 8))[0].shape == (12, 18, 3)
    rotated = with_orientation(Image.fromarray(gradient()), 6, "PNG")
    assert decode_for(rotated, lambda size: (16, 10))[1] == (70, 45)
    assert decode_for(rotated, lambda size: (10, 16), upright=False)[1] == (45, 70)
