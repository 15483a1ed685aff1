"""Writes the pages of the reference that follow from the code: commands, settings, models. `make docs` runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from piip import zoo
from piip.api import PIIP
from piip.cli import app
from piip.profile.zoo_table import METRICS, published_count
from piip.training.listed import Listed, listed

HERE = Path(__file__).parent
NANO = ("piip_nano_mask_rcnn", "piip_nano_dino", "piip_nano_upernet", "piip_nano_classifier")


def main() -> None:
    write("commands.md", commands())
    write("settings.md", settings())
    write("models.md", models())


def write(name: str, lines: Iterator[str]) -> None:
    (HERE / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def commands() -> Iterator[str]:
    """A section per verb, with every option."""
    yield "# Commands\n\nWritten from the code. `piip COMMAND --help` says the same. What exit codes mean is in"
    yield "[Questions](../questions.md).\n"
    yield from _group(typer.main.get_command(app), None, "piip")


def _group(group: Any, parent: Any, name: str) -> Iterator[str]:
    context = group.make_context(name, [], parent=parent, resilient_parsing=True)
    for inner, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _group(command, context, inner)
        else:
            yield from _command(command, command.make_context(inner, [], parent=context, resilient_parsing=True))


def _command(command: Any, context: Any) -> Iterator[str]:
    yield f"## {context.command_path}\n\n{command.help or ''}\n"
    yield f"```\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
    rows = [parameter for parameter in command.get_params(context) if "--help" not in parameter.opts]
    if not rows:
        return
    yield "| | | default |\n|---|---|---|"
    for parameter in rows:
        argument = parameter.param_type_name == "argument"
        spelled = ", ".join((*parameter.opts, *parameter.secondary_opts))
        name = ((parameter.metavar or str(parameter.name).upper()) if argument else spelled).replace("|", "\\|")
        yield f"| `{name}` | {_cell(getattr(parameter, 'help', None) or '')} | {_cell(_default(parameter))} |"
    yield ""


def _default(parameter: Any) -> str:
    """As one would write it; of a switch the spelling that holds without it, nothing for one that is off."""
    value = parameter.default
    if value is True:
        return f"`{parameter.opts[0]}`"
    return "" if value in (None, ()) or value is False or callable(value) else str(value)


def settings() -> Iterator[str]:
    """Settings of a training, then the augmentation and the head of each task."""
    yield "# Settings\n\nOf a training: `--set KEY=VALUE` on the command line, `train(KEY=VALUE)` in Python,"
    yield "`training:` in the file of a pyramid of your own. Values are the recipe's; `piip settings WORD` searches.\n"
    for index, name in enumerate(NANO):
        held = PIIP(name)
        found = listed(held.training_settings("DATA"), held.config.head)
        if index == 0:
            yield from _rows("All tasks", name, [one for one in found if "." not in one.name])
        parts = [one for one in found if one.name.startswith("augmentation.")]
        yield from _rows(f"{held.config.task} with {type(held.config.head).__name__}: images", name, parts)
        parts = [one for one in found if one.name.startswith("head.")]
        yield from _rows(f"{type(held.config.head).__name__}: head", name, parts)


def _rows(title: str, model: str, found: list[Listed]) -> Iterator[str]:
    yield f"## {title}\n\n| setting | of `{model}` | |\n|---|---|---|"
    for one in found:
        yield f"| `{one.name}` | {_cell(str(one.value))} | {_cell(one.text)} |"
    yield ""


def models() -> Iterator[str]:
    """Every model by name, with the paper's figures."""
    yield "# Models\n\n#Param (millions) and #FLOPs (billions of multiply-adds) are counted as the paper counts them;"
    yield "the accuracies are the paper's and were not measured here, see [What is verified](../verified.md)."
    yield "`piip models` prints the same, `piip info NAME` counts every part.\n"
    for task, (keys, metric) in METRICS.items():
        yield f"## {task}\n\n| name | branches | #Param | #FLOPs | {metric} | released weights |"
        yield "|---|---|---|---|---|---|"
        for entry in zoo.matching("*", task):
            count = published_count(entry)
            branches = ", ".join(f"{a} {b}" for a, b in zip(entry.letters, entry.image_sizes, strict=True))
            figures = " / ".join(str(entry.published[key]) for key in keys if key in entry.published) or "-"
            released = "yes" if entry.checkpoint else "-"
            yield (
                f"| `{entry.name}` | {branches} | {count.params / 1e6:.0f} | {count.macs / 1e9:.0f} | {figures} "
                f"| {released} |"
            )
        yield ""


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


if __name__ == "__main__":
    main()
