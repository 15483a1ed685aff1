"""OpenVINO's files: a graph in `.xml`, its weights in `.bin`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.export import ExportedProgram

from piip.export.description import KEY, Description, read_description
from piip.export.onnx_file import onnx_program
from piip.export.runtime import Runtime, needed
from piip.weights.errors import WeightsError


class OpenVINOFile(Runtime):
    """`model.xml` with `model.bin` beside it."""

    suffix: ClassVar[str] = ".xml"

    def __init__(self, compiled: Any, description: Description, version: str) -> None:
        self.compiled, self.description, self.version = compiled, description, version

    @classmethod
    def require(cls) -> None:
        """openvino, and for the way there onnx and onnxscript."""
        for name in ("openvino", "onnx", "onnxscript"):
            needed(name)

    @classmethod
    def files(cls, path: Path) -> tuple[Path, ...]:
        """Graph and weights."""
        return path, path.with_suffix(".bin")

    @classmethod
    def write(cls, program: ExportedProgram, description: Description, path: Path) -> None:
        """By way of ONNX, which both sides know best."""
        openvino: Any = needed("openvino")
        with tempfile.TemporaryDirectory(prefix="piip-export-") as folder:
            between = Path(folder) / "model.onnx"
            onnx_program(program, description).save(between, external_data=True)
            model = openvino.convert_model(between)
            model.set_rt_info(description.text(), [KEY])
            openvino.save_model(model, path, compress_to_fp16=description.half)

    @classmethod
    def open(cls, path: Path) -> OpenVINOFile:
        """On the CPU, in float32: what was checked is what runs."""
        openvino: Any = needed("openvino")
        core = openvino.Core()
        try:
            model = core.read_model(path)
        except Exception as error:
            raise WeightsError(f"{path}: OpenVINO cannot read it: {error}") from error
        text = str(model.get_rt_info([KEY]).astype(str)) if model.has_rt_info([KEY]) else None
        description = read_description(text, str(path))
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return cls(compiled, description, f"openvino {openvino.__version__.split('-')[0]}")

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name."""
        found = self.compiled({name: value.contiguous().numpy() for name, value in inputs.items()})
        return {name: torch.from_numpy(found[name].copy()) for name in self.description.outputs}
