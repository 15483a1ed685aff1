"""Where the numbers of a run go besides results.csv: loggers by name, through accelerate."""

from __future__ import annotations

import importlib.util
import json
import os
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Literal

from piip.files import write_json
from piip.training.folder import RunFolder

Logger = Literal["tensorboard", "wandb", "mlflow", "trackio"]
PROJECT = "piip"
"""where the logger's own variable (WANDB_PROJECT, MLFLOW_EXPERIMENT_NAME, TRACKIO_PROJECT) does not say another"""


def logger_names(value: object) -> object:
    """ "tensorboard,wandb" or a list of names; "none" or nothing: results.csv alone."""
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",")]
    return () if value is None or value == ["none"] else value


def check_loggers(names: Sequence[Logger]) -> None:
    """ImportError where a library is missing."""
    for name in names:
        if not importlib.util.find_spec(name):
            raise ImportError(f"log {name}: the library is not installed: pip install {name}")


class Trackers:
    """The loggers of one run, on its main process. One that fails later is left out, as no logger is worth a run."""

    def __init__(
        self,
        names: Sequence[Logger],
        folder: RunFolder,
        first_step: int,
        about: dict[str, Any],
        note: Callable[[str], None],
    ) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        check_loggers(names)
        self.note = note
        self.trackers: dict[str, Any] = {}
        known = _read(folder)
        for name in names:
            try:
                self.trackers[name] = LOGGER_TYPE_TO_CLASS[name](**_arguments(name, folder, first_step, known))
                self._begin(name, about, known)
            except Exception as error:
                self.close()
                raise ValueError(f"log {name} could not begin, {type(error).__name__}: {error}. Mend it, or leave it "
                                 "out with --log none") from error  # fmt: skip
        if known:
            write_json(folder.loggers, known)

    def _begin(self, name: Logger, about: dict[str, Any], known: dict[str, str]) -> None:
        tracker = self.trackers[name]
        if hasattr(tracker, "start"):  # since accelerate 1.7
            tracker.start()
        if name == "mlflow":
            known[name] = tracker.tracker.info.run_id
        if name != "tensorboard":  # which would make a folder of its own of it
            tracker.store_init_configuration(about)

    def log(self, values: dict[str, float], step: int) -> None:
        """Named numbers at an optimizer step."""
        self._each(lambda tracker: tracker.log(values, step=step))

    def close(self) -> None:
        """Write what is left."""
        self._each(lambda tracker: tracker.finish())

    def _each(self, act: Callable[[Any], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                act(tracker)
            except Exception as error:
                del self.trackers[name]
                self.note(f"{name} failed and gets no more numbers: {type(error).__name__}: {error}")


def _arguments(name: Logger, folder: RunFolder, first_step: int, known: dict[str, str]) -> dict[str, Any]:
    """Of accelerate's class: a resumed run goes on in the logger's own run, `known` by its number."""
    run = folder.path.resolve().name
    if name == "tensorboard":
        return {"run_name": folder.tensorboard.name, "logging_dir": str(folder.path), "purge_step": first_step}
    if name == "wandb":
        number = known.setdefault(name, uuid.uuid4().hex[:12])
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        return {"run_name": project, "name": run, "id": number, "resume": "allow", "dir": str(folder.path)}
    if name == "mlflow":
        return {"experiment_name": PROJECT, "run_name": run, "run_id": known.get(name)}
    # Trackio knows a run by its name alone: another folder of that name would go on with it.
    own = known.setdefault(name, f"{run}-{uuid.uuid4().hex[:6]}")
    return {"run_name": os.environ.get("TRACKIO_PROJECT", PROJECT), "name": own, "resume": "allow"}


def _read(folder: RunFolder) -> dict[str, str]:
    if not folder.loggers.is_file():
        return {}
    content: dict[str, str] = json.loads(folder.loggers.read_text(encoding="utf-8"))
    return content
