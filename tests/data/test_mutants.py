"""Thousands of damaged files, from a seed: each is read or refused with the one kind of error that readers have."""

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from piip.data.decode import decode_image
from piip.data.detection.coco import read_coco
from piip.data.image_files import ImageError
from piip.data.report import DataError
from piip.data.text_files import read_yaml, typed_yaml
from piip.weights.files import WeightsError, read_tensors

pytestmark = pytest.mark.slow


def mutant(data: bytes, random: np.random.Generator) -> bytes:
    """`data` with bits flipped, cut off, a piece moved or doubled, or four bytes that may be a length changed."""
    kind = random.integers(5)
    place = int(random.integers(len(data)))
    if kind == 0:
        changed = bytearray(data)
        for _ in range(int(random.integers(1, 9))):
            changed[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
        return bytes(changed)
    if kind == 1:
        return data[:place]
    if kind == 2:
        return data[:place] + struct.pack(">I", int(random.integers(1 << 32))) + data[place + 4 :]
    end = place + int(random.integers(1, 64))
    if kind == 3:
        return data[:place] + data[end:] + data[place:end]
    return data[:end] + data[place:]


def images() -> dict[str, bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    found = {}
    for mode, kind in [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("P", "PNG"), ("LA", "PNG"),
                       ("RGB", "WEBP"), ("RGB", "BMP"), ("RGB", "TIFF"), ("P", "GIF")]:  # fmt: skip
        buffer = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(pixels).convert(mode).save(buffer, kind, **({"exif": exif} if kind in ("JPEG", "PNG") else {}))
        found[f"{mode} {kind}"] = buffer.getvalue()
    return found


def count_refused(read: Callable[[bytes], object], data: bytes, refusal: type[Exception], number: int) -> int:
    """How many of `number` mutants `read` refuses; any other exception is the test's failure."""
    random = np.random.default_rng(7)
    refused = 0
    for index in range(number):
        damaged = mutant(data, random)
        try:
            read(damaged)
        except refusal:
            refused += 1
        except Exception as error:
            pytest.fail(f"mutant {index}: {type(error).__name__}: {error}")
    return refused


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", images())
def test_damaged_images(kind: str) -> None:
    assert 0 < count_refused(decode_image, images()[kind], ImageError, 300) <= 300


def test_damaged_weights(tmp_path: Path) -> None:
    tensors = {f"blocks.{number}.weight": torch.randn(4, number + 1) for number in range(20)}

    def read(data: bytes) -> None:
        (tmp_path / "a.safetensors").write_bytes(data)
        read_tensors(tmp_path / "a.safetensors")

    assert count_refused(read, save(tensors), WeightsError, 2000) > 500


def test_damaged_annotations(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name in "12":
        Image.new("RGB", (40, 30)).save(tmp_path / "train" / f"{name}.png")
    outline = [4, 6, 16, 6, 16, 16, 4, 16]
    objects = [{"id": i, "image_id": 1 + i % 2, "category_id": 1 + i % 2, "bbox": [4, 6, 12, 10], "area": 120,
                "iscrowd": 0, "segmentation": [outline]} for i in range(1, 9)]  # fmt: skip
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in (1, 2)],
        "annotations": objects,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }

    def read(data: bytes) -> None:
        (tmp_path / "a.json").write_bytes(data)
        read_coco(tmp_path / "a.json", tmp_path / "train")

    assert count_refused(read, json.dumps(content).encode(), DataError, 2000) > 500


def test_damaged_settings(tmp_path: Path) -> None:
    text = (
        b"training: {lr: 1.0e-4, a: &a [1, 2], b: *a}\nmodel:\n  - name: 'x'\n  - date: 2024-01-01\n  <<: {c: 0x1F}\n"
    )

    def read(data: bytes) -> None:
        (tmp_path / "a.yaml").write_bytes(data)
        try:
            typed_yaml(data.decode("latin-1"), "x")
        finally:
            read_yaml(tmp_path / "a.yaml")

    assert count_refused(read, text, DataError, 2000) > 500
