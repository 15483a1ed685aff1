"""The training loop of all tasks: `train` is the story, the functions below it are its sentences, in order.

    every epoch:  every batch:     losses -> gradients                         (forward_backward)
                  every few:       gradients -> weights -> running average     (update)
                  at the end:      [save, evaluate, keep the best,] save       (finish_epoch)

What is random in a pass follows from (seed, epoch, batch, process), so that
a resumed run equals an uninterrupted one bit by bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from piip.data.seeding import derived_seed
from piip.model import PIIPModel
from piip.structures import Batch
from piip.training.folder import RunFolder
from piip.training.interrupt import Interrupted, StopRequest, stop_on_signal
from piip.training.optim import schedule_factor, set_learning_rate
from piip.training.report import DrawBatch, Report, Row
from piip.training.run import Run, epoch_loader, save, start
from piip.training.settings import Settings
from piip.weights.files import save_model

Evaluate = Callable[[PIIPModel], dict[str, float]]
DRAWN_BATCHES = 3


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
    """"stopped": by a signal; resume to go on"""
    signal: int | None = None
    """which one, if "stopped" and this process received it; a command line exits with 128 + its number"""
    main_process: bool = True
    """of several processes, the one that writes files"""


def train(
    model: PIIPModel,
    train_data: Any,
    settings: Settings,
    output: str | Path,
    evaluate: Evaluate | None = None,
    best_metric: str = "AP",
    resume: bool = False,
    draw_batch: DrawBatch | None = None,
) -> RunResult:
    """Train `model` in place and fill the run folder `output`.

    Args:
        model: on any device; it is moved to the run's.
        train_data: a data set that `data.batches.train_loader` takes.
        settings: see there; on resume they must be those of the run, but for `settings.FREE_ON_RESUME`.
        output: the run folder. It must not hold a run yet, unless `resume`.
        evaluate: called on every process after an epoch, with the model (or its running average) in eval mode,
            without gradients; the main process's numbers count. None: no evaluation.
        best_metric: the key of `evaluate`'s result that decides; higher is better.
        resume: go on from `output`'s checkpoint, to the same result as if the run had not been interrupted.
        draw_batch: makes the pictures of the first batches, with their targets; None: no pictures.

    SIGINT (Ctrl-C) and SIGTERM end the run after the step at hand with a checkpoint. An evaluation ends at once, and
    is done again on resume.

    Raises:
        FloatingPointError: a loss, gradient or weight became NaN or infinite; the checkpoints before it stay.
        FileExistsError: `output` holds a run and `resume` is False.
        CheckpointError, ValueError: nothing to resume from, or settings, data or model are not the run's.
        ImportError: the `train` extra is not installed.
    """
    run = start(model, train_data, settings, RunFolder(Path(output)), resume)
    at, main, stopped = run.at, run.accelerator.is_main_process, False
    with (
        stop_on_signal() as stop,
        Report(run.folder, settings.epochs, run.steps_per_epoch, at.step, active=main) as report,
    ):
        while at.epoch < settings.epochs and not out_of_patience(run, best_metric):
            stopped = train_epoch(run, train_data, report, stop, draw_batch)
            due = evaluate is not None and evaluation_is_due(run)
            if stopped or due:
                save(run)  # before the evaluation, which may take long or fail
            stopped = stopped or finish_epoch(run, report, evaluate if due else None, best_metric, stop)
            if stopped:
                report.note(f"stopped in epoch {at.epoch + 1} and saved; resume to go on")
                break
            save(run)
    run.accelerator.end_training()
    end: Any = "stopped" if stopped else "finished" if at.epoch == settings.epochs else "early stop"
    best = run.folder.best if at.best is not None else None
    number = stop.signal if stopped else None  # one that came too late to stop anything is no failure
    return RunResult(run.folder.path, best, run.folder.last, at.best, at.best_epoch, at.history, end, number, main)


def train_epoch(run: Run, data: Any, report: Report, stop: StopRequest, draw_batch: DrawBatch | None) -> bool:
    """The rest of the current epoch. Returns whether a request to stop ended it, after an optimizer step."""
    at, settings = run.at, run.settings
    run.model.train()
    began = time.monotonic() - at.seconds
    for batch in epoch_loader(run, data):
        if draw_batch is not None and at.epoch == 0 and at.batch < DRAWN_BATCHES:
            report.draw_batch(at.batch, batch, draw_batch)
        values, stop_now = forward_backward(run, batch, stop)
        at.sums = {name: at.sums.get(name, 0.0) + value for name, value in values.items()}
        at.batch += 1
        if at.batch % settings.grad_accumulation and at.batch < run.batches:
            continue
        norm = update(run, batch)
        at.seconds = time.monotonic() - began
        report.step(at.epoch, at.step, values | {"lr": learning_rate(run, at.step - 1), "grad_norm": norm})
        if stop_now:
            return True
        if settings.save_interval is not None and at.step % settings.save_interval == 0:
            save(run)
    return False


def forward_backward(run: Run, batch: Batch, stop: StopRequest) -> tuple[Row, bool]:
    """Add a batch's part to the gradients; returns its losses, and whether any process was asked to stop."""
    at, settings, accelerator = run.at, run.settings, run.accelerator
    first = at.batch - at.batch % settings.grad_accumulation
    parts = min(settings.grad_accumulation, run.batches - first)
    last = at.batch == first + parts - 1
    torch.manual_seed(derived_seed(settings.seed, at.epoch, at.batch, accelerator.process_index))
    with nullcontext() if last else accelerator.no_sync(run.losses):
        losses = run.losses(batch.to(accelerator.device))
        total = torch.stack(list(losses.values())).sum()
        # One reduction for all that the processes must agree on: the losses, and whether to stop.
        mine = torch.stack([total, *losses.values(), total.new_tensor(float(bool(stop)))]).detach()
        *values, stops = accelerator.reduce(mine, reduction="mean").tolist()
        named = dict(zip(("loss", *losses), values, strict=True))
        if not all(map(math.isfinite, values)):
            raise nonfinite(run, batch, "loss", ", ".join(f"{name} {value:.4g}" for name, value in named.items()))
        accelerator.backward(total / parts)
    return named, stops > 0


def update(run: Run, batch: Batch) -> float:
    """One optimizer step on the gradients up to those of `batch`; returns their norm before clipping."""
    settings, parameters = run.settings, list(run.model.parameters())
    run.accelerator.unscale_gradients()
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if run.accelerator.scaler is None and not norm.isfinite():  # the scaler of fp16 skips such steps and goes on
        raise nonfinite(run, batch, "gradient", f"norm {norm.item()}")
    if settings.grad_clip is not None:
        nn.utils.clip_grads_with_norm_(parameters, settings.grad_clip, norm)
    set_learning_rate(run.optimizer, partial(schedule_factor, settings, run.at.step, run.total_steps))
    run.optimizer.step()
    run.optimizer.zero_grad()
    if run.average is not None:
        run.average.update_parameters(run.model)
    run.at.step += 1
    return norm.item()


def finish_epoch(run: Run, report: Report, evaluate: Evaluate | None, best_metric: str, stop: StopRequest) -> bool:
    """Evaluate (None: not now), keep the best weights, write the epoch's row, and go to the next epoch.

    Returns whether a request to stop ended the evaluation; then none of this was done.
    """
    at, finished = run.at, run.at.epoch + 1
    lr = learning_rate(run, at.step - 1)
    row: Row = {"epoch": finished, "step": at.step, "seconds": at.seconds, "lr": lr}
    row |= {name: value / run.batches for name, value in at.sums.items()}
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
        if math.isfinite(value) and (at.best is None or value > at.best):
            at.best, at.best_epoch = value, finished
            if run.accelerator.is_main_process:
                save_model(run.result_model, run.folder.best)
    at.history.append(row | metrics)
    report.epoch(at.history, metrics)
    at.epoch, at.batch, at.sums, at.seconds = finished, 0, {}, 0.0
    return False


def evaluation_is_due(run: Run) -> bool:
    """Whether the current epoch ends with an evaluation: every `eval_interval`, and after the last one."""
    finished = run.at.epoch + 1
    return finished % run.settings.eval_interval == 0 or finished == run.settings.epochs


def measure(run: Run, evaluate: Evaluate, best_metric: str, stop: StopRequest) -> Row | None:
    """The metrics of the result model, or None if a request to stop came first: the main process's on every process."""
    from accelerate.utils import broadcast_object_list

    shared: list[Row | None] = [None]
    with suppress(Interrupted), stop.at_once(), torch.no_grad():
        metrics = evaluate(run.result_model.eval())
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


def nonfinite(run: Run, batch: Batch, what: str, values: str) -> FloatingPointError:
    """The error for a NaN or infinite value, with all that is needed to find its cause."""
    at = run.at
    return FloatingPointError(
        f"the {what} is not finite at step {at.step} (epoch {at.epoch + 1}, batch {at.batch}): {values}; images of "
        f"the data set in this batch: {batch.indices}. Checkpoints from before this step are unharmed. Usual "
        "causes: too high a learning rate, too short a warm-up, fp16, or broken annotations"
    )
