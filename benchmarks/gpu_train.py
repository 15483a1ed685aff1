"""A nano Mask R-CNN trained on real images until the time is over, and its AP. See `gpu.py`."""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import piip

Row = dict[str, Any]

EPOCHS = 40
FOR_EVALUATION = 20
"""seconds before the deadline when the training must stop"""


def train(arguments: argparse.Namespace) -> Iterator[Row]:
    """One row."""
    if arguments.data is None:
        yield {"what": "training", "note": "not run: no --data"}
        return
    cuda = arguments.device.type == "cuda"
    began = time.monotonic()
    stop = threading.Timer(max(1.0, arguments.deadline - began - FOR_EVALUATION), os.kill, (os.getpid(), signal.SIGINT))
    stop.daemon = True
    stop.start()
    model = piip.PIIP("piip_nano_mask_rcnn", str(arguments.device))
    result = model.train(
        arguments.data,
        1 if arguments.quick else EPOCHS,
        output=arguments.output,
        name=f"train-{os.getpid()}",
        workers=8 if cuda else 0,
        batch_size=16 if cuda else 2,
        precision="bf16" if cuda else "fp32",
        eval_interval=EPOCHS,
    )
    stop.cancel()
    row = {
        "what": "training",
        "end": result.end,
        "epochs": len(result.history),
        "seconds": round(time.monotonic() - began),
    }
    metrics = piip.PIIP(result.folder, str(arguments.device)).val(arguments.data, workers=4)
    yield row | {name: round(value, 4) for name, value in metrics.scalars().items()}
