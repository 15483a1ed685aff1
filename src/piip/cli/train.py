"""`piip train`: a model trained on a data set, or a run gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from piip.cli.key_values import key_values
from piip.cli.options import (
    Device,
    Devices,
    Processes,
    Sizes,
    Views,
    err,
    in_processes,
    official,
    out,
    sizes_of,
    used,
    views_of,
)
from piip.console import counted, say

if TYPE_CHECKING:
    from piip.training.loop import RunResult


def train(
    model: Annotated[
        str | None, typer.Option(help="Name of a model, see `piip models`, or a YAML of your own.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data set: a folder, or an annotation file or table.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Default: the model's recipe.")] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help='Start from these weights instead of --model; "official": released ones of --model.'),
    ] = None,
    branch_weights: Annotated[
        list[str] | None,
        typer.Option(help='Start branches as pretrained backbones: "0=FILE,1=timm:NAME", or "published".'),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step and process.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Longer side of the network's input in pixels.")] = None,
    sizes: Sizes = None,
    views: Views = None,
    device: Device = None,
    processes: Processes = None,
    devices: Devices = None,
    shard: Annotated[
        bool | None,
        typer.Option("--shard/--no-shard", help="Each process holds a part of model and optimizer (FSDP2)."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Parent folder of OUTPUT/TASK/NAME; default: runs.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; default: the model's.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read images.")] = None,
    seed: Annotated[int | None, typer.Option(help="Everything random follows from it.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16.")] = None,
    detections: Annotated[
        int | None, typer.Option(help="Detection: objects that are to be found in an image, kept in the weights.")
    ] = None,
    accumulate: Annotated[int | None, typer.Option(help="Batches per optimizer step.")] = None,
    freeze: Annotated[
        str | None, typer.Option(help='Parts that keep their weights: "2", "branches.2.blocks.0-8", "backbone", ...')
    ] = None,
    lora: Annotated[
        str | None,
        typer.Option(help='Adapters in frozen branches: "8", a rank, or "rank=8,targets=qkv,proj, branches=2".'),
    ] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of the running average of the weights.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many evaluations without a better result.")
    ] = None,
    best_metric: Annotated[
        str | None, typer.Option(help='What decides which weights are best: a column of results.csv, or "val_loss".')
    ] = None,
    time: Annotated[
        str | None, typer.Option(help='Stop so early that all is saved within "2h", "90m" or "45s"; --resume goes on.')
    ] = None,
    log: Annotated[str | None, typer.Option(help="tensorboard, wandb, mlflow, trackio (with commas), or none.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any of `piip settings`, KEY=VALUE; of the head: head.KEY. May be repeated."),
    ] = None,
) -> None:
    """Train on a data set's "train" split, evaluating on its "val" split after every epoch."""
    in_processes(processes, devices, device)
    from piip.api import PIIP

    settings: dict[str, Any] = {
        "batch_size": batch_size,
        "lr": lr,
        "workers": workers,
        "seed": seed,
        "precision": precision,
        "grad_accumulation": accumulate,
        "freeze": freeze,
        "lora": lora,
        "ema": ema,
        "patience": patience,
        "detections": detections,
        "best_metric": best_metric,
        "time_limit": time,
        "log": log,
        "shard": shard,
    }
    settings = used(**settings) | key_values(set_ or [])
    if resume is None:
        result = _begin(
            model,
            weights,
            branch_weights,
            data,
            epochs,
            output or Path("runs"),
            name,
            image_size,
            sizes,
            views,
            device,
            settings,
        )
    else:
        kept = {"--model": model, "--weights": weights, "--branch-weights": branch_weights, "--name": name}
        if wrong := used(
            **kept, **{"--image-size": image_size, "--sizes": sizes, "--views": views, "--output": output}
        ):
            raise ValueError(f"{', '.join(wrong)}: a resumed run keeps its own; start a new one without --resume")
        settings |= used(data=None if data is None else str(data), device=device)
        _, result = PIIP.resume(resume, epochs, **settings)
    _say_end(result)
    if result.signal is not None:
        raise typer.Exit(128 + result.signal)


def _say_end(result: RunResult) -> None:
    """One line on how a run ended, from one process of several."""
    metric = result.metric.replace("_", " ")
    best = "" if result.best is None else f", best {metric} {result.best:.3f} in epoch {result.best_epoch}"
    if result.main_process:
        say(out, f"{result.end} after {counted(len(result.history), 'epoch')}{best}; everything is in {result.folder}")


def _begin(
    model: str | None, weights: Path | None, branch_weights: list[str] | None, data: Path | None, epochs: int | None,
    output: Path, name: str | None, image_size: int | None, sizes: str | None, views: str | None, device: str | None,
    settings: dict[str, Any],
) -> RunResult:  # fmt: skip
    """A new run, from a named model's fresh or released weights or from a user's."""
    from piip.api import PIIP
    from piip.processes import without_values
    from piip.weights.branches.pretrained import branch_sources

    weights, model = official(weights, model)
    if data is None or (model is None) == (weights is None):
        raise ValueError("give --data and one of --model and --weights (or --resume RUN)")
    chosen = model if weights is None else weights
    assert chosen is not None
    with without_values(bool(settings.get("shard"))):
        trained = PIIP(chosen)
    if sizes is not None:
        trained = trained.with_sizes(sizes_of(sizes))
    if views is not None:
        trained = trained.with_views(views_of(views))
    if branch_weights:
        early = settings | used(epochs=epochs)
        for of_the_model in ("head", "detections"):
            early.pop(of_the_model, None)
        checked = trained.training_settings(data, image_size, **early)  # wrong ones are named before much is downloaded
        with without_values(checked.shard):
            for report in trained.load_branches(branch_sources(branch_weights, trained.config.name)):
                say(err, str(report))
    return trained.train(data, epochs, output=output, name=name, image_size=image_size, device=device, **settings)
