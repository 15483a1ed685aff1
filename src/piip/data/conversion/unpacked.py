"""Hugging Face's .parquet files, with images inside, as folders that the readers know.

Images with objects or classes become an image folder with metadata.jsonl, images with label masks `images/train`,
`masks/train` and `classes.json`: a `classes.json` or `data.yaml` beside the files, else their `id2label.json`, else the
names of the data set's card.
"""

from __future__ import annotations

import io
import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from piip.data.formats.hugging_face import card_names
from piip.data.image_files import FORMATS
from piip.data.kinds import parquet_files
from piip.data.layout import SplitName, child, split_called
from piip.data.report import DataError
from piip.data.segmentation.folders import DESCRIPTIONS
from piip.data.text_files import LARGEST_DESCRIPTION, read_json
from piip.files import json_text, write_json

MISSING = 'reading .parquet files needs pyarrow: pip install "piip[parquet]"'
MASK_COLUMNS = ("mask", "label", "annotation", "segmentation", "masks", "labels", "annotations", "label_mask",
                "segmentation_mask", "semantic_mask", "gt", "target")  # fmt: skip
"""what a column of label masks is called"""
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
        DataError: files that are none, without images, or of several images in a row other than an image and its mask.
        ImportError: pyarrow is missing.
    """
    files = parquet_files(Path(source))
    if not files:
        yield Path(source)
        return
    with tempfile.TemporaryDirectory(prefix=".piip-unpacked-", dir=beside) as folder:
        masks = [_unpack(parts, Path(folder), split) for split, parts in _by_split(files).items()]
        if any(masks):
            _describe(Path(source), Path(folder))
        yield Path(folder)


def _by_split(files: list[Path]) -> dict[SplitName, list[Path]]:
    """Of train-00000-of-00002.parquet and the like; a name that is no split's is training data."""
    found: dict[SplitName, list[Path]] = {}
    for file in files:
        found.setdefault(split_called(file.stem.split("-")[0]) or "train", []).append(file)
    return found


def _unpack(files: list[Path], folder: Path, split: SplitName) -> bool:
    """Write the images of one split, and what is said of them; whether they have masks."""
    number, masks = 0, False
    lines: list[str] = []
    for file in files:
        for image, mask, row in _rows(file):
            masks = mask is not None
            name = f"{number:06d}{_suffix(image, file)}"
            _write(folder / "images" / split / name if masks else folder / split / name, image)
            if mask is not None:
                _write(folder / "masks" / split / f"{number:06d}{_suffix(mask, file)}", mask)
            else:
                lines.append(json_text(row | {"file_name": name}) + "\n")
            number += 1
    if not masks:
        _write(folder / split / "metadata.jsonl", "".join(lines).encode())
    return masks


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _describe(source: Path, folder: Path) -> None:
    """What the values of masks stand for, where anything says so; else the reader says what is missing."""
    home = source.parent if source.is_file() else source
    home = home.parent if home.name == "data" and child(home, DESCRIPTIONS) is None else home
    own, numbered = child(home, DESCRIPTIONS), child(home, ("id2label.json",))
    if own is not None:
        shutil.copy2(own, folder / own.name.lower())
    elif numbered is not None or (names := card_names(home)):
        classes = names if numbered is None else read_json(numbered, LARGEST_DESCRIPTION)
        known = set(map(str, classes if isinstance(classes, dict) else range(len(classes))))
        write_json(folder / "classes.json", {"classes": classes, "ignore_index": None if "255" in known else 255})


def _rows(file: Path) -> Iterator[tuple[bytes, bytes | None, dict[str, Any]]]:
    """The image, its mask, if any, and the other columns of each row, numbers of classes as their names."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ImportError(MISSING) from error
    try:
        with parquet.ParquetFile(file) as table:
            columns, features = _image_columns(table.schema_arrow, file), _features(table.schema_arrow)
            for batch in table.iter_batches(ROWS):
                for row in batch.to_pylist():
                    image, *mask = [_content(row.pop(column), column, file) for column in columns]
                    others = {key: _plain(_named(value, features.get(key))) for key, value in row.items()}
                    yield image, mask[0] if mask else None, others
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{file}: not readable as parquet ({(str(error).splitlines() or [''])[0]})") from error


def _plain(value: Any) -> Any:
    """What JSON can say of a value: dates and the like as texts, nothing of bytes and of what is no number."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, bytes) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _content(value: Any, column: str, file: Path) -> bytes:
    if value is None or value.get("bytes") is None:
        raise DataError(f"{file}: a row without an image inside, in the column {column}")
    content: bytes = value["bytes"]
    return content


def _image_columns(schema: Any, file: Path) -> list[str]:
    """The column of the images, and the one of their masks where there are two."""
    import pyarrow as arrow

    images = [
        field.name
        for field in schema
        if arrow.types.is_struct(field.type) and {"bytes", "path"} <= {inner.name for inner in field.type}
    ]
    masks = [name for name in images if name.lower() in MASK_COLUMNS]
    rest = [name for name in images if name not in masks]
    if len(rest) != 1 or len(masks) > 1:
        what = "no column of images" if not images else f"several columns of images ({', '.join(images)})"
        raise DataError(f"{file}: {what}; a data set of objects or classes has one, and one of masks another one, "
                        f"called {', '.join(MASK_COLUMNS[:3])} or the like")  # fmt: skip
    return rest + masks


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
