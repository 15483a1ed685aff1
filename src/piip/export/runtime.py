"""The contract of a runtime: how it writes a traced graph to a file, and how it runs one."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from torch import Tensor
from torch.export import ExportedProgram
from typing_extensions import Self

from piip.export.description import Description


class Runtime(ABC):
    """An exported file, opened."""

    suffix: ClassVar[str]
    description: Description
    version: str
    """name and version of what runs it"""

    @classmethod
    @abstractmethod
    def require(cls) -> None:
        """ImportError, with the command that installs it, where something is missing to write such files."""

    @classmethod
    @abstractmethod
    def files(cls, path: Path) -> tuple[Path, ...]:
        """All files of the model at `path`."""

    @classmethod
    @abstractmethod
    def write(cls, program: ExportedProgram, description: Description, path: Path) -> None:
        """Write the graph to `path`."""

    @classmethod
    @abstractmethod
    def open(cls, path: Path) -> Self:
        """Read and prepare it; WeightsError for a file that is none of ours."""

    @abstractmethod
    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name, on the CPU."""


def needed(name: str, extra: str = "export") -> ModuleType:
    """The library `name`; ImportError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f'this needs {name}: pip install "piip[{extra}]"') from error
