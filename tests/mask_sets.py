"""Small sets of images with label masks, for tests: a red square and a green disc on blue."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("ground", "square", "disc")
IGNORE = 255


def draw(side: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image [side, side + 16, 3] and its labels; a frame of two pixels is ignored."""
    height, width = side, side + 16
    labels = np.zeros((height, width), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    top, left = generator.integers(4, side // 2, 2)
    labels[top : top + side // 3, left : left + side // 3] = 1
    centre = generator.integers(side // 4, side * 3 // 4, 2)
    labels[(rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < (side // 6) ** 2] = 2
    colours = np.array([(40, 60, 160), (200, 40, 40), (40, 180, 60)])
    image = (colours[labels] + generator.integers(-20, 20, (height, width, 3))).clip(0, 255).astype(np.uint8)
    labels[:2], labels[-2:], labels[:, :2], labels[:, -2:] = IGNORE, IGNORE, IGNORE, IGNORE
    return image, labels


def make_masks(folder: Path, train: int = 4, val: int = 2, side: int = 64, description: Any = None) -> Path:
    """`images/{train,val}` and `masks/{train,val}` with `classes.json`."""
    generator = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, labels = draw(side, generator)
            Image.fromarray(image).save(folder / "images" / split / f"{number:03}.png")
            Image.fromarray(labels).save(folder / "masks" / split / f"{number:03}.png")
    description = description or {"classes": list(CLASSES), "ignore_index": IGNORE}
    (folder / "classes.json").write_text(json.dumps(description))
    return folder
