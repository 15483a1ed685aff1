"""A model as a file for another runtime: ONNX, OpenVINO or torch.export, checked, and predicting as the model does.

The graph's border: it takes images that are resized, normalised and padded to one size, and gives raw outputs of fixed
numbers; reading images before it and results in the photo's pixels after it are the same Python code as the model's.
"""

from __future__ import annotations

from piip.export.exported import Exported, is_exported, load_exported
from piip.export.write import Export, export

__all__ = ["Export", "Exported", "export", "is_exported", "load_exported"]
