"""An evaluation by two processes: as a script, `shared_evaluation.py RANK FOLDER`, after FOLDER was filled."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import torch
from tests import tiny
from tests.data.class_folders import write_classes
from tests.tasks.test_evaluation_batches import boxes, detector, masks, segmentor

from piip import processes, tasks
from piip.model import PIIPModel

KINDS = ("detection", "segmentation", "classification")


def classifier() -> PIIPModel:
    torch.manual_seed(0)
    return PIIPModel(tiny.classifier()).eval()


MODELS = dict(zip(KINDS, (detector, segmentor, classifier), strict=True))


def fill(folder: Path) -> None:
    boxes(folder / "detection")
    masks(folder / "segmentation")
    write_classes(folder / "classification" / "val", count=3)


def evaluate(folder: Path, name: str) -> None:
    """All tasks, in batches of two, to FOLDER/NAME/TASK; the metrics are printed."""
    for kind in KINDS:
        task, model = tasks.named(kind), MODELS[kind]()
        metrics = task.evaluate_to_folder(model, task.open_split(folder / kind, "val"), folder / name / kind, 2, 0)
        print(kind, sorted(metrics.scalars().items()), flush=True)


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    evaluate(folder, "two")
    try:
        with processes.stoppable(lambda: rank == 1):
            evaluate(folder, "stopped")
    except processes.StoppedTogether:
        print("stopped", flush=True)
    processes.leave()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
