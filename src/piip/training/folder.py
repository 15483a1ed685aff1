"""The folder of a run: where everything that a training writes is found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from piip.files import remove_temporary_files
from piip.tasks import FINDINGS_FILE


@dataclass(frozen=True)
class RunFolder:
    """`runs/<task>/<name>` and the names of the files in it."""

    path: Path

    @property
    def config(self) -> Path:
        """Model and settings, as YAML."""
        return self.path / "config.yaml"

    @property
    def results(self) -> Path:
        """One row per epoch: losses, learning rate, metrics, seconds."""
        return self.path / "results.csv"

    @property
    def curves(self) -> Path:
        """The columns of `results` as curves."""
        return self.path / "curves.png"

    @property
    def tensorboard(self) -> Path:
        """Event files of TensorBoard."""
        return self.path / "tensorboard"

    @property
    def best(self) -> Path:
        """Weights with the best metric so far."""
        return self.path / "weights" / "best.safetensors"

    @property
    def last(self) -> Path:
        """Weights of the last epoch, or of where the training was stopped."""
        return self.path / "weights" / "last.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Everything a training needs to go on."""
        return self.path / "weights" / "last.ckpt"

    @property
    def shards(self) -> Path:
        """Of a sharded training: the parts that belong to a checkpoint, in a folder for each."""
        return self.path / "weights" / "last.shards"

    @property
    def findings(self) -> Path:
        """What reading the data found, where it found anything."""
        return self.path / FINDINGS_FILE

    @property
    def skipped(self) -> Path:
        """Images that could not be read and steps that were left out, where there are any."""
        return self.path / "skipped.json"

    @property
    def loggers(self) -> Path:
        """The numbers by which loggers know this run, where they have any."""
        return self.path / "loggers.json"

    @property
    def error(self) -> Path:
        """The traceback of an unforeseen error."""
        return self.path / "error.log"

    def training_batch(self, index: int) -> Path:
        """Picture of one of the first training batches with its targets."""
        return self.path / f"train_batch{index}.png"

    def prepare(self, resume: bool) -> None:
        """Make the folder, free of interrupted writes; FileExistsError where a run is, unless to `resume`."""
        if not resume and (self.results.exists() or self.checkpoint.exists()):
            raise FileExistsError(f"{self.path}: holds a run already; resume it, or choose another folder")
        self.best.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self.path, self.best.parent):
            remove_temporary_files(folder)


def check_name(name: str) -> None:
    """ValueError for a run's name that is no name of a folder."""
    if name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"run name {name!r} must be a plain folder name, such as 'first-try'")


def new_run_folder(root: str | Path, task: str, name: str) -> Path:
    """Make and return `<root>/<task>/<name>`, or with `-2`, `-3`, ... where that exists already."""
    check_name(name)
    number = 1
    while True:
        path = Path(root) / task / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return path
