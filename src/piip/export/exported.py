"""What users hold of an exported file: it predicts as a `PIIP` does, without the model's code or weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from typing_extensions import Unpack

from piip.data.transforms import normalised, resized
from piip.export.description import Description
from piip.export.exported_model import ExportedModel
from piip.export.onnx_file import OnnxFile
from piip.export.openvino_file import OpenVINOFile
from piip.export.runtime import Runtime
from piip.export.torch_file import TorchFile
from piip.prediction.files import Writer, paths_among, saving
from piip.prediction.options import Conf, FurtherOptions, Options
from piip.prediction.predictor import PredictionReport, Predictor
from piip.prediction.results import AnyResult
from piip.prediction.sources import Input, images_of, is_one_image
from piip.structures import Size, size_of

RUNTIMES: dict[str, type[Runtime]] = {"onnx": OnnxFile, "openvino": OpenVINOFile, "pt2": TorchFile}


class Exported:
    """An exported model, opened.

    >>> model = piip.load_exported("model.onnx")  # doctest: +SKIP
    >>> model.predict("photo.jpg", conf=0.5).boxes  # doctest: +SKIP
    """

    def __init__(self, path: Path, runtime: Runtime) -> None:
        self.path, self.runtime = path, runtime
        self.description: Description = runtime.description
        self.config = runtime.description.config
        self.model = ExportedModel(runtime)
        self.predictor = Predictor(self.model, "cpu", fuse=False)  # type: ignore[arg-type] # it behaves like a model
        if self.config.task != "classification" and not self.description.slides:
            self.predictor.transform = FittingTransform(self.description)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.config.classes

    def predict(
        self,
        source: Input,
        conf: Conf | None = None,
        save: str | Path | None = None,
        batch_size: int | None = None,
        **further: Unpack[FurtherOptions],
    ) -> AnyResult | list[AnyResult]:
        """The result of one image, or a list of results for several; everything as in `PIIP.predict`.

        Args:
            source: a path, PIL image, array, tensor, or a collection of these; a folder or glob pattern.
            conf: lowest score of an object that counts, usually 0.25.
            save: a folder for annotated pictures.
            batch_size: images at a time; usually as many as the graph takes.
            further: names that hands know from elsewhere; precision is the file's own.

        Raises:
            ImageError: an image cannot be read (in a folder or list: after the others were done).
            ValueError: the file holds a backbone, or another precision is asked for.
        """
        single = is_one_image(source)
        return self.predict_report(source, conf, save, batch_size, **further).answer(single)

    def predict_report(
        self,
        source: Input,
        conf: Conf | None = None,
        save: str | Path | None = None,
        batch_size: int | None = None,
        **further: Unpack[FurtherOptions],
    ) -> PredictionReport:
        """As `predict`, but broken files are listed beside the results instead of raising."""
        options = self.options(conf=conf, batch_size=batch_size, **further)
        images = images_of(source, options.recursive)
        folder = None if save is None else Path(save).expanduser()
        writer = None if folder is None else Writer(folder, self.predictor.kind, paths_among(images), lists=False)
        outcomes = self.predictor.outcomes(images, options)
        return PredictionReport.of(outcomes if writer is None else saving(outcomes, writer))

    def options(self, **given: Any) -> Options:
        """How to predict: the batch is the graph's unless another is given."""
        if given.get("batch_size") is None and given.get("batch") is None:
            given["batch_size"] = self.description.batch
        options = Options.of(**given)
        self.check_options(options)
        return options

    def check_options(self, options: Options) -> None:
        """ValueError for those that are settled in the file."""
        usual = Options()
        for name in ("precision", "image_size", "detections"):
            if getattr(options, name) != getattr(usual, name):
                raise ValueError(f"{name} {getattr(options, name)}: an exported file has its own; export another one")

    def require_whole_images(self) -> None:
        """ValueError where the graph cannot take every image as large as the model would see it."""
        described, preprocess = self.description, self.description.preprocess
        if described.part == "backbone":
            raise ValueError(f"{self.path}: holds a backbone, which predicts nothing")
        if self.config.task == "classification" or described.slides:
            return
        height, width = described.size
        if not preprocess.resize_in_tests or min(height, width) < preprocess.test_long_side:
            raise ValueError(f"{self.path}: its graph takes {height} x {width} pixels, and the model's images may be "
                             "larger; export a square of its longer side (without --image-size)")  # fmt: skip

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """An exported backbone's feature maps by name, of normalised images [B, 3, H, W] no larger than the graph's."""
        return self.model.outputs(images)

    def __repr__(self) -> str:
        height, width = self.description.size
        what = f"{self.config.name}, {self.config.task}, {height}x{width}"
        return f"Exported({self.path}: {what}, {self.runtime.version})"


def is_exported(path: str | Path) -> bool:
    """Whether a path looks like an exported file, by its suffix."""
    return Path(path).suffix in {runtime.suffix for runtime in RUNTIMES.values()}


def load_exported(path: str | Path) -> Exported:
    """Open an exported file, with what its suffix says: `.onnx`, `.xml` (OpenVINO) or `.pt2` (torch.export).

    Raises:
        WeightsError: no such file, or one that `piip export` did not write.
        ImportError: the runtime is not installed.
    """
    path = Path(path)
    kinds = {runtime.suffix: runtime for runtime in RUNTIMES.values()}
    if path.suffix not in kinds:
        raise ValueError(f"{path}: exported files end in {', '.join(kinds)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return Exported(path, kinds[path.suffix].open(path))


class FittingTransform:
    """A detector's or segmentor's preparation of images, those that do not fit the graph made smaller."""

    def __init__(self, described: Description) -> None:
        self.described = described

    def needed(self, size: Size) -> Size:
        """As `prediction.preparing.InputTransform`."""
        return self.size(size)

    def __call__(self, image: Tensor, size: Size | None = None) -> Tensor:
        """uint8 [3, H, W] to float32 [3, h, w], normalised."""
        return normalised(resized(image, self.size(size or size_of(image))), self.described.preprocess)

    def size(self, size: Size) -> Size:
        """The (height, width) of an image of `size` as the graph takes it: kept in proportion, within all limits."""
        preprocess, (height, width) = self.described.preprocess, self.described.size
        scale = min(preprocess.test_long_side / max(size), preprocess.short_side / min(size))
        scale = min(scale, height / size[0], width / size[1])
        h, w = (max(1, int(side * scale + 0.5)) for side in size)
        return min(h, height), min(w, width)
