"""Every named model, as a function of its name: branches, resolutions, head, recipe, published facts."""

from __future__ import annotations

import difflib
import fnmatch

from piip.zoo.branches import PRETRAININGS
from piip.zoo.classification import CLASSIFICATION
from piip.zoo.convnext import CONVNEXT
from piip.zoo.detection import BASELINES, DEIT, PRETRAINED_SBL
from piip.zoo.entries import Entry, as_dict
from piip.zoo.internvit import DINO, MASK_RCNN
from piip.zoo.nano import NANO
from piip.zoo.segmentation import SEGMENTATION

__all__ = [
    "MODELS",
    "PRETRAININGS",
    "Entry",
    "as_dict",
    "entry",
    "list_models",
    "matching",
]

_FAMILIES = (
    NANO,
    DEIT,
    BASELINES,
    PRETRAINED_SBL,
    MASK_RCNN,
    DINO,
    CONVNEXT,
    SEGMENTATION,
    CLASSIFICATION,
)

MODELS: dict[str, Entry] = {entry.name: entry for family in _FAMILIES for entry in family}


def list_models(pattern: str = "*", task: str | None = None, pretrained: bool = False) -> list[str]:
    """Names that match a shell-style pattern, such as "*tsb*"; a plain word matches anywhere in the name.

    `task`: "detection", "segmentation" or "classification" only; `pretrained`: only those with released weights.
    ValueError for another task.
    """
    if task is not None and task not in (known := {entry.task for entry in MODELS.values()}):
        raise ValueError(f"task {task!r}: use one of {', '.join(sorted(known))}")
    if not any(character in pattern for character in "*?["):
        pattern = f"*{pattern}*"
    found = [entry for name, entry in MODELS.items() if fnmatch.fnmatch(name, pattern)]
    return [
        entry.name for entry in found if task in (None, entry.task) and (entry.checkpoint is not None or not pretrained)
    ]


def matching(pattern: str, task: str | None = None, pretrained: bool = False) -> list[Entry]:
    """The entries that `list_models` names; ValueError with near names where there are none."""
    entries = [MODELS[name] for name in list_models(pattern, task, pretrained)]
    if not entries:
        raise ValueError(f"no model's name matches {pattern!r}; {_hint(pattern)}")
    return entries


def entry(name: str) -> Entry:
    """The zoo's entry of that name; ValueError with near names for a typing mistake."""
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; {_hint(name)}")
    return MODELS[name]


def _hint(name: str) -> str:
    near = difflib.get_close_matches(name, MODELS, n=4, cutoff=0.5)
    if not near:  # perhaps a part of a name
        near = [model for model in MODELS if difflib.get_close_matches(name, [model[: len(name)]], cutoff=0.75)][:4]
    return f"did you mean {', '.join(near)}?" if near else "`piip models` lists all names"
