"""What a training says before it begins: on what it trains, what, and how."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from piip import config, processes
from piip.console import Terminal, counted, say, shortened
from piip.model import PIIPModel
from piip.tasks import Data
from piip.training.freeze import trained
from piip.training.settings import Settings

NAMED_CLASSES = 8


def say_header(model: PIIPModel, opened: Mapping[str, Data], trained_on: int, settings: Settings, folder: Path) -> None:
    """Images and objects per split, classes, model, what of it is frozen, and how it is trained, on standard error.

    `trained_on`: images that an epoch has, where some are left out.
    """
    console = Terminal(stderr=True)
    splits = "; ".join(f"{name} {_in(data)}" for name, data in opened.items())
    of_all = len(opened["train"].images)
    kept = f" ({trained_on} of the {of_all} training images are trained on)" if trained_on != of_all else ""
    classes = model.config.classes
    say(console, f"data    {settings.data}: {splits}{kept}; {counted(len(classes), 'class')}: "
        f"{shortened(classes, NAMED_CLASSES)}")  # fmt: skip
    parameters = sum(parameter.numel() for parameter in model.parameters())
    sides = "/".join(str(side) for side in _sides(model.config))
    say(console, f"model   {model.config.name}: {parameters / 1e6:.1f} million parameters, "
        f"branches on up to {sides} pixels")  # fmt: skip
    if settings.frozen_parts:
        rest = trained(model, settings.frozen_parts) / 1e6
        say(console, f"frozen  {_frozen(settings)}: {rest:.1f} million parameters are trained"
            f"{'' if settings.lora is None else ', and the adapters'}")  # fmt: skip
    together = f", {settings.grad_accumulation} of them per step," if settings.grad_accumulation > 1 else ""
    side = settings.evaluated_in_tiles
    tiles = f", evaluated in tiles of {side} pixels" if side is not None and "val" in opened else ""
    say(console, f"how     {counted(settings.epochs, 'epoch')} in batches of {settings.batch_size}{together} on "
        f"{settings.device}, {settings.precision}, rate {settings.scaled_lr(processes.launched()):.3g} "
        f"({settings.schedule}), seed {settings.seed}{tiles}")  # fmt: skip
    say(console, f"where   {folder}")


def _frozen(settings: Settings) -> str:
    """The parts as they are named in settings, and where adapters are."""
    parts = [f"branch {part}" if part.isdigit() else part for part in settings.frozen_parts]
    lora = settings.lora
    adapters = "" if lora is None else f" (adapters of rank {lora.rank} on {', '.join(lora.targets)})"
    return ", ".join(dict.fromkeys(parts)) + adapters


def _sides(model: config.Model) -> list[int]:
    """The longest side of each branch's images: of whole ones, or of a segmentor's windows."""
    window = model.head.window if isinstance(model.head, config.UperNet) else None
    longest, branches = window or model.preprocess.long_side, model.backbone.branches
    return [round(longest * branch.size / branches[0].size) for branch in branches]


def _in(data: Data) -> str:
    """How much there is."""
    images = counted(len(data.images), "image")
    if not data.images or not hasattr(data.images[0], "objects"):
        return images
    return f"{images} with {counted(sum(len(image.objects) for image in data.images), 'object')}"
