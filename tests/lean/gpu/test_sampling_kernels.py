"""What needs neither a GPU nor Triton, and a first look at the kernels; the whole is in `test_sampling_on_gpu`."""

import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from piip.lean.gpu import sampling as module
from piip.lean.gpu.sampling import KernelSampling
from piip.ops.deformable_attention import deformable_attention

GIVEN = torch.rand(1, 6, 2, 3), [(2, 3)], torch.rand(1, 4, 2, 1, 2, 2), torch.rand(1, 4, 2, 1, 2)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_kernels_in_the_interpreter() -> None:
    """In a process of its own: Triton asks for its interpreter when it is imported."""
    tests = Path(__file__).with_name("test_sampling_on_gpu.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "any_head_size and 6", str(tests)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
    assert "1 passed" in ended.stdout


def test_on_a_cpu_it_is_the_plain_path_to_the_bit() -> None:
    assert torch.equal(KernelSampling()(*GIVEN), deformable_attention(*GIVEN))


def test_without_triton_the_plain_path_runs_and_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEVICES", ("cpu",))
    monkeypatch.setattr(module, "kernels", lambda: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(KernelSampling()(*GIVEN), deformable_attention(*GIVEN))


def test_an_exporter_is_given_plain_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEVICES", ("cpu",))
    monkeypatch.setattr(module, "works", lambda *_: pytest.fail("asked for"))
    value, sizes, points, weights = GIVEN

    class Sampling(KernelSampling):
        def forward(self, value: Tensor, points: Tensor, weights: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(value, sizes, points, weights)

    exported = torch.export.export(Sampling(), (value, points, weights))
    assert "grid_sampler" in str(exported.graph)
    torch.jit.trace(Sampling(), (value, points, weights), check_trace=False)
