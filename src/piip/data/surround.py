"""What a part of a photo has around it: images of larger views of the photo, and where in them the part lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from piip.config import Preprocess, View
from piip.data.quarter_turns import turned
from piip.data.transforms import normalised
from piip.structures import Size, size_of


@dataclass(frozen=True)
class Shown:
    """The rectangle of a photo that an image shows, in pixels of the photo, and the image's own size.

    Flips and turns come last: what is flipped or turned is not resized or cut any more (ValueError).
    """

    left: float
    top: float
    right: float
    bottom: float
    size: Size
    mirrored: bool = False
    """left to right"""
    quarters: int = 0
    """turned anticlockwise by so many, after that"""

    @classmethod
    def tile(cls, left: int, top: int, right: int, bottom: int) -> Shown:
        """A part of the photo as it is."""
        return cls(left, top, right, bottom, (bottom - top, right - left))

    def resized(self, size: Size) -> Shown:
        """The same in an image of another size."""
        self._require_upright()
        return replace(self, size=size)

    def cropped(self, top: int, left: int, height: int, width: int) -> Shown:
        """After a part, in pixels of the image, is cut out of it."""
        self._require_upright()
        across = (self.right - self.left) / self.size[1]
        down = (self.bottom - self.top) / self.size[0]
        x, y = self.left + left * across, self.top + top * down
        return Shown(x, y, x + width * across, y + height * down, (height, width))

    def flipped(self) -> Shown:
        """After the image is flipped left to right."""
        self._require_upright()
        return replace(self, mirrored=True)

    def turned(self, quarters: int) -> Shown:
        """After the image is turned anticlockwise by so many quarters."""
        size = self.size[::-1] if quarters % 2 else self.size
        return replace(self, size=size, quarters=(self.quarters + quarters) % 4)

    @property
    def upright_size(self) -> Size:
        """The image's size before it was turned."""
        return self.size[::-1] if self.quarters % 2 else self.size

    def _require_upright(self) -> None:
        if self.mirrored or self.quarters:
            raise ValueError("what is flipped or turned is not resized, cut or flipped any more: turn it last")


class Window(NamedTuple):
    """The rectangle of a photo that a view shows, in pixels; it may end beyond the photo's right and lower border."""

    left: int
    top: int
    width: int
    height: int


class Surround(NamedTuple):
    """A view around an image."""

    image: Tensor
    """[3, h, w] float32, normalised, as large as the image, zeros where there is no photo"""
    frame: Tensor
    """[2, 2] float32, scale and shift: (x, y) in pixels of the image is `frame[0] * (x, y) + frame[1]` in this one"""

    @classmethod
    def of(cls, image: Tensor, scale: tuple[float, float], shift: tuple[float, float]) -> Surround:
        """With the frame's numbers (x, y)."""
        return cls(image, torch.tensor([scale, shift], dtype=torch.float32))

    def flipped(self) -> Surround:
        """Around the image flipped left to right."""
        (across, down), (x, y) = self.frame.tolist()
        width = self.image.shape[-1]
        return Surround.of(self.image.flip(-1), (across, down), (width - across * width - x, y))

    def turned(self, quarters: int) -> Surround:
        """Around the image turned anticlockwise by so many quarters."""
        image, (across, down), (x, y) = self.image, *self.frame.tolist()
        for _ in range(quarters):
            width = image.shape[-1]
            (across, down), (x, y) = (down, across), (y, width - across * width - x)
            image = turned(image, 1)
        return Surround.of(image, (across, down), (x, y))


def window_of(shown: Shown, view: View, photo: Size) -> Window | None:
    """What a view of a photo of `photo` pixels shows: its sides are `view` times those of what is shown.

    What is shown is in its middle, or as near to that as the photo's borders allow. No view is larger than the whole
    photo needs, which "image" is. None where the view is no larger than what is shown.

    >>> window_of(Shown.tile(0, 50, 100, 150), 2, (400, 300))
    Window(left=0, top=0, width=200, height=200)
    """
    height, width = shown.bottom - shown.top, shown.right - shown.left
    all_of_it = max(photo[0] / height, photo[1] / width)
    times = all_of_it if view == "image" else min(view, all_of_it)
    if times <= 1:
        return None
    height, width = times * height, times * width
    left = _start((shown.left + shown.right - width) / 2, width, photo[1])
    top = _start((shown.top + shown.bottom - height) / 2, height, photo[0])
    return Window(left, top, max(1, round(width)), max(1, round(height)))


def _start(start: float, length: float, limit: int) -> int:
    return round(max(0.0, min(start, limit - length)))


class Photo(Protocol):
    """Uint8 [3, H, W] of which parts can be had: a tensor, or a file's `FileRows`."""

    @property
    def shape(self) -> Sequence[int]:
        """(3, H, W)."""

    def __getitem__(self, part: tuple[slice, slice, slice], /) -> Tensor:
        """[3, h, w]; slices without a step."""


AT_ONCE = 89_000_000
"""pixels of a view that are shrunk at once; what is larger came from a file by windows"""


class Surroundings:
    """The views of one photo's parts.

    A view is shrunk with antialiasing, since it may be shrunk a lot; what was made last of each is kept, as the parts
    of a photo may share it.

    Args:
        photo: uint8 [3, H, W], a tensor or as one.
        preprocess: whose normalising is done.
        views: of each branch; none: no views at all.
    """

    def __init__(self, photo: Photo, preprocess: Preprocess, views: Sequence[View]) -> None:
        self.photo, self.preprocess, self.views = photo, preprocess, tuple(views)
        self.size: Size = (photo.shape[1], photo.shape[2])
        self._last: dict[View, tuple[Window, Size, Tensor]] = {}

    def of(self, shown: Shown, change: Callable[[Tensor], Tensor] | None = None) -> tuple[Surround | None, ...]:
        """What each branch sees around an image, None: the image; none at all where that is so for all branches.

        `change`: of the colours, uint8 [3, h, w] to the same.
        """
        made = {view: self._surround(shown, view, change) for view in dict.fromkeys(self.views)}
        surrounds = tuple(made[view] for view in self.views)
        return surrounds if any(surrounds) else ()

    def _surround(self, shown: Shown, view: View, change: Callable[[Tensor], Tensor] | None) -> Surround | None:
        window = None if view == 1 else window_of(shown, view, self.size)
        if window is None:
            return None
        size = shown.upright_size
        pixels = self._pixels(view, window, size)
        seen = normalised(pixels if change is None else change(pixels), self.preprocess)
        image = torch.zeros(3, *size)
        image[:, : seen.shape[1], : seen.shape[2]] = seen
        surround = Surround.of(image, *_place(shown, window, self._within(window), size_of(seen)))
        surround = surround.flipped() if shown.mirrored else surround
        return surround.turned(shown.quarters) if shown.quarters else surround

    def _within(self, window: Window) -> Size:
        """(height, width) of the photo's pixels in a window."""
        height, width = self.size
        return min(window.height, height - window.top), min(window.width, width - window.left)

    def _pixels(self, view: View, window: Window, size: Size) -> Tensor:
        """uint8 [3, h, w]: the photo in a window that is as an image of `size`, without what lies beyond the photo."""
        last = self._last.get(view)
        if last is not None and last[:2] == (window, size):
            return last[2]
        height, width = self._within(window)
        to = max(1, round(size[0] * height / window.height)), max(1, round(size[1] * width / window.width))
        rows, columns = (window.top, window.top + height), slice(window.left, window.left + width)
        if height * width > AT_ONCE:  # across, some rows at a time, and then down, as resizing does it, too
            strips = ((start, min(start + AT_ONCE // width, rows[1])) for start in range(*rows, AT_ONCE // width))
            pixels = torch.cat([_shrunk(self.photo[:, a:b, columns], (b - a, to[1])) for a, b in strips], dim=1)
        else:
            pixels = self.photo[:, slice(*rows), columns]
        pixels = _shrunk(pixels, to)
        self._last[view] = window, size, pixels
        return pixels


def _shrunk(image: Tensor, size: Size) -> Tensor:
    return functional.resize(image, list(size), v2.InterpolationMode.BILINEAR, antialias=True)


def _place(shown: Shown, window: Window, within: Size, seen: Size) -> tuple[tuple[float, float], tuple[float, float]]:
    """Scale and shift of (x, y) from pixels of an image to those of its view, of which `seen` show `within` pixels."""
    across, down = seen[1] / within[1], seen[0] / within[0]
    scale = (
        (shown.right - shown.left) / shown.upright_size[1] * across,
        (shown.bottom - shown.top) / shown.upright_size[0] * down,
    )
    return scale, ((shown.left - window.left) * across, (shown.top - window.top) * down)


def alike(change: Callable[[Tensor], Tensor]) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """A random change, and another that does the same as the first did when it was called last.

    What is drawn from torch's global generator is what the first alone would draw.
    """
    states: list[Tensor] = []

    def first(image: Tensor) -> Tensor:
        states[:] = [torch.get_rng_state()]
        return change(image)

    def again(image: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(states[0])
            return change(image)

    return first, again
