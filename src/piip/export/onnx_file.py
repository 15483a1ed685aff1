"""ONNX files, run by ONNX Runtime."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.export import ExportedProgram

from piip.export.description import KEY, Description, read_description
from piip.export.runtime import Runtime, needed
from piip.weights.errors import WeightsError

OPSET = 20
LARGEST_INSIDE = 1_800_000_000
"""bytes of weights that a file holds itself; beyond two gigabytes protobuf cannot, and they lie in a file beside it"""
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


class OnnxFile(Runtime):
    """`model.onnx`, for large models with `model.onnx.data` beside it."""

    suffix: ClassVar[str] = ".onnx"

    def __init__(self, session: Any, description: Description, version: str) -> None:
        self.session, self.description, self.version = session, description, version

    @classmethod
    def require(cls) -> None:
        """onnx, onnxscript and, for the check, onnxruntime."""
        for name in ("onnx", "onnxscript", "onnxruntime"):
            needed(name)

    @classmethod
    def files(cls, path: Path) -> tuple[Path, ...]:
        """The file, and that of a large model's weights."""
        return path, path.with_name(path.name + ".data")

    @classmethod
    def write(cls, program: ExportedProgram, description: Description, path: Path) -> None:
        """By torch's exporter, with the description among the metadata."""
        made = onnx_program(program, description)
        made.model.metadata_props[KEY] = description.text()
        weights = sum(value.nbytes for value in program.state_dict.values())
        made.save(path, external_data=weights > LARGEST_INSIDE)

    @classmethod
    def open(cls, path: Path) -> OnnxFile:
        """With CUDA where ONNX Runtime has it, else on the CPU."""
        runtime: Any = needed("onnxruntime")
        known = runtime.get_available_providers()
        try:
            session = runtime.InferenceSession(str(path), providers=[name for name in PROVIDERS if name in known])
        except Exception as error:
            raise WeightsError(f"{path}: ONNX Runtime cannot read it: {error}") from error
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
        return cls(session, read_description(text, str(path)), f"onnxruntime {runtime.__version__}")

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name."""
        given = {name: value.contiguous().numpy() for name, value in inputs.items()}
        found = self.session.run(list(self.description.outputs), given)
        return {name: torch.from_numpy(value) for name, value in zip(self.description.outputs, found, strict=True)}


def onnx_program(program: ExportedProgram, description: Description) -> Any:
    """torch's ONNX program, with our names of inputs and outputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(description.inputs),
            output_names=list(description.outputs),
            opset_version=OPSET,
            verbose=False,
        )
