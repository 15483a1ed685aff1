"""Train: on a data set from the start, or on with a run that was interrupted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from typing_extensions import Self

from piip import devices, zoo
from piip.api.held import Held
from piip.devices import Device
from piip.heads.classification.logits import BRANCH_HEADS
from piip.model import PIIPModel
from piip.processes import launched
from piip.weights.adapters import apply_adapter, as_trained
from piip.weights.card import read_facts
from piip.weights.files import load_model, read_config

if TYPE_CHECKING:
    from piip.training.callbacks import Callback
    from piip.training.loop import RunResult
    from piip.training.settings import Settings
    from piip.weights.branches.pretrained import BranchReport

BRANCHES = ("backbone.branches.", *BRANCH_HEADS)
"""where pretrained branches are, and the heads that came with them"""


class Training(Held):
    """A model that trains."""

    def load_branches(self, sources: Mapping[int, str | Path]) -> list[BranchReport]:
        """Start branches from pretrained backbones; see `piip.weights.branches.pretrained.load_branches`."""
        from piip.weights.branches.pretrained import check_sources, load_branches

        check_sources(self.config.backbone, sources)  # before much is built or downloaded
        fresh = self._model is None
        if fresh:
            backbone = self.config.backbone.without_downloads(sources)
            self.config = self.config.model_copy(update={"backbone": backbone})
        reports = load_branches(self._built(), sources)
        self._only_branches |= fresh
        self._random_branches -= sources.keys()
        self._facts = None
        self._began_from |= {str(index): str(source) for index, source in sources.items()}
        return reports

    def load_backbone(self, path: str | Path) -> Self:
        """Begin with the branches and interactions (and merge and maps, where they fit) of another saved PIIP model.

        So a second head comes to a trained backbone, whatever its task. Raises ValueError for other branches or
        interactions.
        """
        theirs = load_model(path)
        one, other = self.config.backbone, theirs.config.backbone
        if (one.branches, one.interaction) != (other.branches, other.interaction):
            raise ValueError(f"{path}: its branches or interactions are not those of {self.config.name}")
        state = self.model.state_dict()
        fitting = {
            name: tensor
            for name, tensor in theirs.state_dict().items()
            if name.startswith("backbone.") and name in state and state[name].shape == tensor.shape
        }
        self.model.load_state_dict(fitting, strict=False)
        self._facts = None
        self._began_from["backbone"] = str(path)
        return self

    def load_adapter(self, path: str | Path) -> Self:
        """Merge an adapter, `weights/best.adapter.safetensors` of a run with `lora`, into the model it was made on.

        The model must be the one that run began with: loaded as it was, or filled by `load_branches` as it was. It gets
        the run's classes and head. Weights that were frozen are compared. Raises WeightsError for another one, and
        changes nothing then.
        """
        model = as_trained(self.model, path)
        apply_adapter(model, path)
        self._kept, self.config = model, model.config
        self._facts = None
        self._began_from["adapter"] = str(path)
        return self

    def train(
        self,
        data: str | Path,
        epochs: int | None = None,
        *,
        output: str | Path = "runs",
        name: str | None = None,
        image_size: int | None = None,
        head: Mapping[str, Any] | None = None,
        detections: int | None = None,
        device: Device | None = None,
        processes: int | None = None,
        callbacks: Sequence[Callback] = (),
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
            detections: objects that a detector is to find in an image, kept in its weights: it keeps as many, and as
                many proposals or queries as they need.
            device: None: this object's.
            processes: how many of this machine share the training, on GPUs one for each, see docs/processes.md.
                `batch_size` is that of each. They are started for it and end with it; nothing of this program runs in
                them, so that it may be any script or a notebook.
            callbacks: told of the begin and the end of the training, of epochs and of steps, see
                `piip.Callback`; not with `processes`.
            settings: any field of `piip.training.settings.Settings`.

        Returns:
            What the run left behind; its `folder` holds results.csv, pictures and weights. Where this program is one
            of several processes (torchrun), the best weights may be read only when they are first used.
        """
        from piip.training.start import note_random_branches, start_run, with_detections

        data, output = Path(data).expanduser(), Path(output).expanduser()
        named = {"epochs": epochs, "device": None if device is None else devices.named(device)}
        given = {key: value for key, value in named.items() if value is not None} | settings
        chosen = self.training_settings(data, image_size, **given)
        if self._random_branches:
            note_random_branches(zoo.entry(self.config.name), self._random_branches, data)
        base = with_detections(self.config, detections)
        part = BRANCHES if self._only_branches else ("",)
        many = _several(processes, chosen.device, callbacks)
        if many is None:
            result, best = start_run(base, self._model, chosen, output, name, image_size, head, part, callbacks)
        else:
            from piip.training.handed_over import Job, train_in

            job = Job(base=base, settings=chosen, output=str(output), name=name, image_size=image_size, part=part,
                      head=None if head is None else dict(head))  # fmt: skip
            result, best = train_in(*many, job, self._model), None
        self._hold(result, best)
        self._only_branches, self._random_branches = False, set()
        self._began_from = {"weights": str(result.best_weights or result.last_weights)}
        return result

    def _hold(self, result: RunResult, best: PIIPModel | None) -> None:
        """The weights of a run, `best` where they are at hand; where there are several processes, read when needed."""
        weights = result.best_weights or result.last_weights
        if best is None and launched() == 1:
            best = load_model(weights)
        self._kept = weights if best is None else best
        self.config = read_config(weights) if best is None else best.config
        self._facts = read_facts(result.last_weights)

    def training_settings(self, data: str | Path, image_size: int | None = None, **settings: Any) -> Settings:
        """What `train` would train with: the model's recipe and over it what is given; ValueError names a wrong one."""
        from piip.training.start import build_settings, image_scale

        # "auto" lets a run go on on another machine, but would take a Mac's GPU, on which nothing was ever run.
        usual = "auto" if torch.cuda.is_available() else "cpu"
        given = {"data": str(data), "device": self._given_device or usual, "began_from": self._began_from} | settings
        return build_settings(self.recipe, given, image_scale(self.config, image_size))

    @classmethod
    def resume(
        cls,
        folder: str | Path,
        epochs: int | None = None,
        device: Device | None = None,
        *,
        processes: int | None = None,
        callbacks: Sequence[Callback] = (),
        **changes: Any,
    ) -> tuple[Self, RunResult]:
        """Go on with the interrupted run in `folder`, to the same result as if it had not been interrupted.

        Args:
            folder: of the run.
            epochs: another number of them.
            device: another one; None: as the run was told.
            processes: as of `train`; another number than the run had needs another `batch_size` or
                `grad_accumulation`, so that a step has as many images.
            callbacks: as of `train`; a run does not remember those it had.
            changes: other settings that do not make it another run, such as `workers` or `data` (if it was moved);
                see `piip.training.settings.FREE_ON_RESUME`.

        Raises:
            ValueError: a setting that cannot change.
        """
        from piip.training.start import resume_run

        given: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
        given |= {} if device is None else {"device": devices.named(device)}
        many = _several(processes, given.get("device"), callbacks)
        if many is None:
            result, best = resume_run(folder, given | changes, callbacks)
        else:
            from piip.training.handed_over import Job, train_in

            result, best = train_in(*many, Job(resume=str(folder), changes=given | changes), None), None
        held = cls(read_config(result.best_weights or result.last_weights), device)
        held._hold(result, best)
        return held, result


def _several(
    processes: int | None, device: str | None, callbacks: Sequence[Callback]
) -> tuple[int, dict[str, str]] | None:
    """How many processes to start, and their environment; None: this one trains. ValueError for what cannot be."""
    from piip.training import launch
    from piip.training.callbacks import Callback

    for callback in callbacks:
        if not isinstance(callback, Callback):
            of = f"the class {callback.__name__}" if isinstance(callback, type) else type(callback).__name__
            raise ValueError(f"callbacks: {of} is no callback: give instances of subclasses of piip.Callback")

    many = launch.wanted(processes, None, device)
    if many is not None and callbacks:
        raise ValueError(
            f"callbacks are not told of a training in {processes} processes, in which nothing of this program runs: "
            "leave them out, or run the script itself with torchrun, see docs/processes.md"
        )
    return many
