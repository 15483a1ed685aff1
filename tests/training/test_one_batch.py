"""Several processes learn what one learns from the batch of all: the gradients of every head."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")


def test_gradients_of_every_head_are_those_of_one_batch(tmp_path: Path) -> None:
    """Of five images, which differ in size and objects and are three and two, and of one, which only one has."""
    script = Path(__file__).with_name("one_batch.py")
    paths = os.pathsep.join([str(script.parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(tmp_path)], text=True, env=environment, **pipes)
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    lines = [line.split() for out, _ in said for line in out.splitlines()]
    heads = {(name, images) for name, images, *_ in lines}
    assert heads == {(name, n) for name in ("mask_rcnn", "dino", "upernet", "classifier") for n in "51"}
    for name, images, gradient, statistics in lines:
        assert float(gradient) < 1e-5, (name, images)
        assert float(statistics) < 1e-5, (name, images)
