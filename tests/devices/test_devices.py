"""Models on another device than the CPU: nothing is left behind, results are equal, and little makes the host wait.

There is no GPU here; see `tests.devices.pretend` for what is there instead.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.inference.test_fold import BACKBONES, HEADS
from torch.utils import backend_registration

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this PyTorch cannot register a device in Python",
)
FEW = ("deit", "hybrid")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    return subprocess.run([sys.executable, *arguments], check=False, capture_output=True, text=True, cwd=root)


def waits(head: str, backbones: Sequence[str]) -> dict[str, dict[str, int]]:
    run = python("-m", "tests.devices.steps", head, *backbones)
    assert run.returncode == 0, run.stderr
    found: dict[str, dict[str, int]] = json.loads(run.stdout)
    return found


@pytest.mark.parametrize("head", HEADS)
def test_steps_and_predictions_are_equal_and_wait_for_nothing_but_what_they_must(head: str) -> None:
    found = waits(head, FEW)
    training, prediction = found["training"], found["prediction"]
    if head == "mask_rcnn":  # sampling and suppression are of unknown size
        assert all(" in heads/" in place or " in lean/roi_align.py" in place for place in training)
        assert sum(training.values()) <= 20
    elif head == "dino":  # the check of the targets, the costs, and back with the assignment
        assert sorted(place.partition(":")[0] for place in training) == [
            "copy in heads/dino/matching.py",
            "copy in heads/dino/matching.py",
            "values in heads/targets.py",
        ]
    else:
        assert training == {}
    if head != "mask_rcnn":  # images in, results out; before that, whether a weight changed
        assert {place.partition(":")[0] for place in prediction} == {
            "copy in structures.py",
            "copy in prediction/predictor.py",
            "values in inference/fingerprint.py",
        }


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_all_backbones(head: str) -> None:
    waits(head, list(BACKBONES))


def test_the_pretended_device_refuses_what_gpus_refuse() -> None:
    program = """
import torch
from tests.devices import pretend
keep = pretend.register()
with pretend.pretend_device() as device:
    x = torch.ones(3, device=device)
    assert (x + 1).sum().item() == 6.0
    for wrong in (lambda: x + torch.ones(3), lambda: torch.ones(3)[x > 0], lambda: x.double(), lambda: x.numpy()):
        try:
            wrong()
        except (RuntimeError, TypeError):
            continue
        raise SystemExit("not refused")
    pretend.waits.clear()
    x[x > 0], x.cpu(), torch.tensor([1.0], device=device), x[[0, 2]], x.nonzero(), x * 2, x[1:]
    assert sum(pretend.waits.values()) == 5, pretend.waits
    assert all(place.endswith(" in ?") for place in pretend.waits), "no line of the package asked for these"
"""
    run = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert run.returncode == 0, run.stderr
