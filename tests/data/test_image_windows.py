"""Files read by windows give the pixels that decoding gives, and more kinds of files."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from tests import tiny

import piip
from piip.data import windows
from piip.data.decode import decode_image
from piip.data.image_files import ImageError
from piip.data.windows import FileImage
from piip.prediction.options import Options

RGB = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
ENOUGH = 10_000


def read_large(path: Path, max_pixels: int) -> np.ndarray:
    """All of it, whoever else could read it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("piip.data.image_files.MAX_PIXELS", 0)
        pixels = windows.read_large(path, max_pixels)
    assert pixels is not None
    return pixels


def tiff(path: Path, values: np.ndarray, colours: list[ColorInterp] | None = None, **options: object) -> Path:
    """[H, W, C] in tiles of 32 x 32, compressed."""
    height, width, count = values.shape
    profile = {"driver": "GTiff", "tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "lzw"}
    size = {"height": height, "width": width, "count": count, "dtype": values.dtype}
    with rasterio.open(path, "w", **profile, **size, **options) as file:
        file.write(np.moveaxis(values, -1, 0))
        if colours is not None:
            file.colorinterp = colours
    return path


@pytest.mark.parametrize(
    "name", ["rgb.tif", "rgb.png", "rgb.jpg", "grey.png", "palette.png", "sixteen.png", "alpha.png"]
)
def test_the_pixels_of_decoding(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    image = Image.fromarray(RGB)
    if name.startswith("grey"):
        image = image.convert("L")
    elif name.startswith("palette"):
        image = image.convert("P")
    elif name.startswith("sixteen"):
        image = Image.fromarray(np.arange(70 * 90, dtype=np.uint16).reshape(70, 90) * 10)
    elif name.startswith("alpha"):
        image.putalpha(Image.fromarray(RGB[..., 0]))
    image.save(path, **({"subsampling": 0} if name.endswith("jpg") else {}))
    expected = decode_image(path).astype(int)
    rounding = 2 if name in ("rgb.jpg", "alpha.png") else 0
    assert np.abs(read_large(path, ENOUGH) - expected).max() <= rounding
    with FileImage(path, ENOUGH) as file:
        assert file.shape == (70, 90, 3)
        assert np.abs(file[10:40, 20:95] - expected[10:40, 20:95]).max() <= rounding
        assert file[70:80, 0:5].shape == (0, 5, 3)


def test_strips_are_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "STRIP", 90 * 16)
    assert np.array_equal(read_large(tiff(tmp_path / "x.tif", RGB), ENOUGH), RGB)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_upright(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "x.jpg", exif=exif, subsampling=0)
    found, expected = read_large(tmp_path / "x.jpg", ENOUGH), decode_image(tmp_path / "x.jpg")
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 2


def test_kinds_that_pillow_does_not_read(tmp_path: Path) -> None:
    sixteen = RGB.astype(np.uint16) * 257
    assert np.array_equal(read_large(tiff(tmp_path / "sixteen.tif", sixteen), ENOUGH), RGB)
    infrared, blue = np.zeros_like(RGB[..., :1]), RGB[..., 2:]
    five = np.concatenate((infrared, blue, RGB[..., 1:2], RGB[..., :1], infrared), axis=-1)
    names = [ColorInterp.gray, ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined]
    assert np.array_equal(read_large(tiff(tmp_path / "five.tif", five, names), ENOUGH), RGB)


def test_what_is_refused(tmp_path: Path) -> None:
    large = tiff(tmp_path / "large.tif", RGB)
    with pytest.raises(ImageError, match=r"large\.tif: 90 x 70 pixels, more than max_pixels, which is 6299"):
        read_large(large, 6299)
    with pytest.raises(ImageError, match="pixels of float32; use 8 or 16 bits"):
        read_large(tiff(tmp_path / "float.tif", RGB.astype(np.float32)), ENOUGH)
    seven = tiff(tmp_path / "seven.tif", np.zeros((8, 8, 7), np.uint8), [ColorInterp.undefined] * 7)
    with pytest.raises(ImageError, match="7 channels, of which none is called red, green and blue"):
        read_large(seven, ENOUGH)
    with pytest.raises(ImageError, match="there is no such file"):
        read_large(tmp_path / "none.tif", ENOUGH)
    (tmp_path / "x.vrt").write_text(f'<VRTDataset rasterXSize="9" rasterYSize="9"><a>{large}</a></VRTDataset>')
    with pytest.raises(ImageError, match="not a TIFF, PNG or JPEG"):
        read_large(tmp_path / "x.vrt", ENOUGH)
    cut = tmp_path / "cut.tif"
    cut.write_bytes(large.read_bytes()[: large.stat().st_size // 2])
    with pytest.raises(ImageError, match=r"cut\.tif: broken or truncated"):
        read_large(cut, ENOUGH)


def test_the_cache_of_gdal_is_small_and_put_back(tmp_path: Path) -> None:
    path = tiff(tmp_path / "x.tif", RGB)

    def usual() -> int:
        with rasterio.Env():
            return int(rasterio.env.get_gdal_config("GDAL_CACHEMAX"))

    before = usual()
    with windows._strictly():
        assert usual() == windows.CACHE
    read_large(path, ENOUGH)
    assert usual() == before != windows.CACHE


def test_predictions_go_beyond_the_limit_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("piip.data.image_files.MAX_PIXELS", 5000)
    path = tiff(tmp_path / "large.tif", RGB)
    model = piip.PIIP(tiny.model(), device="cpu")
    assert model.predict_report([path]).failures
    (result,) = model.predict([path], max_pixels=ENOUGH)
    assert np.array_equal(result.image, RGB)
    assert "more than max_pixels" in model.predict_report([path], max_pixels=6000).failures[0].reason
    with pytest.raises(ValueError, match="max_pixels 0: use a whole number, 1 or more"):
        Options.of(max_pixels=0)


def test_what_is_missing_of_a_file_is_not_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, model = tmp_path / "x.jpg", piip.PIIP(tiny.model(), device="cpu")
    Image.fromarray(RGB).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    (small,) = model.predict_report([path], max_pixels=ENOUGH).failures
    assert "by windows" not in small.reason
    monkeypatch.setattr("piip.data.image_files.MAX_PIXELS", 5000)
    (large,) = model.predict_report([path], max_pixels=ENOUGH).failures
    assert "by windows" in large.reason
    assert "broken or truncated image" in large.reason
