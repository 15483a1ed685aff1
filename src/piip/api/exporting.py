"""Export: the model as a file for ONNX Runtime, OpenVINO or torch.export."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from piip.api.held import Held

if TYPE_CHECKING:
    from piip.export.description import Format, Part
    from piip.export.write import Export
    from piip.prediction.sources import Source


class Exporting(Held):
    """A model that leaves PyTorch."""

    def export(
        self,
        path: str | Path,
        format: Format | None = None,
        image_size: int | tuple[int, int] | None = None,
        batch: int = 1,
        dynamic: bool = False,
        half: bool = False,
        part: Part = "model",
        licence: str | None = None,
        images: Iterable[Source] | None = None,
    ) -> Export:
        """`piip.export.export` of this model: its arguments, what comes back and what it raises are told there."""
        from piip.export import export

        return export(self.model, path, format, image_size, batch, dynamic, half, part, licence, images)
