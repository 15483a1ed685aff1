"""Where tests of Triton's kernels run: on a GPU where there is one, else in Triton's interpreter, else nowhere."""

import importlib.util
import os

import pytest
import torch

from piip.inference.gpu import blocks
from piip.lean.gpu import sampling

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
RUN_SOMEWHERE = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed"),
    pytest.mark.skipif(DEVICE.type == "cpu" and not INTERPRETED, reason="no GPU, and TRITON_INTERPRET=1 is not set"),
]


@pytest.fixture(autouse=True)
def nothing_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test tries the kernels anew, and on a CPU too. To be imported where it is wanted."""
    monkeypatch.setattr(sampling, "_TRIED", {})
    monkeypatch.setattr(sampling, "DEVICES", (DEVICE.type,))
    monkeypatch.setattr(blocks, "_kept", {})
