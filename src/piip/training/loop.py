"""The training loop of all tasks: `train` is the story, the functions below it are its sentences, in order.

    every epoch:  every batch:     losses -> gradients                         (forward_backward)
                  every few:       gradients -> weights -> running average     (update)
                  at the end:      [save, evaluate, keep the best,] save       (finish_epoch)

What is random in a pass follows from (seed, epoch, batch, process), so that
a resumed run equals an uninterrupted one bit by bit.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from piip import processes
from piip.data.batches import is_spare
from piip.data.seeding import derived_seed
from piip.lock import locked
from piip.model import PIIPModel
from piip.structures import Batch, size_of
from piip.training.accelerator import build_accelerator
from piip.training.at_hand import result_at_hand
from piip.training.callbacks import Callback, Events, Moment
from piip.training.folder import RunFolder
from piip.training.freeze import train_mode
from piip.training.gradients import clip, total_norm
from piip.training.interrupt import Interrupted, StopRequest, stop_on_signal
from piip.training.nonfinite import IN_A_ROW, Step, end_of_run, record
from piip.training.optim import schedule_factor, set_learning_rate
from piip.training.report import DrawBatch, Report, Row
from piip.training.run import Run, epoch_loader, give_away, of_all_processes, save, start
from piip.training.settings import Settings
from piip.training.unreadable import SkipUnreadable

Evaluate = Callable[[PIIPModel], dict[str, float]]
DRAWN_BATCHES = 3
HEAD = 1
"""beside (epoch, image), for what a head draws; without it is what the image's augmentation draws"""


@dataclass(frozen=True)
class RunResult:
    """What a training left behind."""

    folder: Path
    best_weights: Path | None
    """None without an evaluation"""
    last_weights: Path
    best: float | None
    """the best value of the metric"""
    best_epoch: int
    """1-based; 0 without an evaluation"""
    history: list[Row]
    """the rows of results.csv"""
    end: Literal["finished", "early stop", "stopped"]
    """"stopped": by a signal, a callback or the time limit; resume to go on"""
    signal: int | None = None
    """which one, if "stopped" and this process received it; a command line exits with 128 + its number"""
    main_process: bool = True
    """of several processes, the one that writes files"""
    metric: str = ""
    """what `best` is"""
    sharded: nn.Module | None = field(default=None, repr=False)
    """of a sharded training what trained, for a last look at its weights"""


def train(
    model: PIIPModel,
    train_data: Any,
    settings: Settings,
    output: str | Path,
    evaluate: Evaluate | None = None,
    best_metric: str = "AP",
    resume: bool = False,
    draw_batch: DrawBatch | None = None,
    callbacks: Sequence[Callback] = (),
) -> RunResult:
    """Train `model` in place and fill the run folder `output`.

    Args:
        model: on any device; it is moved to the run's.
        train_data: a data set that `data.batches.train_loader` takes.
        settings: see there; on resume they must be those of the run, but for `settings.FREE_ON_RESUME`.
        output: the run folder. It must not hold a run yet, unless `resume`.
        evaluate: called on every process after an epoch, with the model (or its running average) in eval mode,
            without gradients; the main process's numbers count. It may share the work, see `piip.processes`. None: no
            evaluation.
        best_metric: the key of `evaluate`'s result that decides; higher is better, but for a loss.
        resume: go on from `output`'s checkpoint, to the same result as if the run had not been interrupted.
        draw_batch: makes the pictures of the first batches, with their targets; None: no pictures.
        callbacks: told of the begin and the end, and of the ends of steps and epochs, on every process.

    An image that cannot be read is left out, with another one in its place, and so is a step whose loss or gradient is
    not finite. SIGINT (Ctrl-C) and SIGTERM end the run after the step at hand with a checkpoint. An evaluation ends at
    once, and is done again on resume.

    Raises:
        FloatingPointError: the losses or gradients of several steps in a row, or a weight, were NaN or infinite.
        FileExistsError: `output` holds a run and `resume` is False.
        RunInUse: another process is training in `output`.
        CheckpointError, ValueError: nothing to resume from, or settings, data or model are not the run's.
        ImportError: the `train` extra is not installed.
    """
    accelerator = build_accelerator(settings)
    folder, main, data = RunFolder(Path(output)), accelerator.is_main_process, SkipUnreadable(train_data, settings.seed)
    ours = locked(folder.path) if main and (folder.path.is_dir() or not resume) else nullcontext()
    with ours, stop_on_signal() as stop:
        stop.within(settings.time_limit)
        run = start(accelerator, model, data, settings, folder, resume)
        events = Events(callbacks, partial(moment, run, stop))
        shown: dict[str, Any] = {"loggers": settings.log, "about": settings.model_dump(mode="json"), "events": events,
                                 "best_metric": best_metric}  # fmt: skip
        with Report(folder, settings.epochs, run.steps_per_epoch, run.at.step, active=main, **shown) as report:
            if accelerator.num_processes > 1:
                report.note(run.images_per_step)
            events.train_begin()
            stopped = train_epochs(run, data, report, stop, evaluate, best_metric, draw_batch)
            events.train_end()
    at = run.at
    end: Any = "stopped" if stopped else "finished" if at.epoch == settings.epochs else "early stop"
    best = folder.best if at.best is not None else None
    number = stop.signal if stopped else None  # one that came too late to stop anything is no failure
    sharded = run.losses if settings.shard else None
    return RunResult(folder.path, best, folder.last, at.best, at.best_epoch, at.history, end, number, main,
                     best_metric, sharded)  # fmt: skip


def moment(run: Run, stop: StopRequest, ahead: int, values: Row) -> Moment:
    """What callbacks are told, see `Events`."""
    main = run.accelerator.is_main_process
    epoch, step = run.at.epoch + ahead, run.at.step
    return Moment(run.folder.path, run.settings, run.model, epoch, step, run.total_steps, values, main, stop.ask)


def train_epochs(
    run: Run, data: SkipUnreadable, report: Report, stop: StopRequest,
    evaluate: Evaluate | None, best_metric: str, draw_batch: DrawBatch | None,
) -> bool:  # fmt: skip
    """All epochs that are left, with checkpoints. Returns whether a request to stop ended them."""
    at, stopped = run.at, False
    while at.epoch < run.settings.epochs and not stopped and not out_of_patience(run, best_metric):
        stopped = train_epoch(run, data, report, stop, draw_batch)
        due = evaluate is not None and evaluation_is_due(run)
        if stopped or due:
            save(run)  # before the evaluation, which may take long or fail
        stopped = stopped or finish_epoch(run, report, evaluate if due else None, best_metric, stop)
        if stopped:
            again = f"piip train --resume {shlex.quote(str(run.folder.path))}"
            report.note(f"stopped in epoch {at.epoch + 1} and saved; resume to go on: {again}")
        else:
            save(run)
    if stopped and stop.time_is_up:
        report.note(f"that was the time limit of {run.settings.time_limit:.0f} seconds")
    if at.unreadable:
        report.note(f"images that could not be read: {len(at.unreadable)}, see {run.folder.skipped}")
    if at.skipped_steps:
        report.note(f"steps that were left out: {len(at.skipped_steps)}, see {run.folder.skipped}")
    return stopped


def train_epoch(
    run: Run, data: SkipUnreadable, report: Report, stop: StopRequest, draw_batch: DrawBatch | None
) -> bool:
    """The rest of the current epoch. Returns whether a request to stop ended it, after an optimizer step."""
    at, settings = run.at, run.settings
    train_mode(run.model, settings.freeze)
    began = time.monotonic() - at.seconds
    step = Step.after(run.statistics)
    for batch in epoch_loader(run, data):
        if draw_batch is not None and at.epoch == 0 and at.batch < DRAWN_BATCHES:
            report.draw_batch(at.batch, batch, draw_batch)
        note_unreadable(run, batch, report)
        values, wanted = forward_backward(run, batch, stop)
        step.add(batch, values)
        at.batch += 1
        if at.batch % settings.grad_accumulation and at.batch < run.batches:
            continue
        norm = update(run, step, data, report)
        step = Step.after(run.statistics)
        at.seconds = time.monotonic() - began
        if at.nonfinite_in_a_row == 0:
            report.step(at.epoch, at.step, values | {"lr": learning_rate(run, at.step - 1), "grad_norm": norm})
        if at.nonfinite_in_a_row >= IN_A_ROW:
            save(run)
            raise end_of_run(at)
        if wanted.stop:
            return True
        if wanted.save or (settings.save_interval is not None and at.step % settings.save_interval == 0):
            save(run)
    return False


def note_unreadable(run: Run, batch: Batch, report: Report) -> None:
    """Remember and say, once, which images another one stands in for."""
    for problem in batch.unreadable:
        if problem not in run.at.unreadable:
            run.at.unreadable.append(problem)
            report.note(f"left out, another image in its place: {problem}")


class Wanted(NamedTuple):
    """What at least one process wants after the step at hand."""

    stop: bool
    save: bool


def forward_backward(run: Run, batch: Batch, stop: StopRequest) -> tuple[Row, Wanted]:
    """Add a batch's part to the gradients; returns its losses over all processes, and what these want."""
    at, settings, accelerator = run.at, run.settings, run.accelerator
    first = at.batch - at.batch % settings.grad_accumulation
    parts = min(settings.grad_accumulation, run.batches - first)
    last = at.batch == first + parts - 1
    torch.manual_seed(derived_seed(settings.seed, at.epoch, at.batch, accelerator.process_index))
    with nullcontext() if last else accelerator.no_sync(run.losses):
        losses = run.losses(as_one(run, batch.to(accelerator.device)))
        total = torch.stack(list(losses.values())).sum()
        # One reduction for all that the processes must agree on: the losses, whether to stop, and whether to save.
        wishes = (
            total.new_tensor(float(wish)) for wish in (stop.in_time(first + 2 * parts - at.batch), run.save_is_due)
        )
        mine = torch.stack([total, *losses.values(), *wishes]).detach()
        *values, stops, saves = accelerator.reduce(mine, reduction="mean").tolist()
        # Also of a loss that is not finite, which shows in all processes' gradients then: all must do the same.
        accelerator.backward(total / parts)
    return dict(zip(("loss", *losses), values, strict=True)), Wanted(stops > 0, saves > 0)


def as_one(run: Run, batch: Batch) -> Batch:
    """The batch as part of one that all processes share: padded alike, with each image's own randomness."""
    at, seed, accelerator = run.at, run.settings.seed, run.accelerator
    if run.settings.draws_by_image:
        batch = replace(batch, seeds=tuple(derived_seed(seed, at.epoch, index, HEAD) for index in batch.indices))
    if accelerator.num_processes == 1:
        return batch
    height, width = processes.largest(size_of(batch.images), accelerator.device)
    place = (at.batch, accelerator.process_index, accelerator.num_processes)
    spare = is_spare(run.images, run.settings.batch_size, *place)
    return replace(batch.padded((height, width)), spare=spare)


def update(run: Run, step: Step, data: SkipUnreadable, report: Report) -> float:
    """One optimizer step, unless it is not finite; returns the norm of the gradients before clipping."""
    at, settings, parameters, scaler = run.at, run.settings, list(run.model.parameters()), run.accelerator.scaler
    run.accelerator.unscale_gradients()
    norm = total_norm(parameters, settings.shard)
    value = norm.item()
    # The scaler of fp16 leaves out steps whose gradients are not finite by itself, and goes on with a lower scale.
    if problem := step.problem(value if scaler is None else None):
        step.undo()
        if scaler is not None:
            scaler.update()
        images = of_all_processes(run, [data.name_of(index) for index in step.images])
        report.note(record(at, at.epoch, problem, images))
        at.skipped_batches += len(step.losses)
    else:
        if settings.grad_clip is not None:
            clip(parameters, settings.grad_clip, norm, settings.shard)
        set_learning_rate(run.optimizer, partial(schedule_factor, settings, at.step, run.total_steps))
        run.optimizer.step()
        if run.average is not None:
            run.average.update_parameters(run.model)
        at.nonfinite_in_a_row = 0
        for losses in step.losses:
            at.sums = {name: at.sums.get(name, 0.0) + value for name, value in losses.items()}
    run.optimizer.zero_grad()
    at.step += 1
    return value


def finish_epoch(run: Run, report: Report, evaluate: Evaluate | None, best_metric: str, stop: StopRequest) -> bool:
    """Evaluate (None: not now), keep the best weights, write the epoch's row, and go to the next epoch.

    Returns whether a request to stop ended the evaluation; then none of this was done.
    """
    at, finished = run.at, run.at.epoch + 1
    lr = learning_rate(run, at.step - 1)
    row: Row = {"epoch": finished, "step": at.step, "seconds": at.seconds, "lr": lr}
    row |= {name: value / (run.batches - at.skipped_batches) for name, value in at.sums.items()}
    metrics: Row = {}
    if evaluate is not None:
        measured = measure(run, evaluate, best_metric, stop)
        if measured is None:
            return True
        metrics = measured
        value = metrics[best_metric]
        if math.isnan(value):
            report.note(f"{best_metric} is undefined in epoch {finished}: it cannot be the best; is there nothing in "
                        "the validation data that it could measure?")  # fmt: skip
        if math.isfinite(value) and (at.best is None or is_better(value, at.best, best_metric)):
            at.best, at.best_epoch = value, finished
            give_away(run, run.folder.best)
    at.history.append(row | metrics)
    report.epoch(at.history, metrics)
    at.epoch, at.batch, at.sums, at.seconds, at.skipped_batches = finished, 0, {}, 0.0, 0
    return False


def is_better(value: float, best: float, metric: str) -> bool:
    """Of losses the lower one."""
    return value < best if "loss" in metric else value > best


def evaluation_is_due(run: Run) -> bool:
    """Whether the current epoch ends with an evaluation: every `eval_interval`, and after the last one."""
    finished = run.at.epoch + 1
    return finished % run.settings.eval_interval == 0 or finished == run.settings.epochs


def measure(run: Run, evaluate: Evaluate, best_metric: str, stop: StopRequest) -> Row | None:
    """The metrics of the result model, or None if a request to stop came first: the main process's on every process."""
    from accelerate.utils import broadcast_object_list

    shared: list[Row | None] = [None]
    with suppress(Interrupted), stop.together(), torch.no_grad():
        with result_at_hand(run) as model:
            metrics = evaluate(model)
        if best_metric not in metrics:
            raise ValueError(f"best_metric {best_metric!r} is not among the evaluation's metrics: {', '.join(metrics)}")
        shared = [{name: float(value) for name, value in metrics.items()}]
    broadcast_object_list(shared)
    return shared[0]


def out_of_patience(run: Run, best_metric: str) -> bool:
    """Whether the metric has not become better in the last `settings.patience` evaluations."""
    patience, at = run.settings.patience, run.at
    since = sum(best_metric in row for row in at.history if row["epoch"] > at.best_epoch)
    return patience is not None and at.best is not None and since >= patience


def learning_rate(run: Run, step: int) -> float:
    """Of everything that was not pretrained, such as the head, in optimizer step `step` (0-based)."""
    peak = run.settings.scaled_lr(run.accelerator.num_processes) * run.settings.new_lr_factor
    return peak * schedule_factor(run.settings, step, run.total_steps, peak)
