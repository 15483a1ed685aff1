"""`torch.export`'s own files, run by PyTorch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import torch
import torchvision  # noqa: F401 - its operators may be in the file
from torch import Tensor
from torch.export import ExportedProgram

from piip.export.description import KEY, Description, read_description
from piip.export.runtime import Runtime
from piip.weights.errors import WeightsError

TEXT = f"{KEY}.json"
"""the description's name in the file, which is a zip"""


class TorchFile(Runtime):
    """`model.pt2`."""

    suffix: ClassVar[str] = ".pt2"

    def __init__(self, program: ExportedProgram, description: Description) -> None:
        self.description, self.version = description, f"torch {torch.__version__}"
        self.module: Any = program.module()

    @classmethod
    def require(cls) -> None:
        """torch, which is there."""

    @classmethod
    def files(cls, path: Path) -> tuple[Path, ...]:
        """One."""
        return (path,)

    @classmethod
    def write(cls, program: ExportedProgram, description: Description, path: Path) -> None:
        """With the description beside the graph in the zip."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(program, path, extra_files={TEXT: description.text()})

    @classmethod
    def open(cls, path: Path) -> TorchFile:
        """On the CPU. Only for files of people you trust: torch may unpickle parts of them."""
        texts = {TEXT: ""}
        try:
            program = torch.export.load(path, extra_files=texts)
        except Exception as error:
            raise WeightsError(f"{path}: torch cannot read it: {error}") from error
        return cls(program, read_description(texts[TEXT] or None, str(path)))

    @torch.no_grad()
    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name."""
        return dict(zip(self.description.outputs, self.module(*inputs.values()), strict=True))
