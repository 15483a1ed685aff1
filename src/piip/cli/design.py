"""`piip design`: which pyramid to train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from piip.cli.options import Device, err, out
from piip.console import counted, say

if TYPE_CHECKING:
    from piip.designs import Proposal


def design(
    budget: Annotated[
        str | None, typer.Option(help="Multiply-adds of the backbone as it runs, such as 300G or 1.2T.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Or seconds of one image, measured on --device of this machine.")
    ] = None,
    like: Annotated[str | None, typer.Option(help="Or as many multiply-adds as this model, within 5 %.")] = None,
    data: Annotated[Path | None, typer.Option(help="Detection data: the sizes of its objects count.")] = None,
    split: Annotated[str, typer.Option(help="Of the data.")] = "train",
    family: Annotated[str, typer.Option(help="Pretrained ViTs: deit, augreg or dinov2.")] = "deit",
    head: Annotated[
        str | None, typer.Option(help="mask_rcnn, dino or upernet; default: as in --like, else mask_rcnn.")
    ] = None,
    count: Annotated[int, typer.Option(help="Proposals at most.")] = 3,
    output: Annotated[Path | None, typer.Option(help="New .yaml file for a proposal, which every verb takes.")] = None,
    pick: Annotated[int, typer.Option(help="Which proposal to write, from 1.")] = 1,
    pretrained: Annotated[bool, typer.Option(help="The written model begins as timm's weights.")] = True,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
) -> None:
    """Propose pyramids of pretrained models for a budget, ranked, with the reasons."""
    from piip.designs import design as propose
    from piip.files import refuse_taken

    if output is not None:
        refuse_taken([output], "choose another name")
    if seconds is not None:
        say(err, "measuring a small pyramid, then the first proposal: minutes on a CPU, best with nothing else running")
    proposals = propose(
        budget, seconds=seconds, device=device, like=like, data=data, split=split, family=family, head=head,
        count=count, pretrained=pretrained,
    )  # fmt: skip
    if not 1 <= pick <= len(proposals):
        raise ValueError(f"--pick {pick}: what was found is {counted(len(proposals), 'proposal')}")
    if as_json:
        print(json.dumps([proposal.as_dict() for proposal in proposals], indent=2))
    else:
        out.print(_table(proposals), highlight=False)
        _say_reasons(proposals)
    if output is not None:
        proposals[pick - 1].save(output)
        say(err, f"{output} describes proposal {pick}: piip train --model {output} --data DATA")


def _say_reasons(proposals: list[Proposal]) -> None:
    """Those of all proposals once, then each one's own."""
    shared = [reason for reason in proposals[0].reasons if all(reason in proposal.reasons for proposal in proposals)]
    say(out, "\nwhy", "bold")
    for reason in shared:
        say(out, f"- {reason}")
    for number, proposal in enumerate(proposals, start=1):
        for reason in proposal.reasons:
            if reason not in shared:
                say(out, f"{number}: {reason}")


def _table(proposals: list[Proposal]) -> Table:
    table = Table("", "models", "sizes", box=None, padding=(0, 2, 0, 0))
    titles = ["params", "as run", "with head", "as published", "rule's AP"]
    timed = proposals[0].seconds is not None
    for title in [*titles, *(["seconds"] if timed else [])]:
        table.add_column(title, justify="right")
    for number, proposal in enumerate(proposals, start=1):
        counts = proposal.counts
        cells = [
            str(number),
            proposal.config.name.partition("_")[0].upper(),
            "/".join(map(str, proposal.sizes)),
            f"{counts['params'] / 1e6:.0f} M",
            *(f"{counts[key]:.0f} G" for key in ("gmacs", "whole_model_gmacs", "published_gmacs")),
            f"{proposal.box_ap:.1f}",
        ]
        if proposal.seconds is not None:
            cells.append(f"{proposal.seconds:.2f}" + ("" if proposal.measured else " (estimated)"))
        table.add_row(*cells)
    return table
