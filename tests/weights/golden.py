"""Goldens: outputs of the official code, its weights made from the keys alone. See shared/reference/README.md."""

import importlib.util
import json
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor


class Golden:
    def __init__(self, folder: Path, name: str) -> None:
        self.spec: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
        self.expected = load_file(folder / f"{name}.safetensors")
        self.recipe = _recipe(folder)

    def state_dict(self) -> dict[str, Tensor]:
        return self.recipe.state_dict(self.spec["state_dict"])

    def image(self) -> Tensor:
        return self.recipe.image(self.spec["name"], self.spec["input"])

    def assert_close(self, name: str, actual: Tensor, tolerance: float = 3e-4) -> None:
        sample = self.expected[f"{name}.sample"]
        if f"{name}.shape" in self.expected:
            assert tuple(actual.shape) == tuple(self.expected[f"{name}.shape"].tolist())
        difference = (self.recipe.digest(actual, len(sample)) - sample).abs().max().item()
        print(f"{self.spec['name']} {name}: {difference:.1e}")  # for `pytest -rP`, to fill the tables in the docs
        assert difference <= tolerance, f"{name}: max abs difference {difference:.2e}"


@lru_cache
def _recipe(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_recipe", folder.parent / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def official_losses(folder: Path, name: str) -> dict[str, Any]:
    entries = json.loads((folder / "losses.json").read_text())
    return next(entry["losses"] for entry in entries if entry["name"] == name)


def max_abs(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item() if a.numel() else 0.0


__all__ = ["Golden", "max_abs", "official_losses", "torch"]
