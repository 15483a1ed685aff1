"""The object that users hold: a named or saved model that trains, evaluates and predicts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch

from piip import config, devices, tasks, zoo
from piip.console import Terminal, say
from piip.data.decode import ImageError
from piip.devices import Device
from piip.files import refuse_taken
from piip.heads.classification.logits import BRANCH_HEADS
from piip.model import PIIPModel
from piip.prediction.files import REMEDY, Writer, paths_among, saving
from piip.prediction.predictor import Precision, PredictionReport, Predictor
from piip.prediction.results import RESULTS, AnyResult
from piip.prediction.sources import Files, Input, Many, Pixels, images_of, is_one_image
from piip.weights import hub
from piip.weights.files import load_model, save_model
from piip.weights.names import is_path

if TYPE_CHECKING:
    from piip.tasks import Metrics
    from piip.training.loop import RunResult
    from piip.training.settings import Settings
    from piip.weights.branches.pretrained import BranchReport

BRANCHES = ("backbone.branches.", *BRANCH_HEADS)
"""where pretrained branches are, and the heads that came with them"""
Folder = str | Path | None


class PIIP:
    """A PIIP model by name, from saved weights, or from a config.

    Args:
        model: a name of the zoo (`piip models`): a model with fresh weights; or a path: a run folder, a
            `.safetensors` file or a saved model folder; or a `config.Model`; or a `PIIPModel`.
        device: where it trains, predicts and evaluates: a name of torch's ("cpu", "cuda:1"), the number of a GPU, or
            None or "auto": the first GPU if there is one, else the CPU.
        pretrained: for a name: its released weights, fetched from the Hugging Face Hub on first use.
        compile: predict with torch.compile, for images of few fixed sizes (each takes minutes once, and on CPUs it is
            often slower: see `docs/speed.md`). Where there is no compiler, a warning says so and nothing changes.

    >>> import piip
    >>> piip.PIIP("piip_nano_mask_rcnn").config.task
    'detection'
    """

    def __init__(
        self,
        model: str | Path | config.Model | PIIPModel,
        device: Device | None = None,
        pretrained: bool = False,
        compile: bool = False,
    ) -> None:
        self.device = str(devices.find(device))
        self._given_device = None if device is None else devices.named(device)
        self.compile = compile
        self._model: PIIPModel | None = None
        self._only_branches = False  # whether nothing but pretrained branches makes `_model` worth keeping
        self._random_branches: set[int] = set()  # of a published model, those that were to begin pretrained
        self._predictor: Predictor | None = None
        if pretrained:
            if not isinstance(model, str):
                raise ValueError("pretrained=True needs the name of a published model, see piip.list_models()")
            model = hub.official_weights(model)
        if isinstance(model, PIIPModel):
            self._model, self.config = model, model.config
        elif isinstance(model, config.Model):
            self.config = model
        elif is_path(model):
            self._model = load_model(model)
            self.config = self._model.config
        else:
            self.config = zoo.entry(str(model)).config()
            self._random_branches = set(range(len(zoo.entry(str(model)).pretraining)))
        self.recipe: dict[str, Any] = dict(tasks.of(self.config).defaults(self.config))
        if self.config.name in zoo.MODELS:
            self.recipe |= zoo.entry(self.config.name).recipe

    @property
    def model(self) -> PIIPModel:
        """The module; built with fresh weights on first use unless weights were loaded."""
        model = self._built().to(self.device)
        self._only_branches = False  # whoever holds it may change any weight
        self._random_branches = set()
        return model

    def _built(self) -> PIIPModel:
        """The module wherever it is: a training that several processes share must not begin with all on one GPU."""
        if self._model is None:
            self._model = PIIPModel(self.config)
        return self._model

    def load_branches(self, sources: Mapping[int, str | Path]) -> list[BranchReport]:
        """Start branches from pretrained backbones; see `piip.weights.branches.pretrained.load_branches`."""
        from piip.weights.branches.pretrained import check_sources, load_branches

        check_sources(self.config, sources)  # before much is built or downloaded
        fresh = self._model is None
        reports = load_branches(self._built(), sources)
        self._only_branches |= fresh
        self._random_branches -= sources.keys()
        return reports

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copy: all but the predictor, which is made again when it is needed."""
        return self.__dict__ | {"_predictor": None}

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.config.classes

    @overload
    def predict(  # type: ignore[overload-overlap] # an array is also a collection of arrays
        self, source: Pixels, conf: float = ..., save: Folder = ..., batch_size: int = ..., precision: Precision = ...
    ) -> AnyResult: ...

    @overload
    def predict(  # type: ignore[overload-overlap] # a text is also a collection of texts
        self, source: Files, conf: float = ..., save: Folder = ..., batch_size: int = ..., precision: Precision = ...
    ) -> AnyResult | list[AnyResult]: ...

    @overload
    def predict(
        self, source: Many, conf: float = ..., save: Folder = ..., batch_size: int = ..., precision: Precision = ...
    ) -> list[AnyResult]: ...

    def predict(
        self, source: Input, conf: float = 0.25, save: Folder = None, batch_size: int = 1, precision: Precision = "fp32"
    ) -> AnyResult | list[AnyResult]:
        """The result of one image, or a list of results for several.

        A result is a `piip.prediction.objects.Result` (objects), a `SegmentationResult` (a class for every pixel) or a
        `ClassificationResult` (probabilities), by the model's task.

        Args:
            source: a path, PIL image, array [H, W, 3] uint8 RGB, tensor [3, H, W] in 0..1, or a collection of these; a
                folder or a glob pattern also gives a list.
            conf: lowest score of an object that counts, 0 to 1; the other tasks have no use for it.
            save: a folder for annotated pictures, not that of the images. A picture is written as soon as it is
                predicted; what is in the folder stays, and where a name is taken the new picture gets a number.
            batch_size: images per forward pass, of one padded size, so that results do not depend on it.
            precision: "fp32", "bf16" or "fp16".

        Raises:
            ImageError: an image cannot be read (in a folder or list: after the others were done).
            FileNotFoundError: there is no such file, or no image in the folder.
            ValueError: `save` is the folder of an image.
        """
        single = is_one_image(source)
        report = self.predict_report(source, conf, save, batch_size, precision)
        if report.failures:
            failed = "; ".join(f"{path}: {reason}" for path, reason in report.failures[:5])
            raise ImageError(f"{len(report.failures)} unreadable images: {failed}")
        return report.results[0] if single else report.results

    def predict_report(
        self, source: Input, conf: float = 0.25, save: Folder = None, batch_size: int = 1, precision: Precision = "fp32"
    ) -> PredictionReport:
        """As `predict`, but broken files are listed beside the results instead of raising."""
        images = images_of(source)
        kind = RESULTS[self.config.task]
        writer = None if save is None else Writer(Path(save), kind, paths_among(images), lists=False)
        outcomes = self.predictor(precision).stream(images, conf, batch_size)
        return PredictionReport.of(outcomes if writer is None else saving(outcomes, writer))

    def predictor(self, precision: Precision = "fp32") -> Predictor:
        """What `predict` runs, kept for the next call: it holds a folded copy of the model."""
        model, kept = self.model, self._predictor
        wanted = (model, model.config, precision, torch.device(self.device))
        if kept is None or (kept.model, kept.config, kept.precision, kept.device) != wanted:
            kept = self._predictor = Predictor(model, self.device, precision, compile=self.compile)
        return kept

    def train(
        self,
        data: str | Path,
        epochs: int | None = None,
        *,
        output: str | Path = "runs",
        name: str | None = None,
        image_size: int | None = None,
        head: Mapping[str, Any] | None = None,
        device: Device | None = None,
        **settings: Any,
    ) -> RunResult:
        """Train on `data` (its split "train"), evaluate on its "val" after every epoch, and hold the best weights.

        The classes come from the data. Weights that were loaded stay where they fit; a model by name starts fresh.

        Args:
            data: a data set folder or file, see `piip data check`.
            epochs: None: as in the model's recipe.
            output: parent of the run's folder, `<output>/<task>/<name>`.
            name: of the run; None: the model's.
            image_size: longer side of the network's input; None: the model's own. The recipe follows: its
                multi-scale sides and crops change by as much.
            head: settings of the model's head to change, such as `{"detections": 300}`; see `config.MaskRCNN`, `DINO`,
                `UperNet` and `Classifier`.
            device: None: this object's.
            settings: any field of `piip.training.settings.Settings`.

        Returns:
            What the run left behind; its `folder` holds results.csv, pictures and weights.
        """
        from piip.training.start import note_random_branches, start_run

        named = {"epochs": epochs, "device": None if device is None else devices.named(device)}
        given = {key: value for key, value in named.items() if value is not None} | settings
        chosen = self.training_settings(data, image_size, **given)
        if self._random_branches:
            note_random_branches(zoo.entry(self.config.name), self._random_branches, data)
        part = BRANCHES if self._only_branches else ("",)
        result, self._model = start_run(self.config, self._model, chosen, output, name, image_size, head, part)
        self._only_branches, self._random_branches = False, set()
        self.config = self._model.config
        return result

    def training_settings(self, data: str | Path, image_size: int | None = None, **settings: Any) -> Settings:
        """What `train` would train with: the model's recipe and over it what is given; ValueError names a wrong one."""
        from piip.training.start import build_settings, image_scale

        # "auto" lets a run go on on another machine, but would take a Mac's GPU, on which nothing was ever run.
        usual = "auto" if torch.cuda.is_available() else "cpu"
        given = {"data": str(data), "device": self._given_device or usual} | settings
        return build_settings(self.recipe, given, image_scale(self.config, image_size))

    @classmethod
    def resume(
        cls, folder: str | Path, epochs: int | None = None, device: Device | None = None, **changes: Any
    ) -> tuple[PIIP, RunResult]:
        """Go on with the interrupted run in `folder`, to the same result as if it had not been interrupted.

        Args:
            folder: of the run.
            epochs: another number of them.
            device: another one; None: as the run was told.
            changes: other settings that do not make it another run, such as `workers` or `data` (if it was moved);
                see `piip.training.settings.FREE_ON_RESUME`.

        Raises:
            ValueError: a setting that cannot change.
        """
        from piip.training.start import resume_run

        given: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
        given |= {} if device is None else {"device": devices.named(device)}
        result, model = resume_run(folder, given | changes)
        return cls(model, device), result

    def val(
        self,
        data: str | Path,
        split: str = "val",
        output: str | Path | None = None,
        batch_size: int = 1,
        workers: int = 2,
        precision: Precision = "fp32",
    ) -> Metrics:
        """Evaluate on a split of `data`; with `output`, write metrics, predictions and pictures there.

        The numbers do not depend on `batch_size`, but for rounding: a batch holds images of one padded size.

        Raises:
            DataError: no data set, or one that the model is not for, or most of whose images are missing.
            ValueError: `output` holds files that would be written over.
        """
        tasks.require_pairing(self.config, data)
        if output is not None:
            refuse_taken((Path(output) / name for name in tasks.EVALUATION_FILES), REMEDY)
        task = tasks.of(self.config)
        opened = task.open_split(data, split)
        if split != "train":
            tasks.require_enough(split, opened)
        line = tasks.in_a_line({split: opened})
        if line is not None:
            say(Terminal(stderr=True), line)
        if output is None:
            return task.evaluate(self.model, opened, batch_size, workers, precision)
        metrics = task.evaluate_to_folder(self.model, opened, Path(output), batch_size, workers, precision)
        if line is not None:
            tasks.write_findings({split: opened}, Path(output) / tasks.FINDINGS_FILE)
        return metrics

    evaluate = val

    def use_windows(self, window: int | None, stride: int | None = None) -> PIIP:
        """Segment images in square windows of `window` pixels of the network's input; None: whole images.

        Args:
            window: a model trained on crops often does best with windows of the crops' size; None or 0: none.
            stride: from one window to the next; None: two thirds of the window.

        Raises:
            ValueError: the model is no segmentor, or the stride is larger than the window.
        """
        from piip.tasks import segmentation

        segmentation.set_windows(self.model, window or None, stride)
        self.config = self.model.config
        return self

    def info(self) -> dict[str, Any]:
        """Branches, resolutions and parameters, as `piip info --json` prints them."""
        from piip.profile import model_info

        return model_info(self.config)

    def save(self, path: str | Path) -> Path:
        """Write the weights with their config: a `.safetensors` file, or a folder if `path` has no suffix."""
        return save_model(self.model, path)

    def save_pretrained(self, folder: str | Path, licence: str | None = None) -> Path:
        """Write `model.safetensors`, `config.json` and a model card, `README.md`, into `folder`; returns it.

        `licence`: an SPDX identifier for the card.
        """
        return hub.save_pretrained(self.model, folder, licence)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, revision: str | None = None, token: str | None = None, device: str | None = None
    ) -> PIIP:
        """A model saved by `save_pretrained` or `push_to_hub`: a folder, or the id of a repository on the Hub.

        Raises WeightsError where it cannot be fetched or loaded.
        """
        return cls(hub.fetch_pretrained(name, revision, token), device)

    def push_to_hub(
        self,
        repository: str,
        licence: str | None = None,
        private: bool = False,
        token: str | None = None,
        message: str = "Upload a PIIP model",
    ) -> str:
        """Upload the model and its card to `repository` ("user/name") on the Hub, made if needed; returns its URL."""
        return hub.push_to_hub(self.model, repository, licence, private, token, message)

    def __repr__(self) -> str:
        sizes = "/".join(str(branch.size) for branch in self.config.backbone.branches)
        return f"PIIP({self.config.name}: {self.config.task}, {sizes}, {len(self.names)} classes)"
