"""What the machine can do, what it is, and how much memory a piece of work takes."""

from __future__ import annotations

import ctypes
import gc
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

MATRIX = 2048
"""side of the square matrices whose product is the roof"""
PRODUCTS = 5
"""products per measurement of the roof; the median counts"""


def now(device: torch.device) -> float:
    """Seconds, after all work on `device` has been done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Roof:
    """The rate of a matrix product, to be measured in turn with a model, because the rate of a machine drifts."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.a, self.b = (torch.randn(MATRIX, MATRIX, device=device) for _ in range(2))
        self.out = torch.empty_like(self.a)

    def rate(self) -> float:
        """Giga-multiply-adds per second in float32."""
        return MATRIX**3 / 1e9 / statistics.median(self._seconds() for _ in range(PRODUCTS))

    def _seconds(self) -> float:
        began = now(self.device)
        torch.matmul(self.a, self.b, out=self.out)
        return now(self.device) - began


def describe(device: torch.device) -> dict[str, Any]:
    """Processor, threads or GPU, and versions."""
    facts = {"processor": _processor(), "threads": torch.get_num_threads(), "device": str(device)}
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    if device.type == "cpu":
        facts["instructions"] = torch.backends.cpu.get_cpu_capability()
    return facts | {"system": f"{platform.system()} {platform.machine()}", "torch": torch.__version__}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1] for line in info.read_text().splitlines() if line.startswith("model name")] if (
        info.exists()
    ) else []  # fmt: skip
    return names[0].strip() if names else platform.processor() or platform.machine()


def peak_memory(work: Callable[[], Any], device: torch.device) -> float | None:
    """GB that `work` takes beyond what is held before it, at the highest; None where that cannot be told."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e9
    _give_back_freed_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew
    except OSError:
        return _growth_of_peak(work)
    before = _resident("VmRSS")
    work()
    return (_resident("VmHWM") - before) / 1e6


def _resident(name: str) -> int:
    """Kilobytes of resident memory now (VmRSS) or at the peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name)))


def _growth_of_peak(work: Callable[[], Any]) -> float | None:
    """Of the whole process: too little where something before took more. None on Windows, which does not tell."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit / 1e9


def _give_back_freed_memory() -> None:
    """What was freed would otherwise be taken again without being seen (glibc)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return
