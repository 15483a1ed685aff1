"""Images in almost any form in, results out: the one owner of device and precision outside training."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from piip import devices, tasks
from piip.data.batches import collate
from piip.data.decode import SUFFIXES, ImageError, decode_image, rgb_from_pil
from piip.data.samples import Sample
from piip.inference.current_copy import InferenceCopy
from piip.structures import Batch, Instances, Prediction

if TYPE_CHECKING:
    from piip.model import PIIPModel
    from piip.tasks import Result

Source = str | Path | bytes | PIL.Image.Image | np.ndarray | Tensor
"""An image: a file, the bytes of one, a PIL image, an array [H, W, 3] or [H, W] uint8 (RGB, grey), a tensor
[3, H, W] uint8 or float from 0 to 1. A folder or a glob pattern stands for the images it holds, sorted by name."""

Precision = Literal["fp32", "bf16", "fp16"]

TOLERANCE = 1e-3
"""how far float pixels may leave 0..1, as they do after an interpolation"""


class Failure(NamedTuple):
    """A file that is no usable image."""

    path: Path
    reason: str


@dataclass(frozen=True, eq=False)
class PredictionReport:
    """The results, in the order of the sources, and the files that were skipped."""

    results: list[Result]
    failures: list[Failure]


class Predictor:
    """Runs a model on images.

    Args:
        model: moved to `device`; put into eval mode while it runs
        device: a name of torch's, the number of a GPU, or None or "auto": the first GPU if there is one, else the CPU
        precision: of the matrix products; "bf16" and "fp16" use autocast, and so does "fp32" for a model that was saved
            in one of the two, in its own
        fuse: run a folded copy (see `piip.inference`), made with the first batch and again whenever the weights
            changed; it holds about two thirds of the model's memory once more
        compile: compile the backbone with torch.compile, for images of few fixed sizes; see `piip.inference.compiling`
    """

    def __init__(
        self,
        model: PIIPModel,
        device: devices.Device | None = None,
        precision: Precision = "fp32",
        fuse: bool = True,
        compile: bool = False,
    ) -> None:
        self.device = devices.find(device)
        if precision not in (known := get_args(Precision)):
            raise ValueError(f"precision {precision!r}: use one of {', '.join(known)}")
        self.precision = precision
        self.model = model.to(self.device)
        self.inference = InferenceCopy(self.model, fuse, compile)
        self.config = model.config
        self.task = tasks.of(model.config)
        self.transform = self.task.input_transform(model.config.preprocess)

    def predict(
        self, sources: Source | Iterable[Source], score_threshold: float = 0.25, batch_size: int = 1
    ) -> PredictionReport:
        """Run on all `sources` and keep every result; for many images prefer `stream`, which keeps none.

        Broken files are skipped and listed in the report.

        Raises:
            FileNotFoundError: a path, folder or pattern with no image behind it
            TypeError, ValueError: an array, tensor or argument of the wrong kind
        """
        outcomes = list(self.stream(sources, score_threshold, batch_size))
        results = [outcome for outcome in outcomes if not isinstance(outcome, Failure)]
        return PredictionReport(results, [outcome for outcome in outcomes if isinstance(outcome, Failure)])

    def stream(
        self, sources: Source | Iterable[Source], score_threshold: float = 0.25, batch_size: int = 1
    ) -> Iterator[Result | Failure]:
        """The results one by one, in the order of the sources; a `Failure` in place of a broken file.

        An image's result can depend slightly on its batch where images of several sizes share one: the
        smaller ones are padded. Raises what `predict` raises, before the first image for a missing path.
        """
        if not 0.0 <= score_threshold <= 1.0:
            raise ValueError(f"score_threshold {score_threshold}: use a number from 0 to 1")
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size}: use 1 or more")
        return self._stream(_images_of(sources), score_threshold, batch_size)

    def run(self, batch: Batch) -> list[Prediction]:
        """Predictions of a batch, on the CPU, boxes and masks in pixels of the original images."""
        batch = batch.to(self.device)
        if {parameter.dtype for parameter in self.model.parameters()} == {torch.float64}:
            batch = replace(batch, images=batch.images.double())
        with _evaluating(self.model):
            model = self.inference.get()
            with torch.inference_mode(), self._autocast():
                predictions = self.task.run(model, batch)
        return [{name: value.cpu() for name, value in prediction.items()} for prediction in predictions]

    @property
    def padding(self) -> tuple[int, int]:
        """What `data.batches.collate` pads images to: multiples of the first, and at least the second, in pixels."""
        return self.model.config.preprocess.pad_multiple, self.model.config.backbone.smallest_image

    def _stream(self, sources: Iterable[Source], score_threshold: float, batch_size: int) -> Iterator[Result | Failure]:
        waiting: list[tuple[Path | None, np.ndarray] | Failure] = []
        for source in sources:
            waiting.append(_open(source))
            if sum(not isinstance(entry, Failure) for entry in waiting) == batch_size:
                yield from self._finish(waiting, score_threshold)
                waiting = []
        yield from self._finish(waiting, score_threshold)

    def _finish(
        self, entries: list[tuple[Path | None, np.ndarray] | Failure], score_threshold: float
    ) -> Iterator[Result | Failure]:
        images = [entry[1] for entry in entries if not isinstance(entry, Failure)]
        predictions = iter(self.run(self._batch(images)) if images else [])
        for entry in entries:
            if isinstance(entry, Failure):
                yield entry
            else:
                yield self._result(next(predictions), entry[1], entry[0], score_threshold)

    def _batch(self, images: list[np.ndarray]) -> Batch:
        nothing = Instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
        samples = [
            Sample(self.transform(torch.from_numpy(image).permute(2, 0, 1)), nothing, image.shape[:2], index)
            for index, image in enumerate(images)
        ]
        return collate(samples, *self.padding)

    def _result(self, prediction: Prediction, image: np.ndarray, path: Path | None, score_threshold: float) -> Result:
        result: Result = self.task.result(self.model.config, prediction, image, path, score_threshold)
        return result

    def _autocast(self) -> Any:
        if self.precision != "fp32":
            return torch.autocast(self.device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[self.precision])
        stored = {parameter.dtype for parameter in self.model.parameters()} & {torch.bfloat16, torch.float16}
        return torch.autocast(self.device.type, stored.pop()) if stored else nullcontext()


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _images_of(sources: Source | Iterable[Source]) -> Iterable[Source]:
    """Single images; a generator (say, of video frames) is read as it goes, everything else at once."""
    if isinstance(sources, Source):
        return _expand(sources)
    if not isinstance(sources, Iterable):
        raise TypeError(f"a {type(sources).__name__} is no image; use a path, a PIL image, an array or a tensor")
    expanded = chain.from_iterable(_expand(source) for source in sources)
    return expanded if isinstance(sources, Iterator) else list(expanded)


def _expand(source: Source) -> Sequence[Source]:
    """The images that a path stands for; any other source is one image."""
    return paths_of(source) if isinstance(source, str | Path) else [source]


def paths_of(source: str | Path) -> list[Path]:
    """The image files that a file, a folder or a pattern stands for; FileNotFoundError where there are none."""
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = list(path.iterdir())
    elif glob.has_magic(str(source)):
        found = [Path(name) for name in glob.glob(str(source), recursive=True)]
    else:
        raise FileNotFoundError(f"{source}: no such file or folder")
    images = [p for p in sorted(found) if p.suffix.lower() in SUFFIXES and p.is_file()]
    if not images:
        raise FileNotFoundError(f"{source}: no images there (files ending in {', '.join(SUFFIXES)})")
    return images


def _open(source: Source) -> tuple[Path | None, np.ndarray] | Failure:
    if isinstance(source, Path):
        try:
            return source, decode_image(source)
        except ImageError as error:
            return Failure(source, str(error))
    if isinstance(source, bytes):
        return None, decode_image(source)
    if isinstance(source, PIL.Image.Image):
        return None, rgb_from_pil(source)
    if isinstance(source, Tensor):
        return None, _from_tensor(source)
    if isinstance(source, np.ndarray):
        return None, _from_array(source)
    raise TypeError(f"a {type(source).__name__} is no image; use a path, a PIL image, an array or a tensor")


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
