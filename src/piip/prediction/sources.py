"""Images in almost any form, and lists, folders and patterns of them, to arrays of pixels."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from piip.data.decode import decode_for, rgb_from_pil
from piip.data.image_files import ImageError
from piip.data.surround import Photo
from piip.prediction.listing import Paths, is_list, paths_of
from piip.prediction.picture import Picture, by_windows, rows_of, stamp_of
from piip.structures import Size

Files = str | Path
"""a file, a folder or a pattern: one image or several, which a type cannot tell"""
Pixels = bytes | io.IOBase | PIL.Image.Image | np.ndarray | Tensor
"""one image, whatever its values"""
Source = Files | Pixels
"""An image: a path, an open file, the bytes of one, a PIL image, an array [H, W, 3] or [H, W] uint8 (RGB, grey), a
tensor [3, H, W] uint8 or float from 0 to 1. A folder, a glob pattern or a list (see `prediction.listing`) stands for
the images it holds, a folder's sorted by name, without hidden ones (such as macOS's `._photo.jpg`, no images)."""

Needed = Callable[[Size], Size]
"""from an image's (height, width) to what is enough of it"""

Many = Iterable[Source]
Input = Source | Many
"""what a prediction takes"""

TOLERANCE = 1e-3
"""how far float pixels may leave 0..1, as they do after an interpolation"""


class Failure(NamedTuple):
    """A file that is no usable image."""

    path: Path
    reason: str

    @classmethod
    def of(cls, path: Path, error: ImageError) -> Failure:
        """With the reason alone: messages begin with the path."""
        return cls(path, str(error).removeprefix(f"{path}: "))


class Opened(NamedTuple):
    """An image as it was found."""

    path: Path | None
    pixels: np.ndarray
    """[h, w, 3] uint8 RGB, upright: all pixels, or of a large photo no more than are needed"""
    picture: Picture
    """what a result keeps of it; with all pixels at hand"""

    @classmethod
    def of(cls, path: Path | None, pixels: np.ndarray) -> Opened:
        """An image that was read, all of it."""
        return cls(path, pixels, Picture.of(pixels))


class InParts(NamedTuple):
    """An image of which one part after the other is looked at."""

    path: Path | None
    photo: Photo
    """[3, H, W] uint8 RGB, upright"""
    picture: Picture

    @classmethod
    def of(cls, image: Opened) -> InParts:
        """One that is in memory, all of it."""
        return cls(image.path, torch.from_numpy(image.pixels).permute(2, 0, 1), image.picture)


def is_one_image(source: Source | Iterable[Source]) -> bool:
    """Whether `source` is a single image: a file or pixels, not a folder, a list or a collection of any kind."""
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        return path.is_file() and not is_list(path)
    return isinstance(source, Source)


def images_of(sources: Source | Iterable[Source], recursive: bool = False) -> Iterable[Source]:
    """Single images; a generator (say, of video frames) is read as it goes, everything else at once.

    `recursive`: of a folder, with the folders inside it.

    Raises:
        FileNotFoundError: a path, folder or pattern with no image behind it.
        TypeError: something that is neither an image nor a collection of them.
    """
    if isinstance(sources, Paths):
        return sources
    if isinstance(sources, Source):
        return expand(sources, recursive)
    if not isinstance(sources, Iterable):
        raise TypeError(f"a {type(sources).__name__} is no image; use a path, a PIL image, an array or a tensor")
    expanded = (expand(source, recursive) for source in sources)
    if isinstance(sources, Iterator):
        return chain.from_iterable(expanded)
    parts = list(expanded)
    files = [part for part in parts if isinstance(part, Paths)]
    if len(files) == len(parts):
        return Paths(chain.from_iterable(part.names for part in files))
    return list(chain.from_iterable(parts))


def expand(source: Source, recursive: bool = False) -> Sequence[Source]:
    """The images that a path stands for; any other source is one image."""
    return paths_of(source, recursive) if isinstance(source, str | Path) else [source]


def whole_size(size: Size) -> Size:
    """What is needed of an image where that is all of it."""
    return size


def opened(
    source: Source, max_pixels: int | None = None, bgr: bool = False, needed: Needed = whole_size
) -> Opened | Failure:
    """An image's pixels; a `Failure` for a file that is broken, ValueError or TypeError for anything else wrong.

    Of photos beyond 40 megapixels no more pixels than are `needed`, see `decode.decode_for`. With `max_pixels`, a file
    that is too large to be decoded, or of other pixels, is read by `data.windows`.
    """
    if isinstance(source, Path):
        try:
            return _from_file(source, max_pixels, needed)
        except ImageError as error:
            return Failure.of(source, error)
    if isinstance(source, bytes | io.IOBase):
        content = source if isinstance(source, bytes) else _content(source)
        return _as_found(None, *decode_for(content, needed), Picture((0, 0), content))
    if isinstance(source, PIL.Image.Image):
        return Opened.of(None, rgb_from_pil(source))
    if isinstance(source, Tensor):
        return Opened.of(None, _from_tensor(source))
    if isinstance(source, np.ndarray):
        return Opened.of(None, _from_array(source[..., ::-1] if bgr and source.ndim == 3 else source))
    raise TypeError(f"a {type(source).__name__} is no image; use a path, a PIL image, an array or a tensor")


@contextmanager
def opened_in_parts(source: Source, max_pixels: int | None = None, bgr: bool = False) -> Iterator[InParts | Failure]:
    """As `opened`, but of a file that is too large to be decoded no more rows are read than a part has.

    `ImageError` comes from its parts, then, where the file is damaged there.
    """
    with ExitStack() as files:
        if not isinstance(source, Path) or max_pixels is None:
            found = opened(source, max_pixels, bgr)
            yield found if isinstance(found, Failure) else InParts.of(found)
            return
        picture = _picture_of(source, max_pixels)
        try:
            try:
                image = InParts.of(_as_found(source, *decode_for(source, whole_size), picture))
            except ImageError as error:
                photo = files.enter_context(rows_of(source, max_pixels, error))
                picture.size = (photo.shape[1], photo.shape[2])
                image = InParts(source, photo, picture)
        except ImageError as error:
            yield Failure.of(source, error)
            return
        yield image


def _picture_of(path: Path, max_pixels: int | None) -> Picture:
    return Picture((0, 0), Path(os.path.abspath(path)), max_pixels=max_pixels, stamp=stamp_of(path))


def _from_file(path: Path, max_pixels: int | None, needed: Needed) -> Opened:
    picture = _picture_of(path, max_pixels)
    try:
        return _as_found(path, *decode_for(path, needed), picture)
    except ImageError as error:
        if max_pixels is None:
            raise
        pixels = by_windows(path, max_pixels, error)
        return _as_found(path, pixels, pixels.shape[:2], picture)


def _as_found(path: Path | None, pixels: np.ndarray, size: Size, picture: Picture) -> Opened:
    picture.size = size
    picture.pixels = pixels if pixels.shape[:2] == size else None
    return Opened(path, pixels, picture)


def _content(file: io.IOBase) -> bytes:
    """What an open file holds, from its beginning where it can be gone back to."""
    if file.seekable():
        file.seek(0)
    content = file.read()
    if not isinstance(content, bytes):
        raise TypeError('a file opened for text is no image; open it with mode "rb"')
    return content


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8:
        raise ValueError(f"array of {array.dtype}: use uint8, 0 to 255 (or a float tensor [3, H, W] from 0 to 1)")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"array of shape {array.shape}: use [H, W, 3] (RGB) or [H, W] (grey); "
                         "several images go in a list")  # fmt: skip
    return np.array(array, order="C")  # results keep the image, and callers may use their array again


def _from_tensor(tensor: Tensor) -> np.ndarray:
    if tensor.ndim != 3 or tensor.shape[0] != 3 or 0 in tensor.shape:
        raise ValueError(f"tensor of shape {tuple(tensor.shape)}: use [3, H, W] (RGB); several images go in a list")
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        if not tensor.isfinite().all():
            raise ValueError("the image tensor has NaN or infinite values")
        if tensor.min() < -TOLERANCE or tensor.max() > 1 + TOLERANCE:
            raise ValueError(f"float image tensor with values from {tensor.min():g} to {tensor.max():g}: "
                             "use 0 to 1 (divide by 255), not normalised")  # fmt: skip
        tensor = (tensor.float() * 255).round().clamp(0, 255).to(torch.uint8)
    elif tensor.dtype != torch.uint8:
        raise ValueError(f"tensor of {tensor.dtype}: use uint8, 0 to 255, or float from 0 to 1")
    return tensor.permute(1, 2, 0).contiguous().numpy()
