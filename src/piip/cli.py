"""The command line: `piip train | val | predict | models | info | benchmark | convert | data check | demo`.

Heavy imports live inside the commands, so that `piip --help` answers at once. Exit codes: 0 done, 1 some images
could not be read, 2 wrong use or wrong input (one line says what), 128 + n ended by signal n.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

from piip.console import say

app = typer.Typer(
    help="Parameter-Inverted Image Pyramid Networks: train, evaluate and use detectors, segmentors and classifiers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(help="Look at data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

out = Console()
err = Console(stderr=True)

Device = Annotated[str | None, typer.Option(help='"cpu", "cuda" or "mps"; default: a GPU if there is one.')]
Weights = Annotated[
    Path,
    typer.Option(help='A run folder, a .safetensors file or a saved model folder; or "official", with --model NAME.'),
]
OfficialModel = Annotated[str | None, typer.Option("--model", help="With --weights official: whose released weights.")]
Precision = Annotated[str, typer.Option(help="fp32, bf16 or fp16.")]
Window = Annotated[
    int | None,
    typer.Option(help="Segmentation: side of sliding windows in pixels, 0 for whole images; default: the model's own."),
]


@app.command()
def train(
    model: Annotated[str | None, typer.Option(help="Name of a model, see `piip models`.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data set: a folder, or a COCO json or CSV file.")] = None,
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
    device: Device = None,
    output: Annotated[Path | None, typer.Option(help="Parent folder of OUTPUT/TASK/NAME; default: runs.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; default: the model's.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read images.")] = None,
    seed: Annotated[int | None, typer.Option(help="Everything random follows from it.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Batches per optimizer step.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of the running average of the weights.")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many epochs without a better result.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other training setting KEY=VALUE; of the head: head.KEY. May be repeated."),
    ] = None,
) -> None:
    """Train on a data set's "train" split, evaluating on its "val" split after every epoch."""
    from piip import tasks
    from piip.api import PIIP
    from piip.weights.branches.pretrained import branch_sources

    settings: dict[str, Any] = {
        "batch_size": batch_size,
        "lr": lr,
        "workers": workers,
        "seed": seed,
        "precision": precision,
        "grad_accumulation": accumulate,
        "ema": ema,
        "patience": patience,
    }
    given = _given(**settings) | key_values(set_ or [])
    if resume is not None:
        other: dict[str, Any] = {
            "--model": model,
            "--weights": weights,
            "--branch-weights": branch_weights,
            "--name": name,
        }
        other |= {"--image-size": image_size, "--output": output}
        if wrong := _given(**other):
            raise ValueError(f"{', '.join(wrong)}: a resumed run keeps its own; start a new one without --resume")
        given |= _given(data=None if data is None else str(data), device=device)
        trained, result = PIIP.resume(resume, epochs, **given)
    else:
        weights, model = _official(weights, model)
        if data is None or (model is None) == (weights is None):
            raise ValueError("give --data and one of --model and --weights (or --resume RUN)")
        chosen = model if weights is None else weights
        assert chosen is not None
        trained = PIIP(chosen)
        if branch_weights:
            early = given | _given(epochs=epochs)
            early.pop("head", None)
            trained.training_settings(data, image_size, **early)  # wrong ones are named before much is downloaded
            for report in trained.load_branches(branch_sources(branch_weights, trained.config.name)):
                say(err, str(report))
        place = output or Path("runs")
        result = trained.train(data, epochs, output=place, name=name, image_size=image_size, device=device, **given)
    metric = tasks.of(trained.config).BEST_METRIC.replace("_", " ")
    best = "" if result.best is None else f", best {metric} {result.best:.3f} in epoch {result.best_epoch}"
    if result.main_process:
        say(out, f"{result.end} after {len(result.history)} epochs{best}; everything is in {result.folder}")
    if result.signal is not None:
        raise typer.Exit(128 + result.signal)


@app.command()
def val(
    weights: Weights,
    data: Annotated[Path, typer.Option(help="Data set: a folder, or a COCO json or CSV file.")],
    split: Annotated[str, typer.Option(help='"val", "test" or "train".')] = "val",
    output: Annotated[Path | None, typer.Option(help="Folder for results; default: beside the weights.")] = None,
    batch_size: int = 1,
    workers: int = 2,
    device: Device = None,
    precision: Precision = "fp32",
    window: Window = None,
    model_name: OfficialModel = None,
) -> None:
    """Evaluate: the task's metrics, predictions in files, and pictures such as the confusion matrix."""
    from piip import tasks
    from piip.api import PIIP
    from piip.weights.files import find_weights

    released = _weights(weights, model_name)
    home = find_weights(released).parent if released == weights else Path("runs", str(model_name))
    folder = output or home / f"{split}-{data.resolve().stem}"
    model = PIIP(released, device)
    if window is not None:
        model.use_windows(window or None)
    metrics = model.val(data, split, folder, batch_size, workers, precision)  # type: ignore[arg-type]
    for table in tasks.of(model.config).tables(metrics):
        out.print(table)
    say(out, f"metrics, results and pictures are in {folder}")


@app.command()
def predict(
    sources: Annotated[list[str], typer.Argument(help="Image files, folders or glob patterns.")],
    weights: Weights,
    output: Annotated[Path, typer.Option(help="Folder for pictures and JSON.")] = Path("runs/predict"),
    conf: Annotated[float, typer.Option(help="Detection: lowest score that counts, 0 to 1.")] = 0.25,
    batch_size: int = 1,
    device: Device = None,
    precision: Precision = "fp32",
    window: Window = None,
    model_name: OfficialModel = None,
) -> None:
    """Predict on images: annotated pictures, and JSON and other files that depend on the model's task."""
    from piip.api import PIIP
    from piip.prediction.files import write_predictions

    model = PIIP(_weights(weights, model_name), device)
    if window is not None:
        model.use_windows(window or None)
    written = write_predictions(model, sources, output, conf, batch_size, precision)
    for path, reason in written.failures:
        say(err, f"skipped {path}: {reason}", "yellow")
    say(out, f"{written.summary}; pictures and JSON are in {output}")
    if written.failures:
        say(err, f"{len(written.failures)} images could not be read")
        raise typer.Exit(1)


@app.command()
def models(
    pattern: Annotated[str, typer.Argument(help='Part of a name, or a pattern such as "*tsb*".')] = "*",
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
) -> None:
    """List the named models: task, branches, resolutions, counts, published figures, weights and licences."""
    from piip import zoo
    from piip.profile.zoo_table import CAPTION, tables

    entries = zoo.matching(pattern)
    if as_json:
        print(json.dumps([zoo.as_dict(entry) for entry in entries], indent=2))
        return
    for table in tables(entries):
        out.print(table)
    out.print(CAPTION, style="dim", highlight=False)


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="Name of a model, or a path to weights.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one object.")] = False,
    size: Annotated[int | None, typer.Option(help="Side of the image in pixels; default: as published.")] = None,
) -> None:
    """Show a model's branches, parameters and multiply-adds, as the paper counts them and as it runs."""
    from piip import profile
    from piip.profile.table import report

    facts = profile.info(name, size)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    _show(report(facts))


@app.command()
def benchmark(
    name: Annotated[str, typer.Argument(help="Name of a model (random weights), or a path to weights.")],
    size: Annotated[int | None, typer.Option(help="Side of the image in pixels; default: as published.")] = None,
    batch: Annotated[int, typer.Option(help="Images at a time.")] = 1,
    compile_: Annotated[bool, typer.Option("--compile", help="With torch.compile.")] = False,
    train_: Annotated[bool, typer.Option("--train", help="Forward and backward, not inference.")] = False,
    fold: Annotated[bool, typer.Option(help="Fold linear maps for inference, as `predict` does.")] = True,
    rounds: Annotated[int, typer.Option(help="Measurements; medians are printed.")] = 5,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object, see docs/speed.md.")] = False,
) -> None:
    """Measure seconds, multiply-adds, memory and the share of the machine's roof, and where the time goes."""
    from piip.benchmark import benchmark as measure
    from piip.benchmark.table import report

    figures = measure(name, size, batch, compile_, train_, fold, rounds, device)
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    _show(report(figures))


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="An official .pth or .pt file; with --to-official, our weights.")],
    target: Annotated[Path, typer.Argument(help="A new folder; with --to-official, a new .pth file.")],
    official: Annotated[Path | None, typer.Option("--config", help="The official config, resolved, as JSON.")] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model instead, see `piip models`.")] = None,
    to_official: Annotated[bool, typer.Option("--to-official", help="Convert ours to the official layout.")] = False,
) -> None:
    """Convert official weights (mmdetection, mmsegmentation, classification, DeepSpeed) to ours, or back."""
    from piip.weights.official import convert as conversion

    if to_official and (official is not None or model is not None):
        raise ValueError("--to-official takes no --config and no --model: our weights hold their config")
    done = (
        conversion.to_official(source, target) if to_official else conversion.to_ours(source, target, official, model)
    )
    values = f"{done.parameters / 1e6:.1f} million values"
    say(out, f"{done.model.name}: {done.tensors} tensors, {values}, written to {done.path}")


@data_app.command("check")
def data_check(
    path: Annotated[Path, typer.Argument(help="Data set: a folder, or a COCO json or CSV file.")],
    json_file: Annotated[Path, typer.Option("--json", help="Where to write the findings.")] = Path("data_check.json"),
) -> None:
    """Say what is in a data set, what was repaired and what was left out; exit code 1 if there are errors."""
    from piip.tasks import check_data

    reports = check_data(path)
    for split, report in reports.items():
        out.print(report.table(split))
    json_file.write_text(json.dumps({split: report.to_dict() for split, report in reports.items()}, indent=2))
    say(out, f"written to {json_file}")
    if any(report.errors for report in reports.values()):
        raise typer.Exit(1)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the data and the run.")] = Path("runs/demo"),
    epochs: Annotated[int | None, typer.Option(help="Fewer are faster and worse.")] = None,
) -> None:
    """Generate a small data set, train the nano Mask R-CNN on it, evaluate it and draw what it finds."""
    from piip.demo import run_demo

    run_demo(output, epochs)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Print the version."""
    if show:
        from piip import __version__

        print(__version__)
        raise typer.Exit


def main() -> None:
    """The `piip` command: wrong input is one line on standard error and exit code 2, not a traceback."""
    try:
        app()
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        say(err, f"Error: {_text(error)}", "bold red")
        sys.exit(2)


def _show(parts: Iterable[RenderableType]) -> None:
    for part in parts:
        if isinstance(part, str):
            say(out, part)
        else:
            out.print(part, highlight=False)


def _text(error: Exception) -> str:
    import pydantic

    from piip.config.errors import problems

    return problems(error) if isinstance(error, pydantic.ValidationError) else str(error)


def _given(**options: Any) -> dict[str, Any]:
    """The options that were used."""
    return {name: value for name, value in options.items() if value is not None}


def _weights(weights: Path, model: str | None) -> Path:
    """Where the weights are; `model` is for released ones only, all others know theirs."""
    found, unused = _official(weights, model)
    if unused is not None:
        raise ValueError(f"--model {unused}: only with --weights official; these weights know their model")
    return found or weights


def _official(weights: Path | None, model: str | None) -> tuple[Path | None, str | None]:
    """`--weights official --model NAME` as the path of the released weights; anything else as it is."""
    from piip.weights import hub

    if weights is None or str(weights) != hub.OFFICIAL:
        return weights, model
    return hub.resolve(weights, model), None


OPTIONS = ("data", "device", "epochs", "image_size", "name", "output")
"""what has options of its own and is not one of the other settings"""


def key_values(pairs: list[str]) -> dict[str, Any]:
    """KEY=VALUE with the value read as YAML; KEY.PART=VALUE sets a part of `augmentation` or of the model's `head`."""
    import yaml

    values: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not text:
            raise ValueError(f"--set {pair}: write KEY=VALUE, for example --set layer_decay=0.9 (null is none)")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"--set {pair}: the value is not readable as YAML") from error
        key, _, part = key.replace("-", "_").partition(".")
        if key in OPTIONS:
            raise ValueError(f"--set {pair}: use the option --{key.replace('_', '-')}")
        if not part:
            values[key] = value
        elif isinstance(values.setdefault(key, {}), dict):
            values[key][part] = value
        else:
            raise ValueError(f"--set {pair}: {key} was set to {values[key]!r} before, which has no parts")
    return values
