"""Which devices there are, and what their names mean: one rule for prediction, evaluation and training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

Device = str | int | torch.device
"""a name of torch's ("cpu", "cuda", "cuda:1", "mps"), the number of a GPU, or "auto": a GPU if there is one"""


def usual() -> torch.device:
    """The first CUDA GPU if there is one, else the CPU. Not a Mac's GPU, on which nothing was ever run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def available() -> list[str]:
    """The names of all devices here."""
    names = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return names + (["mps"] if torch.backends.mps.is_available() else [])


def named(device: Device | None) -> str:
    """The name of a device, whether it is here or not: 1 and "1" are "cuda:1", None is "auto".

    >>> named(1), named("cpu"), named(None)
    ('cuda:1', 'cpu', 'auto')
    """
    if device is None:
        return "auto"
    name = str(device).strip()
    return f"cuda:{name}" if name.isdecimal() else name


def find(device: Device | None = None) -> torch.device:
    """The device itself; ValueError, with the names that there are, where there is none of this name here."""
    name = named(device)
    if name == "auto":
        return usual()
    try:
        found = torch.device(name)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # torch's own texts are pages long
        raise ValueError(f"device {name!r} is not available here; use one of {', '.join(available())}") from error
    return found


@contextmanager
def float32_by_default() -> Iterator[None]:
    """Inside the block, or the function that this decorates, new tensors are of float32, whatever the user's default.

    Models are built, run and trained so after `torch.set_default_dtype(torch.float64)`, too; whoever wants a model in
    float64 calls its `double()`.
    """
    before = torch.get_default_dtype()
    if before == torch.float32:
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
