"""From a model and a data set to a finished run: what `piip train` and `PIIP.train` do."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pydantic
import torch

from piip import config, processes, tasks, zoo
from piip.config.errors import problems
from piip.console import Terminal, say
from piip.data.opening import opened_once
from piip.data.report import DataError
from piip.devices import float32_by_default
from piip.model import PIIPModel
from piip.prediction.tiled import refuse_classifier
from piip.training.accelerator import build_accelerator, require_libraries
from piip.training.at_hand import best_at_hand
from piip.training.callbacks import Callback
from piip.training.curves import VAL_LOSS
from piip.training.facts import facts_of
from piip.training.failures import explained
from piip.training.folder import RunFolder, check_name, new_run_folder
from piip.training.foreseen import check_fits
from piip.training.freeze import check_parts, note_frozen_at_random
from piip.training.header import say_header
from piip.training.interrupt import Interrupted, stop_on_signal
from piip.training.last_look import last_look
from piip.training.loop import RunResult, train
from piip.training.nonfinite import free_afterwards
from piip.training.peers import watched
from piip.training.restart import begun_before, mark_as_begun
from piip.training.settings import FREE_ON_RESUME, SAME_IN_ALL, Settings, read_model, read_settings
from piip.training.trackers import check_loggers
from piip.training.unreadable import LateFindings, found_undecodable
from piip.training.validation import ValidationLoss, check_metric, in_tiles
from piip.weights.card import write_card
from piip.weights.files import read_config, replace_config, without_downloads
from piip.weights.transfer import note_transfer
from piip.zoo import Entry

VAL_FOLDER = "val"


def build_settings(recipe: Mapping[str, Any], given: Mapping[str, Any], image_scale: float = 1.0) -> Settings:
    """A model's recipe with the user's own values over it; ValueError names a wrong one.

    `given["augmentation"]`, if a dict, changes only what it names of the recipe's, whose kind follows from the model.

    Args:
        recipe: some fields of `Settings`.
        given: others, over them.
        image_scale: how many times as large as the model's own the images are, see `Augmentation.scaled`. It changes
            the recipe only: whoever gives pixels means them.
    """
    usual = Settings.model_validate(dict(recipe)).augmentation.scaled(image_scale)
    values = {**recipe, "augmentation": usual, **given}
    if isinstance(values["augmentation"], dict):
        values["augmentation"] = usual.model_dump() | values["augmentation"]
    try:
        return Settings.model_validate(values)
    except pydantic.ValidationError as error:
        known = [*Settings.model_fields, *(f"augmentation.{name}" for name in type(usual).model_fields)]
        raise ValueError(f"training settings: {problems(error, known)}") from error


def image_scale(described: config.Model, image_size: int | None) -> float:
    """How many times as large as its recipe's the images of a model are, with another longer side or its own (None)."""
    if described.name not in zoo.MODELS:
        return 1.0
    usual = zoo.entry(described.name).config().preprocess.long_side
    return (image_size or described.preprocess.long_side) / usual


def note_random_branches(entry: Entry, branches: Collection[int], data: str | Path) -> None:
    """Say that a published recipe is about to start from random `branches`, and the command that would not."""
    began = "; ".join(f"branch {index} as {entry.began_as(index)}" for index in sorted(branches))
    command = f"piip train --model {entry.name} --data {shlex.quote(str(data))}"
    say(
        Terminal(stderr=True),
        f"WARNING: {entry.name} starts from random weights in {len(branches)} of its {len(entry.pretraining)} "
        "branches, which its recipe is not made for: expect results far below the published ones. They began "
        f"pretrained, {began}. As published: {command} --branch-weights {entry.published_start()}",
        style="bold red",
    )


def with_best_metric(settings: Settings, task: tasks.Task, val_data: tasks.Data | None) -> Settings:
    """For a new run: with the metric that fits the data, where that is another one than usual and none was chosen.

    It is in the settings, so that the run keeps it; runs that were begun without one go on with the usual one.
    """
    if settings.best_metric is not None or val_data is None:
        return settings
    metric = task.best_metric(val_data)
    if metric == task.BEST_METRIC:
        return settings
    say(Terminal(stderr=True), f"images have more objects of a class than {task.BEST_METRIC} counts: {metric} decides "
        "which epoch is the best")  # fmt: skip
    return settings.model_copy(update={"best_metric": metric})


@float32_by_default()
def start_run(
    base: config.Model,
    weights: PIIPModel | None,
    settings: Settings,
    output: str | Path = "runs",
    name: str | None = None,
    image_size: int | None = None,
    head: Mapping[str, Any] | None = None,
    part: tuple[str, ...] = ("",),
    callbacks: Sequence[Callback] = (),
) -> tuple[RunResult, PIIPModel | None]:
    """Train a model like `base` on `settings.data` in a new folder `<output>/<task>/<name>`.

    `image_size` and settings of the `head`, where given, take the place of the model's own.
    `weights`, where given, are kept wherever they fit the new classes, those whose names begin with one of `part`.
    Of a sharded training only the main process builds them.

    Returns the run and its best model, as `run` does.
    """
    assert settings.data is not None
    require_libraries()
    base = with_head(with_image_size(base, image_size), {} if head is None else head)
    check_name(name or base.name)
    if settings.evaluated_in_tiles is not None:
        refuse_classifier(base)
    tasks.require_pairing(base, settings.data)
    check_parts(base.backbone, settings.freeze)
    check_loggers(settings.log)
    check_metric(base, settings.best_metric)
    task = tasks.of(base)
    data, val_data = _opened(task, settings)
    settings = with_best_metric(settings, task, val_data)
    adapted = task.adapted(base, data, settings.class_weights)
    torch.manual_seed(settings.seed)
    model = _built(adapted, settings, fetch=weights is None)
    check_fits(model, settings)
    if weights is None:
        note_frozen_at_random(adapted, settings.frozen_parts)
    else:
        note_transfer(model, weights, part)
    place = (output, adapted.task, name or adapted.name)
    folder = _agreed(lambda: begun_before(*place) or mark_as_begun(new_run_folder(*place)), settings)
    return run(model, settings, folder, RunFolder(folder).checkpoint.exists(), (data, val_data), callbacks)


def resume_run(
    folder: str | Path, changes: Mapping[str, Any] | None = None, callbacks: Sequence[Callback] = ()
) -> tuple[RunResult, PIIPModel | None]:
    """Go on with the run in `folder` from its last checkpoint, with `changes` of `settings.FREE_ON_RESUME`.

    After a run that ended on numbers that were not finite also of `nonfinite.FREE_AFTERWARDS`. With another number of
    processes batch_size and grad_accumulation may change, if an optimizer step has as many images as before.
    """
    free = FREE_ON_RESUME | free_afterwards(RunFolder(Path(folder)).skipped)
    if refused := sorted(set(changes or ()) - free - SAME_IN_ALL):
        raise ValueError(
            f"a resumed run keeps its {', '.join(refused)}; only {', '.join(sorted(free))} may change. "
            "For anything else start a new run from its weights"
        )
    path = RunFolder(Path(folder)).config
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no run to resume here (there is no {path.name})")
    settings = build_settings(read_settings(path).model_dump(), changes or {})
    model = _built(read_model(path), settings, fetch=False)
    return run(model, settings, Path(folder), resume=True, callbacks=callbacks)


def _built(described: config.Model, settings: Settings, fetch: bool = True) -> PIIPModel:
    """A model, with pretrained branches where it begins with such and their weights do not come from elsewhere."""
    with processes.without_values(settings.shard) as nowhere:
        model = PIIPModel(described if fetch and nowhere is None else without_downloads(described))
    model.config = described
    return model


@float32_by_default()
def run(
    model: PIIPModel,
    settings: Settings,
    folder: Path,
    resume: bool,
    opened: tuple[tasks.Data, tasks.Data | None] | None = None,
    callbacks: Sequence[Callback] = (),
) -> tuple[RunResult, PIIPModel | None]:
    """The training itself, then a last look at the best weights: metrics, curves and pictures in `folder/val`.

    Returns the model of these, too, where it was read for that; None where it was not, as after a sharded training.

    `opened` are the training data and those of the evaluation (None: none) where they were opened before, as they are
    for a new model's classes; else they are opened here. What was found in them is said, and listed in the folder.

    Several processes share the images of every evaluation; the main one alone writes what is said of all.
    """
    assert settings.data is not None
    if resume and not Path(settings.data).expanduser().exists():
        raise DataError(f"{settings.data}: there is no such file or folder here; say where the data of this run are, "
                        "with --data or data=")  # fmt: skip
    task = tasks.of(model.config)
    data, val_data = opened or _opened(task, settings)
    if opened is None:
        data = task.in_label_order(model.config, data)
    if settings.check_images:
        data, val_data = _without_undecodable(data, val_data, settings, RunFolder(folder))
    kept = (not settings.drop_empty, settings.drop_smaller)
    train_data = task.training_set(model.config, data, settings.augmentation, settings.seed, *kept)
    _tell_findings(data, val_data, RunFolder(folder), resume)
    opened_splits = {"train": data} if val_data is None else {"train": data, "val": val_data}
    say_header(model, opened_splits, len(train_data), settings, folder)
    if val_data is not None:
        val_data = task.in_label_order(model.config, val_data)

    best_metric, losses_of = settings.best_metric or task.BEST_METRIC, None
    if val_data is not None and (settings.val_loss or best_metric == VAL_LOSS):
        losses_of = ValidationLoss(task, model.config, val_data, settings)

    late = LateFindings(opened_splits, RunFolder(folder).findings)

    def evaluate(current: PIIPModel) -> dict[str, float]:
        assert val_data is not None
        how = (settings.batch_size, settings.workers, settings.precision)
        metrics = task.evaluate(current, val_data, *how, in_tiles(settings))
        late.note("val", metrics.unreadable)
        losses = {} if losses_of is None else {VAL_LOSS: losses_of(current)}
        return {best_metric: math.nan} | metrics.scalars() | losses  # undefined without anything to find

    measure = evaluate if val_data is not None else None
    draw_batch = partial(task.draw_training_batch, described=model.config)
    hint = f"To go on from the last checkpoint: piip train --resume {folder}"
    with explained(RunFolder(folder), settings), watched(hint, settings.peer_minutes):
        result = train(model, train_data, settings, folder, measure, best_metric, resume, draw_batch, callbacks)
    with explained(RunFolder(folder), settings), watched(hint, settings.peer_minutes), stop_on_signal() as stop:
        weights, device = result.best_weights or result.last_weights, next(model.parameters()).device
        described, best = read_config(weights), None
        metrics: tasks.Metrics | None = None
        if result.end != "stopped" and val_data is not None:
            try:
                with stop.together(), best_at_hand(weights, device, result.sharded) as ready:
                    metrics = last_look(ready, val_data, settings, folder / VAL_FOLDER)
                late.note("val", metrics.unreadable)
                described = tasks.of(described).with_thresholds(described, metrics)
                if result.sharded is None:
                    best = ready
                    best.config = described
                if processes.rank() == 0 and described.thresholds is not None:
                    replace_config(weights, described)
            except Interrupted:
                say(Terminal(stderr=True), f"the training is done, but {folder / VAL_FOLDER} was not finished; resume "
                    "the run or use `piip val` to write it")  # fmt: skip
        if result.end != "stopped" and processes.rank() == 0:
            write_card(result.last_weights.parent, described, facts_of(opened_splits, result, metrics, settings))
        processes.from_main(None)  # has written it all
        processes.leave()
    return replace(result, sharded=None), best


def _opened(task: tasks.Task, settings: Settings) -> tuple[tasks.Data, tasks.Data | None]:
    """The training data and those of the evaluation; DataError where nothing sensible can come of them."""
    path = settings.data
    assert path is not None
    if processes.launched() > 1:
        build_accelerator(settings)  # they know each other
    with watched("Start it again", settings.peer_minutes):
        data = opened_once(lambda: task.open_split(path, "train"))
    tasks.require_enough("train", data)
    with watched("Start it again", settings.peer_minutes):
        val_data = opened_once(lambda: task.validation_split(path))
    if val_data is not None:
        tasks.require_enough("val", val_data)
    return data, val_data


def _without_undecodable(
    data: tasks.Data, val_data: tasks.Data | None, settings: Settings, folder: RunFolder
) -> tuple[tasks.Data, tasks.Data | None]:
    """The same with findings about images that cannot be decoded, and without them in the evaluation."""
    opened = {"train": data} if val_data is None else {"train": data, "val": val_data}
    with explained(folder, settings), watched("Start it again", settings.peer_minutes):
        broken = found_undecodable((image.path for part in opened.values() for image in part.images), settings)
    whole = {split: tasks.leave_out(part, broken, split) for split, part in opened.items()}
    if broken and val_data is not None:
        tasks.require_enough("val", whole["val"])
    return whole["train"], whole.get("val")


def _tell_findings(data: tasks.Data, val_data: tasks.Data | None, folder: RunFolder, resume: bool) -> None:
    """One line, and the whole in the run's folder."""
    opened = {"train": data} if val_data is None else {"train": data, "val": val_data}
    line = tasks.in_a_line(opened)
    if line is None or int(os.environ.get("RANK", "0")) > 0:
        return
    if resume or not folder.findings.exists():  # else it is another run's folder, which is refused soon
        tasks.write_findings(opened, folder.findings)
    say(Terminal(stderr=True), f"{line} (all in {folder.findings})")


def _agreed(make: Callable[[], Path], settings: Settings) -> Path:
    """The folder that the main process makes, on every process."""
    accelerator = build_accelerator(settings)
    if accelerator.num_processes == 1:
        return make()
    from accelerate.utils import broadcast_object_list

    made = [str(make()) if accelerator.is_main_process else ""]
    broadcast_object_list(made)
    return Path(made[0])


def with_head(model: config.Model, settings: Mapping[str, Any]) -> config.Model:
    """`model` with other `settings` of its head; ValueError names a wrong one."""
    if not isinstance(settings, Mapping):
        raise ValueError(f"head {settings!r}: give settings of the head by name, for example head.detections=300")
    if not settings:
        return model
    if "class_weights" in settings:
        raise ValueError("head.class_weights: give class_weights itself, which is a setting of the training")
    kind = type(model.head)
    try:
        head = kind.model_validate(model.head.model_dump() | dict(settings))
        return config.Model(**dict(model) | {"head": head})
    except pydantic.ValidationError as error:
        raise ValueError(f"settings of a {model.head.kind} head: {problems(error, kind.model_fields)}") from error


def with_detections(model: config.Model, detections: int | None) -> config.Model:
    """`model` for so many objects in an image; ValueError for one that finds no objects."""
    if detections is None:
        return model
    if not isinstance(model.head, config.MaskRCNN | config.DINO):
        raise ValueError(f"detections {detections}: {model.name} is a {model.task} model, which finds no objects")
    try:
        return model.model_copy(update={"head": model.head.keeping(detections)})
    except pydantic.ValidationError as error:
        raise ValueError(f"detections {detections}: {problems(error)}") from error


def with_image_size(model: config.Model, image_size: int | None) -> config.Model:
    """`model` with another longer side of the input; the shorter side and sliding windows keep their proportion."""
    return model if image_size is None else model.with_image_size(image_size)
