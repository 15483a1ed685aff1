"""Two processes with an image each learn what one process learns from both images."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.slow,  # processes that import everything
    pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed"),
]

WORKER = """
import torch
from dino_models import batch, instances, tiny_model
from piip.structures import Batch

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
torch.manual_seed(0)
model = tiny_model(denoising_queries=0).train()
few = instances((10.0, 10, 60, 50))
many = instances(*((5.0 * i, 4.0 * i, 5.0 * i + 30, 4.0 * i + 20) for i in range(6)))
both = batch(few, many)
own = Batch(*(part[rank : rank + 1] for part in (
    both.images, both.image_sizes, both.original_sizes, both.targets, both.indices)))


def gradients(data):
    model.zero_grad()
    sum(model.loss(data).values()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


apart, together = gradients(own), gradients(both)
for name, gradient in apart.items():
    torch.distributed.all_reduce(gradient)
    scale = together[name].abs().max().clamp(min=1e-3)
    assert (gradient / 2 - together[name]).abs().max() <= 1e-3 * scale, name
print("equal", rank)
"""


def test_objects_weigh_the_same_on_every_process(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    here = Path(__file__).resolve()
    paths = [str(here.parent), str(here.parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=localhost:0", "--local-addr=localhost", str(script)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("equal") == 2
