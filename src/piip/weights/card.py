"""A model's card: the README.md of a saved folder, which the Hugging Face Hub shows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import timm

from piip import config, zoo
from piip.console import counted, shortened
from piip.files import atomic_write, write_json

CARD = "README.md"
FACTS = "trained.json"
"""beside the weights: what the card tells of their training"""
MARK = "<!-- written by piip; without this line it is yours and is left alone -->"
LISTED = 100
"""class names"""
PIPELINES = {
    "detection": "object-detection",
    "segmentation": "image-segmentation",
    "classification": "image-classification",
}
CITATION = """```bibtex
@inproceedings{piip,
  title = {Parameter-Inverted Image Pyramid Networks},
  author = {Zhu, Xizhou and Yang, Xue and Wang, Zhaokai and Li, Hao and Dou, Wenhan and Ge, Junqi and Lu, Lewei and
            Qiao, Yu and Dai, Jifeng},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2024}
}
```"""


@dataclass(frozen=True)
class Facts:
    """What is known of how weights were trained: numbers and names, and no path of anybody's disk."""

    images: dict[str, int]
    """in each split"""
    objects: dict[str, int] = field(default_factory=dict)
    """annotated, in each split; empty for tasks without objects"""
    epochs: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    """on the split of the evaluation; empty where there was none"""
    tiles: int | None = None
    """side, in pixels of the image, of the tiles in which these images were predicted; None: whole"""


def read_facts(weights: Path) -> Facts | None:
    """What lies beside a file of weights; None where there is nothing that can be read."""
    try:
        return Facts(**json.loads((weights.parent / FACTS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_card(folder: Path, described: config.Model, facts: Facts | None = None, licence: str | None = None) -> None:
    """Write `README.md`, and the facts beside it, unless a README.md is there that somebody wrote by hand."""
    if facts is not None:
        write_json(folder / FACTS, asdict(facts), indent=2)
    card = folder / CARD
    if card.exists() and MARK not in card.read_text(encoding="utf-8", errors="replace"):
        return
    with atomic_write(card) as temporary:
        temporary.write_text(model_card(described, licence, facts), encoding="utf-8")


def model_card(model: config.Model, licence: str | None = None, facts: Facts | None = None) -> str:
    """What the model is, what it tells apart, on what it was trained, how good it is, how to use and to cite it."""
    lines = ["---", "library_name: piip", f"pipeline_tag: {PIPELINES[model.task]}"]
    lines += [f"license: {licence.lower()}"] if licence else []
    lines += ["tags: [piip, computer-vision]", "---", MARK, "", f"# {_plain(model.name)}", ""]
    lines += [f"A PIIP model for {model.task} with {len(model.classes)} classes, written by the Python package `piip`."]
    lines += ["", "| branch | architecture | image | depth | width |", "|---|---|---|---|---|"]
    lines += [
        f"| {index} | {branch.model or branch.family} | {branch.size} | {branch.depth} | {branch.width} |"
        for index, branch in enumerate(model.backbone.branches)
    ]
    side = f"{model.preprocess.long_side} x {model.preprocess.short_side}"
    lines += ["", f"Images are resized to at most {side} pixels.", "", "```python", "import piip", ""]
    lines += ['model = piip.PIIP("path/to/this/folder")  # on the Hub: piip.PIIP.from_pretrained("this/repository")']
    lines += ['result = model.predict("image.jpg")', "```", ""]
    lines += [f"Classes: {shortened([_plain(name) for name in model.classes], LISTED)}.", ""]
    lines += [*_training(facts), *_licences(model)]
    lines += ["Method: Parameter-Inverted Image Pyramid Networks, Zhu et al., NeurIPS 2024 (arXiv 2406.04330).", ""]
    return "\n".join([*lines, CITATION, ""])


def _training(facts: Facts | None) -> Iterator[str]:
    if facts is None:
        return
    yield "## Training and evaluation\n"
    splits = (
        f"{split}: {counted(images, 'image')}"
        + (f" with {counted(facts.objects[split], 'object')}" if split in facts.objects else "")
        for split, images in facts.images.items()
    )
    yield f"{'; '.join(splits)}. {counted(facts.epochs, 'epoch')}.\n"
    if facts.metrics:
        if facts.tiles is not None:
            yield f"Evaluated in tiles of {facts.tiles} pixels, as by `predict(..., tiles={facts.tiles})`:\n"
        yield "| metric | |\n|---|---|"
        yield from (f"| {name} | {value:.4f} |" for name, value in facts.metrics.items())
        yield ""


def _licences(model: config.Model) -> Iterator[str]:
    """Of what its branches may have begun as: the published model's, or timm's weights of these names."""
    entry = zoo.MODELS.get(model.name)
    known: Mapping[str, str] = {}
    if entry is not None and entry.pretraining:
        known = {label: name for label, name in entry.licences.items() if label != "checkpoint"}
    named = {branch.model for branch in model.backbone.branches if branch.model is not None}
    known = known or {name: _timm_licence(name) for name in sorted(named)}
    if known:
        listed = ", ".join(f"{label} ({name})" for label, name in known.items())
        origin = "as in the published model" if entry is not None else "as timm's weights"
        yield f"If its branches began {origin}: {listed}. Their licences apply.\n"


def _timm_licence(name: str) -> str:
    described: Any = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return (described.license if described is not None else None) or "licence not stated by timm"


def _plain(text: str) -> str:
    """A name as Markdown shows it, in one line."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
