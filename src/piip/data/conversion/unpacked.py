"""Hugging Face's .parquet files, with images inside, as an image folder with metadata.jsonl, which the readers know."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from piip.data.decode import FORMATS
from piip.data.kinds import parquet_files
from piip.data.layout import SplitName, split_called
from piip.data.report import DataError
from piip.files import json_text

MISSING = 'reading .parquet files needs pyarrow: pip install "piip[parquet]"'
ROWS = 64
"""at a time: their images are in memory"""
SUFFIX_OF = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "GIF": ".gif",
}


@contextmanager
def unpacked(source: str | Path, beside: Path) -> Iterator[Path]:
    """`source` itself, or of a folder of .parquet files a temporary folder in `beside` with what they hold.

    Raises:
        DataError: files that are none, without images, or of several images in a row (such as masks).
        ImportError: pyarrow is missing.
    """
    files = parquet_files(Path(source))
    if not files:
        yield Path(source)
        return
    with tempfile.TemporaryDirectory(prefix=".piip-unpacked-", dir=beside) as folder:
        for split, parts in _by_split(files).items():
            _unpack(parts, Path(folder) / split)
        yield Path(folder)


def _by_split(files: list[Path]) -> dict[SplitName, list[Path]]:
    """Of train-00000-of-00002.parquet and the like; a name that is no split's is training data."""
    found: dict[SplitName, list[Path]] = {}
    for file in files:
        found.setdefault(split_called(file.stem.split("-")[0]) or "train", []).append(file)
    return found


def _unpack(files: list[Path], folder: Path) -> None:
    folder.mkdir()
    number = 0
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as lines:
        for file in files:
            for image, row in _rows(file):
                name = f"{number:06d}{_suffix(image, file)}"
                (folder / name).write_bytes(image)
                lines.write(json_text({"file_name": name} | row) + "\n")
                number += 1


def _rows(file: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The image and the other columns of each row, numbers of classes as their names."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ImportError(MISSING) from error
    try:
        table = parquet.ParquetFile(file)
        column, features = _image_column(table.schema_arrow, file), _features(table.schema_arrow)
        for batch in table.iter_batches(ROWS):
            for row in batch.to_pylist():
                image = row.pop(column)
                if image is None or image.get("bytes") is None:
                    raise DataError(f"{file}: a row without an image inside")
                yield image["bytes"], {key: _named(value, features.get(key)) for key, value in row.items()}
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{file}: not readable as parquet ({str(error).splitlines()[0]})") from error


def _image_column(schema: Any, file: Path) -> str:
    import pyarrow as arrow

    images = [
        field.name
        for field in schema
        if arrow.types.is_struct(field.type) and {"bytes", "path"} <= {inner.name for inner in field.type}
    ]
    if len(images) != 1:
        what = "no column of images" if not images else f"several columns of images ({', '.join(images)})"
        raise DataError(f"{file}: {what}; a data set of objects or classes has one")
    return images[0]


def _features(schema: Any) -> dict[str, Any]:
    """What `datasets` noted of the columns: among others the names of classes."""
    import json

    noted = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(noted)["info"]["features"] if noted else {}
    except (ValueError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _named(value: Any, feature: Any) -> Any:
    """The same with names in place of the numbers of classes, wherever the feature says that these are some."""
    if isinstance(feature, list) and feature:
        feature = {"feature": feature[0]}
    if not isinstance(feature, dict):
        return value
    if feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list):
        names = feature["names"]
        if isinstance(value, list):
            return [_named(one, feature) for one in value]
        known = isinstance(value, int) and 0 <= value < len(names)
        return names[value] if known else None
    inner = feature.get("feature", feature if "_type" not in feature else None)
    if isinstance(value, list):
        return [_named(one, inner) for one in value]
    if isinstance(value, dict) and isinstance(inner, dict):
        return {key: _named(part, inner.get(key)) for key, part in value.items()}
    return value


def _suffix(image: bytes, file: Path) -> str:
    try:
        with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
            return SUFFIX_OF[str(opened.format)]
    except (OSError, KeyError) as error:
        raise DataError(f"{file}: a row whose image is in none of the formats {', '.join(FORMATS)}") from error
