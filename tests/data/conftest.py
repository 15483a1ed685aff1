"""A writer of small COCO sets, whole or with one fault."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_records import CATEGORIES, HEIGHT, WIDTH, annotation, image
from PIL import Image

Write = Callable[..., tuple[Path, Path]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes images and annotations below `tmp_path`; returns what `read_coco` takes."""

    def write_set(
        annotations: list[Any] | None = None,
        images: list[Any] | None = None,
        categories: list[Any] = CATEGORIES,
        files: tuple[str, ...] = ("1.png", "2.png"),
        name: str = "train",
    ) -> tuple[Path, Path]:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for seed, file in enumerate(files):
            pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / file)
        content = {
            "images": [image(1), image(2)] if images is None else images,
            "annotations": [annotation()] if annotations is None else annotations,
            "categories": categories,
        }
        path = tmp_path / "annotations" / f"instances_{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
        return path, folder

    return write_set
