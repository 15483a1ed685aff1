"""Checkpoints as other people's software writes them, made with stand-ins for its classes that are gone afterwards."""

import argparse
import datetime
import sys
import types
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch


class ConfigDict(dict):
    """As addict's and mmcv's: a dictionary that is pickled with its items as arguments and again as its state."""

    def __getnewargs__(self) -> Any:
        return tuple(self.items())

    def __getstate__(self) -> Any:
        return dict(self)

    def __setstate__(self, state: Any) -> None:
        self.update(state)


class CalledConfigDict(dict):
    """As mmengine's: made by a call."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self), (dict(self),), None, None, None


class HistoryBuffer:
    """As mmengine's, with methods among its attributes."""

    def __init__(self) -> None:
        self._log_history = np.array([0.5, 0.25])
        self._count_history = np.array([1, 1])
        self._statistics_methods = {"mean": HistoryBuffer.mean}

    def mean(self) -> float:
        return float(self._log_history.mean())


class LossScaler:
    """As DeepSpeed's: an ordinary object."""

    def __init__(self) -> None:
        self.cur_scale = 1024.0


@contextmanager
def pretended(module: str, kind: type, name: str | None = None) -> Iterator[type]:
    """`kind` as a class of a package that is not installed."""
    name = name or kind.__name__
    parents = [".".join(module.split(".")[: i + 1]) for i in range(module.count(".") + 1)]
    before = {parent: sys.modules.get(parent) for parent in parents}
    old = kind.__module__, kind.__qualname__, kind.__name__
    for parent in parents:
        sys.modules[parent] = types.ModuleType(parent)
    setattr(sys.modules[module], name, kind)
    kind.__module__, kind.__qualname__, kind.__name__ = module, name, name
    functions = [value for value in vars(kind).values() if isinstance(value, types.FunctionType)]
    for function in functions:
        function.__module__, function.__qualname__ = module, f"{name}.{function.__name__}"
    try:
        yield kind
    finally:
        kind.__module__, kind.__qualname__, kind.__name__ = old
        for parent in parents:
            if before[parent] is None:
                del sys.modules[parent]
            else:
                sys.modules[parent] = before[parent]


def plain_things() -> dict[str, Any]:
    """Values of the standard library and of numpy that trainings store."""
    return {
        "path": Path("/data/coco"), "when": datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.timezone.utc),
        "took": datetime.timedelta(seconds=3), "best": np.float64(0.5), "epoch": np.int64(7), "flag": np.bool_(True),
        "history": np.arange(6, dtype=np.float32).reshape(2, 3), "fortran": np.asfortranarray(np.eye(2)),
        "objects": np.array([{"a": 1}, None], dtype=object), "counts": defaultdict(int, a=1), "counter": Counter("aab"),
        "ordered": OrderedDict(x=1), "deque": deque([1, 2]), "set": {1, 2}, "frozen": frozenset("a"),
        "bytes": b"\x00\xff", "array": bytearray(b"ab"), "complex": 1 + 2j, "big": 1 << 80, "slice": slice(1, 2),
        "type": float, "args": argparse.Namespace(lr=0.1, kind=int), "space": types.SimpleNamespace(a=1),
        "id": uuid.UUID(int=5), "decimal": Decimal("1.5"), "fraction": Fraction(1, 3), "device": torch.device("cuda:0"),
        "size": torch.Size((1, 2)), "dtype": torch.bfloat16, "text": "ü", "none": None, "nested": [({"a": [1.5]},)],
    }  # fmt: skip


def of_mmdet_2(state: Any, **meta: Any) -> dict[str, Any]:
    """The dictionary that mmdetection 2 and mmsegmentation save, in the context of `pretended` classes."""
    return {
        "meta": {"time": "Wed May  1", "mmcv_version": "1.7.0", "epoch": 12, "hook_msgs": {"best": np.float32(0.4)},
                 **meta},
        "state_dict": OrderedDict(state),
        "optimizer": {"state": {0: {"step": 1, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": np.float64(1e-4)}]},
    }  # fmt: skip
