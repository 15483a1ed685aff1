"""Hugging Face's .parquet files become data sets that are read."""

import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import piip
from piip.data.report import DataError

arrow = pytest.importorskip("pyarrow", reason="needs pyarrow (pip install piip[parquet])")
import pyarrow.parquet as parquet  # noqa: E402

IMAGE = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
NAMES = ["cat", "dog"]


def encoded(seed: int, kind: str = "PNG") -> dict[str, Any]:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return {"bytes": file.getvalue(), "path": "../../elsewhere.png"}


def write(path: Path, columns: dict[str, tuple[Any, list[Any]]], features: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = arrow.schema([(name, kind) for name, (kind, _) in columns.items()])
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    table = arrow.table([values for _, values in columns.values()], schema=schema)
    parquet.write_table(table, path)


def objects(path: Path, seeds: range) -> None:
    kind = arrow.struct([("bbox", arrow.list_(arrow.list_(arrow.float32()))), ("category", arrow.list_(arrow.int64()))])
    label = {"names": NAMES, "_type": "ClassLabel"}
    features = {
        "objects": {"feature": {"bbox": {"feature": {}, "_type": "Sequence"}, "category": label}, "_type": "Sequence"}
    }
    found = [{"bbox": [[1.0, 2.0, 10.0, 20.0], [5.0, 5.0, 8.0, 8.0]], "category": [1, seed % 2]} for seed in seeds]
    write(path, {"image": (IMAGE, [encoded(seed) for seed in seeds]), "objects": (kind, found)}, features)


@pytest.mark.parametrize("to", ["coco", "yolo"])
def test_objects(tmp_path: Path, to: str) -> None:
    source = tmp_path / "hub"
    objects(source / "data" / "train-00000-of-00002.parquet", range(2))
    objects(source / "data" / "train-00001-of-00002.parquet", range(2, 3))
    objects(source / "data" / "validation-00000-of-00001.parquet", range(3, 4))
    piip.convert_data(source, tmp_path / "out", to)
    train, val = (piip.open_data(tmp_path / "out", split) for split in ("train", "val"))
    assert train.classes == ("cat", "dog")
    assert [len(train.images), len(val.images)] == [3, 1]
    boxes = [one.box for image in train.images for one in image.objects]
    assert boxes[0] == pytest.approx((1, 2, 11, 22), abs=0.01)
    assert [train.classes[one.label] for one in train.images[0].objects] == ["dog", "cat"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub", "out"]  # nothing is left beside them


def test_columns_of_other_kinds_and_of_the_name_that_is_written(tmp_path: Path) -> None:
    kind = arrow.struct(
        [("bbox", arrow.list_(arrow.list_(arrow.float32()))), ("category", arrow.list_(arrow.string()))]
    )
    others = {
        "file_name": (arrow.string(), ["elsewhere.png"]),
        "taken": (arrow.timestamp("s"), [datetime(2020, 1, 1)]),
        "thumbnail": (arrow.binary(), [b"\xff"]),
        "score": (arrow.float64(), [float("nan")]),
        "more": (arrow.list_(IMAGE), [[encoded(1)]]),
        "by_name": (arrow.map_(arrow.string(), arrow.int64()), [[("a", 1)]]),
    }
    found = {"objects": (kind, [{"bbox": [[1.0, 2.0, 10.0, 20.0]], "category": ["cat"]}])}
    write(tmp_path / "hub" / "train-0.parquet", {"image": (IMAGE, [encoded(0)])} | found | others, {})
    (tmp_path / "hub" / "._train-0.parquet").write_bytes(b"of a system")
    piip.convert_data(tmp_path / "hub", tmp_path / "out")
    train = piip.open_data(tmp_path / "out", "train")
    assert [one.box for image in train.images for one in image.objects] == [(1, 2, 11, 22)]


def test_classes(tmp_path: Path) -> None:
    features = {"label": {"names": NAMES, "_type": "ClassLabel"}}
    for split, count in (("train", 4), ("test", 2)):
        columns = {
            "image": (IMAGE, [encoded(i, "JPEG") for i in range(count)]),
            "label": (arrow.int64(), [i % 2 for i in range(count)]),
        }
        write(tmp_path / "hub" / f"{split}-00000-of-00001.parquet", columns, features)
    piip.convert_data(tmp_path / "hub", tmp_path / "out")
    train = piip.open_data(tmp_path / "out", "train")
    assert train.classes == ("cat", "dog")
    assert len(train.images) == 4


def mask(seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    values = np.random.default_rng(seed).integers(0, 3, (40, 60), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return values, {"bytes": file.getvalue(), "path": None}


def test_masks(tmp_path: Path) -> None:
    source = tmp_path / "hub"
    for split, seeds in (("train", range(3)), ("validation", range(3, 4))):
        masks = [mask(seed)[1] for seed in seeds]
        columns = {"pixel_values": (IMAGE, [encoded(seed) for seed in seeds]), "label": (IMAGE, masks)}
        write(source / "data" / f"{split}-00000-of-00001.parquet", columns, {})
    with pytest.raises(DataError, match="classes"):
        piip.convert_data(source, tmp_path / "none")
    (source / "id2label.json").write_text(json.dumps({"0": "ground", "1": "road", "2": "car"}))
    piip.convert_data(source, tmp_path / "out")
    train, val = (piip.open_data(tmp_path / "out", split) for split in ("train", "val"))
    assert train.classes == ("ground", "road", "car")
    assert (len(train.images), len(val.images)) == (3, 1)
    with Image.open(val.images[0].mask) as written:
        assert np.array_equal(np.array(written), mask(3)[0])
    assert train.pixels == tuple(sum(int((mask(seed)[0] == value).sum()) for seed in range(3)) for value in range(3))
    (source / "classes.json").write_text(json.dumps({"classes": ["a", "b"], "ignore_index": 2}))
    piip.convert_data(source, tmp_path / "own")
    assert piip.open_data(tmp_path / "own", "train").classes == ("a", "b")


def test_what_cannot_be_converted_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "hub"
    write(source / "train.parquet", {"image": (IMAGE, [encoded(0)]), "depth": (IMAGE, [encoded(1)])}, {})
    with pytest.raises(DataError, match=r"several columns of images \(image, depth\)"):
        piip.convert_data(source, tmp_path / "out")
    write(source / "train.parquet", {"text": (arrow.string(), ["a"])}, {})
    with pytest.raises(DataError, match="no column of images"):
        piip.convert_data(source, tmp_path / "out")
    write(source / "train.parquet", {"image": (IMAGE, [{"bytes": b"no image", "path": None}])}, {})
    with pytest.raises(DataError, match="none of the formats"):
        piip.convert_data(source, tmp_path / "out")
    (source / "train.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="not readable as parquet"):
        piip.convert_data(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


def test_the_check_says_what_to_do(tmp_path: Path) -> None:
    objects(tmp_path / "train-00000-of-00001.parquet", range(1))
    with pytest.raises(DataError, match="piip data convert"):
        piip.check_data(tmp_path)
