"""Small sets of classified images, written for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_image(
    path: Path, seed: int, size: tuple[int, int] = (12, 10), colour: tuple[int, int, int] | None = None
) -> Path:
    """A picture of noise, different for every seed, tinted by `colour`; (height, width)."""
    noise = np.random.default_rng(seed).integers(0, 60, (*size, 3))
    pixels = noise + np.array(colour or (90, 90, 90))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


COLOURS = {"blue": (20, 20, 190), "green": (20, 190, 20), "red": (190, 20, 20)}


def write_classes(root: Path, count: int = 2, seed: int = 0, classes: tuple[str, ...] = tuple(COLOURS)) -> Path:
    """`root`/CLASS/n.png, told apart by their colour."""
    for label, name in enumerate(classes):
        for index in range(count):
            write_image(root / name / f"{index}.png", seed + 100 * label + index, colour=COLOURS.get(name))
    return root
