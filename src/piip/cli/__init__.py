"""The command line: `piip train | val | predict | serve | models | settings | info | benchmark | ...`.

A file per verb. Heavy imports live inside the commands, so that `piip --help` answers at once. Exit codes: 0 done,
1 some images could not be read, `data check` found errors, or an exported file is unlike its model, 2 wrong use or
wrong input (one line says what), 3 a training ended by something unforeseen, such as too little memory (one line says
what to change), 4 anything else unforeseen (one line, and a log file with the details), 128 + n ended by signal n.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from piip.cli import (
    benchmark,
    compare,
    convert,
    data,
    demo,
    design,
    explain,
    export,
    info,
    models,
    predict,
    serve,
    settings,
    train,
    val,
)
from piip.cli.unforeseen import EXIT_CODE as UNFORESEEN
from piip.cli.unforeseen import explained
from piip.console import PIIPWarning, Terminal, say
from piip.training.failures import EXIT_CODE, TrainingFailure

app = typer.Typer(
    help="Parameter-Inverted Image Pyramid Networks: train, evaluate and use detectors, segmentors and classifiers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(train.train)
app.command()(val.val)
app.command()(compare.compare)
app.command()(predict.predict)
app.command()(serve.serve)
app.command()(models.models)
app.command()(settings.settings)
app.command()(info.info)
app.command()(benchmark.benchmark)
app.command()(design.design)
app.command()(convert.convert)
app.command()(explain.explain)
app.command()(export.export)
app.command()(demo.demo)

data_app = typer.Typer(help="Look at data sets, convert them, cut them into tiles.", no_args_is_help=True)
data_app.command("check")(data.check)
data_app.command("convert")(data.convert)
data_app.command("tile")(data.tile)
app.add_typer(data_app, name="data")


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Print the version."""
    if show:
        from piip.version import __version__

        print(__version__)
        raise typer.Exit


def main() -> None:
    """The `piip` command: whatever goes wrong is one line on standard error and an exit code, not a traceback."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_warn, warnings.showwarning)
            app()
    except Exception as error:
        sys.exit(_end(error))


def _warn(usual: Callable[..., object], message: Warning | str, category: type[Warning], *where: Any) -> None:
    """This package's warnings as lines, others as Python shows them."""
    if issubclass(category, PIIPWarning):
        say(Terminal(stderr=True), f"Warning: {message}", "bold yellow")
    else:
        usual(message, category, *where)


def _end(error: Exception) -> int:
    """Say what went wrong, once where several processes meet it; returns the exit code."""
    from piip.training import peers

    if isinstance(error, (ValueError, OSError, FloatingPointError, ImportError)):
        text, code = _text(error), 2
    elif isinstance(error, TrainingFailure):
        text, code = str(error), EXIT_CODE
    elif (gone := peers.lost(error)) is not None:
        text, code = gone, EXIT_CODE
        error = peers.PeersLost(gone)
    else:
        text, code = explained(error), UNFORESEEN
    if peers.may_speak(error, text):
        say(Terminal(stderr=True, everywhere=True), f"Error: {text}", "bold red")
    return code


def _text(error: Exception) -> str:
    import pydantic

    from piip.config.errors import problems

    return problems(error) if isinstance(error, pydantic.ValidationError) else str(error)
