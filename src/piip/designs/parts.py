"""What a pyramid is put together from: pretrained ViTs by letter, sizes, and the ratios of the paper's tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from piip.zoo.branches import ARCHITECTURES, timm_name

FAMILIES = {"deit": "tsbl", "augreg": "tsbl", "dinov2": "sbl"}
"""weights of each kind that timm has, by their letters: smallest first"""
PATCHES = {"deit": 16, "augreg": 16, "dinov2": 14}
FINEST_SIZES = (320, 1792)
"""pixels; the largest is the largest of the paper's tables"""
COARSEST_SIZE = 192
"""pixels, the smallest of the paper's detectors and segmentors"""
NEIGHBOUR_RATIOS = (1.14, 2.5)
"""of a branch's size to the next one's, as in the paper's tables: 1792/1568 to 1120/448"""
WHOLE_RATIOS = (1.33, 4.0)
"""of the finest size to the coarsest one's: 1024/768 to 1792/448 in the tables"""


@dataclass(frozen=True)
class Model:
    """A plain ViT with pretrained weights."""

    letter: str
    name: str
    """timm's"""
    width: int
    depth: int
    patch: int


@dataclass(frozen=True)
class Pyramid:
    """Models on sizes, finest first."""

    models: tuple[Model, ...]
    sizes: tuple[int, ...]
    """pixels"""

    @property
    def letters(self) -> str:
        """Such as "TSB"."""
        return "".join(model.letter for model in self.models).upper()

    @property
    def words(self) -> str:
        """As `piip.create_backbone` and a model's file take it."""
        return " + ".join(f"{model.name}@{size}" for model, size in zip(self.models, self.sizes, strict=True))


@lru_cache
def models_of(family: str) -> tuple[Model, ...]:
    """Smallest first; ValueError for another family."""
    if family not in FAMILIES:
        raise ValueError(f"family {family!r}: use one of {', '.join(FAMILIES)}")
    return tuple(_model(family, letter) for letter in FAMILIES[family])


def _model(family: str, letter: str) -> Model:
    kind = "deit3" if family == "deit" and letter != "t" else family
    name = timm_name(kind, letter, None)
    assert name is not None
    fields = ARCHITECTURES[letter]
    return Model(letter, name, fields["width"], fields["depth"], PATCHES[family])


def pyramids(family: str, largest_finest: int = FINEST_SIZES[1]) -> Iterator[Pyramid]:
    """All pyramids of two to four neighbouring models of a family, up to a size of the finest branch."""
    models = models_of(family)
    step = 2 * models[0].patch
    smallest = -(-FINEST_SIZES[0] // step) * step
    for first in range(len(models)):
        for after in range(first + 2, min(first + 4, len(models)) + 1):
            chosen = models[first:after]
            for finest in range(smallest, min(largest_finest, FINEST_SIZES[1]) + 1, step):
                for sizes in _coarser((finest,), len(chosen), step):
                    yield Pyramid(chosen, sizes)


def _coarser(sizes: tuple[int, ...], count: int, step: int) -> Iterator[tuple[int, ...]]:
    """Sizes for the other branches; in pyramids of four the inner ones are taken every other step."""
    if len(sizes) == count:
        if WHOLE_RATIOS[0] <= sizes[0] / sizes[-1] <= WHOLE_RATIOS[1]:
            yield sizes
        return
    stride = 2 * step if count == 4 else step
    smallest = max(COARSEST_SIZE, sizes[-1] / NEIGHBOUR_RATIOS[1], sizes[0] / WHOLE_RATIOS[1])
    largest = sizes[-1] / NEIGHBOUR_RATIOS[0]
    for size in range(-(-int(smallest + 0.999) // stride) * stride, int(largest) + 1, stride):
        if int(sizes[0] * (size / sizes[0])) == size:  # as the pyramid's resizing will round it
            yield from _coarser((*sizes, size), count, step)


def neighbours(pyramid: Pyramid) -> Iterator[tuple[tuple[Model, int], tuple[Model, int]]]:
    """Finer and coarser branch of each exchange."""
    return pairwise(zip(pyramid.models, pyramid.sizes, strict=True))
