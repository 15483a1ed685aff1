"""The demo itself: draw, fine-tune the weights that come with piip on one fruit more, score, and show what is found."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from piip.api import PIIP
from piip.console import Terminal, say
from piip.data.fruit.scenes import make_fruit
from piip.demo.model import KNOWN, NEW, RECIPE, WEIGHTS
from piip.training.accelerator import require_libraries
from piip.weights.errors import WeightsError

TRAIN_IMAGES, VAL_IMAGES = 160, 48
EPOCHS = 7
OVERLAP = 0.35
"""of boxes for one fruit: lower than where the weights come from, as a fruit that is new has less exact ones"""
SEED = 0
"""of the scenes; the weights were trained on scenes of another"""

FINE_TUNING: dict[str, Any] = RECIPE | {
    "warmup_iters": 20,
    "ema": 0.98,
    "head": {"nms_threshold": OVERLAP},
    "eval_interval": EPOCHS,
}


def run_demo(output: Path, epochs: int | None = None) -> None:
    """Everything below `output`: the data in `fruit`, the run in `detection/demo`.

    Raises WeightsError where the weights that come with piip are missing or damaged.
    """
    require_libraries()
    model = shipped()
    console = Terminal()
    say(console, f"[1/2] drawing {TRAIN_IMAGES + VAL_IMAGES} pictures of fruit into {output / 'fruit'}")
    data = make_fruit(output / "fruit", train=TRAIN_IMAGES, val=VAL_IMAGES, seed=SEED)
    say(console, "[2/2] fine-tuning a pyramid of three small ConvNeXts on them. It begins with weights that come with "
                 f"piip, trained on other scenes (benchmarks/demo_weights.py), none with a {NEW}: that is new to "
                 "it")  # fmt: skip
    result = model.train(data, epochs or EPOCHS, output=output, name="demo", **FINE_TUNING)
    say(console, learnt(result.folder / "val" / "metrics.json"))
    say(console, f"curves:      {result.folder / 'curves.png'}")
    say(console, f"predictions: {result.folder / 'val'}/*.jpg, beside what was to be found")
    say(console, f"weights:     {result.best_weights or result.last_weights}")


def learnt(metrics: Path) -> str:
    """In a line, how well the new fruit is found, and those that the weights knew."""
    scores = {row["class"]: row["box_AP"] for row in json.loads(metrics.read_text(encoding="utf-8"))["classes"]}
    known = fmean(scores[name] for name in KNOWN)
    return f"box AP:      {100 * scores[NEW]:.1f} of {NEW}, new here; {100 * known:.1f} of the others, a mean"


def shipped(weights: Path = WEIGHTS) -> PIIP:
    """The model that the demo begins with, loaded; WeightsError with what to do where its file is not whole."""
    try:
        model = PIIP(weights)
        model.model.eval()
    except WeightsError as error:
        raise WeightsError(f"{error}. The demo begins with this file, which comes with piip: install piip again, or "
                           "make it with `python benchmarks/demo_weights.py`, in a checkout") from None  # fmt: skip
    return model
