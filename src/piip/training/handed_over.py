"""A training that a Python program hands over to several processes, and its result, which comes back.

A folder holds what passes between them: the job and the weights it begins with, then the result or what went wrong.
Nothing of the program itself runs in the processes, so that it needs no `if __name__ == "__main__"`, and may be a
notebook. As a script, `python -m piip.training.handed_over FOLDER` is one of the processes; with their number and
environment behind it, the launcher.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pydantic

from piip import config
from piip import processes as together
from piip.model import PIIPModel
from piip.training import launch, peers
from piip.training.failures import TrainingFailure
from piip.training.interrupt import stop_on_signal
from piip.training.loop import RunResult
from piip.training.settings import Settings
from piip.training.start import resume_run, start_run
from piip.weights.files import load_model, save_model

JOB, WEIGHTS, RESULT, ERROR = "job.json", "weights.safetensors", "result.json", "error.json"
ERRORS = (ValueError, FileNotFoundError, FileExistsError, FloatingPointError, ImportError, OSError)
"""that a training may end with, and that come back as what they are; all others as TrainingFailure"""
PATHS = ("folder", "best_weights", "last_weights")
LOOK_SECONDS = 0.2


class Job(pydantic.BaseModel):
    """What `start_run`, or `resume_run`, is to be called with."""

    base: config.Model | None = None
    settings: Settings | None = None
    output: str = "runs"
    name: str | None = None
    image_size: int | None = None
    head: dict[str, Any] | None = None
    part: tuple[str, ...] = ("",)
    resume: str | None = None
    """the folder of a run; then only `changes` count"""
    changes: dict[str, Any] = {}


def train_in(processes: int, environment: Mapping[str, str], job: Job, weights: PIIPModel | None) -> RunResult:
    """Do the job in so many new processes of this machine, which get these variables; returns when all have ended.

    What they say on standard error appears on this program's. Signals to this program are theirs; if it dies, they end
    with a checkpoint.

    Raises:
        ValueError, OSError, FloatingPointError, ImportError, TrainingFailure: as in one process.
    """
    with tempfile.TemporaryDirectory(prefix="piip-training-") as temporary:
        folder = Path(temporary)
        (folder / JOB).write_text(job.model_dump_json(), encoding="utf-8")
        if weights is not None:
            save_model(weights, folder / WEIGHTS)
        command = [sys.executable, "-m", "piip.training.handed_over", str(folder), str(processes),
                   json.dumps(dict(environment))]  # fmt: skip
        code = _run(command)
        if (folder / RESULT).exists():
            return _result_of(json.loads((folder / RESULT).read_text(encoding="utf-8")))
        if (folder / ERROR).exists():
            kind, text = json.loads((folder / ERROR).read_text(encoding="utf-8"))
            raise {error.__name__: error for error in ERRORS}.get(kind, TrainingFailure)(text)
        raise TrainingFailure(
            f"the processes of the training ended with exit code {code}; what was wrong is said above"
        )


def _run(command: list[str]) -> int:
    """Run the launcher, in a session of its own, so that this program alone gets what the terminal sends."""
    own = sys.stderr is sys.__stderr__  # in a notebook or a test it is not a file of the system's
    streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stderr": None if own else subprocess.PIPE}
    with (
        stop_on_signal() as stop,
        subprocess.Popen(command, start_new_session=True, **streams) as started,  # noqa: S603 - this interpreter
    ):
        if started.stderr is not None:
            said = threading.Thread(target=_pass_on, args=(started.stderr,), daemon=True)
            said.start()
        told = None
        while (code := _waited(started)) is None:
            if stop.signal is not None and stop.signal != told:
                told = stop.signal
                started.send_signal(told)
        if started.stderr is not None:
            said.join()
        return code


def _waited(started: subprocess.Popen[bytes]) -> int | None:
    try:
        return started.wait(LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _pass_on(stream: Any) -> None:
    for line in stream:
        sys.stderr.write(line.decode(errors="replace"))


def _result_of(values: dict[str, Any]) -> RunResult:
    paths = {name: None if values[name] is None else Path(values[name]) for name in PATHS}
    return RunResult(**values | paths)


def _told(result: RunResult) -> dict[str, Any]:
    values = {field.name: getattr(result, field.name) for field in fields(RunResult)}
    return values | {name: None if values[name] is None else str(values[name]) for name in PATHS}


def _one_of_them(folder: Path) -> int:
    """One of the processes: does the job; the main one leaves the result, the first to fail what was wrong."""
    job = Job.model_validate_json((folder / JOB).read_text(encoding="utf-8"))
    try:
        if job.resume is not None:
            result, _ = resume_run(job.resume, job.changes)
        else:
            assert job.base is not None
            assert job.settings is not None
            with together.without_values(job.settings.shard):
                weights = load_model(folder / WEIGHTS) if (folder / WEIGHTS).exists() else None
            result, _ = start_run(
                job.base, weights, job.settings, job.output, job.name, job.image_size, job.head, job.part
            )
    except Exception as error:
        if peers.may_speak(error, str(error)):
            kinds = [kind.__name__ for kind in ERRORS if isinstance(error, kind)]
            text = str(error) or type(error).__name__
            (folder / ERROR).write_text(json.dumps([kinds[0] if kinds else type(error).__name__, text]))
        return 1
    if result.main_process:
        (folder / RESULT).write_text(json.dumps(_told(result)))  # where a metric may be NaN
    return 0 if result.signal is None else 128 + result.signal


def _launcher(folder: Path, processes: int, environment: dict[str, str]) -> int:
    """Starts the processes; ends them if the program that wanted them is gone."""

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)  # nothing is ever written, so that it ends with the other side
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    return launch.run(["-m", "piip.training.handed_over", str(folder)], processes, environment)


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(_one_of_them(Path(given[0])) if len(given) == 1 else
             _launcher(Path(given[0]), int(given[1]), json.loads(given[2])))  # fmt: skip
