"""The demo: a data set made on the spot, a nano Mask R-CNN trained on it, its score and its pictures."""

from __future__ import annotations

from pathlib import Path

from piip import tasks
from piip.api import PIIP
from piip.console import Terminal, say
from piip.data.synthetic import make_scenes

MODEL = "piip_nano_mask_rcnn"
IMAGE_SIZE = 192
TRAIN_IMAGES, VAL_IMAGES = 180, 40
EPOCHS = 4


def run_demo(output: Path, epochs: int | None = None) -> None:
    """Everything below `output`: the data in `scenes`, the run in `detection/demo`."""
    console = Terminal()
    say(console, f"[1/3] drawing {TRAIN_IMAGES + VAL_IMAGES} scenes into {output / 'scenes'}")
    data = make_scenes(output / "scenes", train=TRAIN_IMAGES, val=VAL_IMAGES, seed=0, size=(IMAGE_SIZE, IMAGE_SIZE))
    say(console, f"[2/3] training {MODEL} on them")
    model = PIIP(MODEL)
    result = model.train(
        data,
        epochs or EPOCHS,
        output=output,
        name="demo",
        image_size=IMAGE_SIZE,
        augmentation={"flip": 0.5},  # there is no shortage of scenes, so nothing harder than the scenes themselves
        eval_interval=2,
        workers=0,
    )
    say(console, "[3/3] evaluating the best weights")
    metrics = model.val(data)  # its files are in the run's folder already
    for table in tasks.of(model.config).tables(metrics):
        console.print(table)
    say(console, f"curves:      {result.folder / 'curves.png'}")
    say(console, f"predictions: {result.folder / 'val'}/*.jpg")
    say(console, f"weights:     {result.best_weights or result.last_weights}")
