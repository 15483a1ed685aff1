"""A run that goes on with another number of processes: the same images per optimizer step, otherwise dealt out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from piip.console import counted
from piip.training.position import Position
from piip.training.settings import Settings


def check_same_step(state: dict[str, Any], settings: Settings, processes: int, source: Path) -> None:
    """ValueError where an optimizer step would not have as many images as it had: it says which settings have."""
    size, batches, before = _dealt(state, processes)
    was, now = size * batches * before, settings.batch_size * settings.grad_accumulation * processes
    if was == now:
        return
    each, odd = divmod(was, processes)
    if odd:
        remedy = f"use a number of processes that divides {was}"
    else:
        fitting = max(size for size in range(1, min(each, max(size, settings.batch_size)) + 1) if each % size == 0)
        remedy = f"give --batch-size {fitting} --accumulate {each // fitting}"
        if processes == 1 and (size, batches) == (settings.batch_size, settings.grad_accumulation):
            remedy += f", or --processes {before} as before"
    then, present = (
        _in_words(before, size, batches),
        _in_words(processes, settings.batch_size, settings.grad_accumulation),
    )
    raise ValueError(f"{source}: a step had {then} = {was}, and would now have {present} = {now}: {remedy}")


def _in_words(processes: int, size: int, batches: int) -> str:
    """What an optimizer step consists of."""
    several = f" x {batches} batches" if batches > 1 else ""
    return f"{counted(processes, 'process')} x {counted(size, 'image')}{several}"


def check_same_epoch(state: dict[str, Any], batches: int, settings: Settings, processes: int, source: Path) -> None:
    """ValueError where an epoch of `batches` for each process has not as many steps as before: other data."""
    size, accumulated, before = _dealt(state, processes)
    dealt_as_before = (size, accumulated, before) == (settings.batch_size, settings.grad_accumulation, processes)
    same = math.ceil(state["batches"] / accumulated) == math.ceil(batches / settings.grad_accumulation)
    if not same or (dealt_as_before and state["batches"] != batches):
        raise ValueError(
            f"{source}: was written with {state['batches']} batches per epoch and process, now there are {batches}: "
            "the data or the number of processes changed"
        )


def at_now(state: dict[str, Any], at: Position, batches: int, settings: Settings) -> Position:
    """A checkpoint's position, counted in the batches that each process has now: `batches` in an epoch.

    Within an epoch a checkpoint follows an optimizer step, and a step's images are the same on any number of
    processes. What was summed up over batches is as if there had been as many as there are now.
    """
    size, accumulated, _ = _dealt(state, 1)
    at = replace(at, together=at.together or size)
    if state["batches"] == batches and accumulated == settings.grad_accumulation:
        return at
    done = batches if at.batch == state["batches"] else at.batch // accumulated * settings.grad_accumulation
    ratio = done / at.batch if at.batch else 1.0
    sums = {name: value * ratio for name, value in at.sums.items()}
    return replace(at, batch=done, sums=sums, skipped_batches=round(at.skipped_batches * ratio))


def _dealt(state: dict[str, Any], processes: int) -> tuple[int, int, int]:
    """Batch size, batches per step and processes of a checkpoint; older ones do not say how many processes."""
    saved = state["settings"]
    return saved["batch_size"], saved["grad_accumulation"], state.get("processes", processes)
