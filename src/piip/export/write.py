"""From a model to a checked file: what `piip export` and `PIIP.export` do."""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch.export import Dim, ExportedProgram

from piip import config
from piip.data.batches import padded_size
from piip.export.check import Check, check
from piip.export.description import Description, Format, Part, licences_of
from piip.export.exported import RUNTIMES, Exported, load_exported
from piip.export.network import HalfStored, Network
from piip.export.networks import network_of
from piip.files import refuse_taken
from piip.inference import choose, fuse
from piip.model import PIIPModel
from piip.prediction.sources import Source
from piip.structures import Size

MOST_IN_A_BATCH = 4096


@dataclass(frozen=True)
class Export:
    """What was written, and how it compares with the model."""

    path: Path
    files: tuple[Path, ...]
    check: Check
    exported: Exported
    """the file, opened"""


def export(
    model: PIIPModel,
    path: str | Path,
    format: Format | None = None,
    image_size: int | Size | None = None,
    batch: int = 1,
    dynamic: bool = False,
    half: bool = False,
    part: Part = "model",
    licence: str | None = None,
    images: Iterable[Source] | None = None,
) -> Export:
    """Write a model to a file for another runtime, open it there, and compare what both say of real images.

    Args:
        model: with trained weights; it is not touched.
        path: of the file to write, a new one.
        format: "onnx", "openvino" or "pt2" (torch.export); None: as the path's suffix says.
        image_size: what the graph takes, in pixels: the longer side of a square, or (height, width); None: the model's.
        batch: images at a time.
        dynamic: any number of images at a time; not for Mask R-CNN.
        half: store the weights in half precision, in half the space; they are computed with in float32.
        part: "model", or "backbone" for its feature maps.
        licence: of the weights, an SPDX identifier, to be kept in the file.
        images: for the comparison; None: two generated ones.

    Returns:
        The file and the comparison. The file stays where it is if that fails: look at `check.passed`.

    Raises:
        ValueError: a file would be written over, a wrong size, or what this model cannot be exported as.
        ImportError: something is not installed.
    """
    path = Path(path)
    runtime = RUNTIMES[_format(path, format)]
    runtime.require()
    path = path if path.suffix == runtime.suffix else path.with_name(path.name + runtime.suffix)
    refuse_taken(runtime.files(path), "choose another name")
    model = _plain_copy(model, image_size)
    size = graph_size(model.config, image_size)
    network = network_of(fuse(model, mode="export") if part == "model" else model, part)
    _refuse(network, batch, dynamic)
    described = Description(
        format=_format(path, format),
        part=part,
        inputs=network.inputs,
        outputs=network.outputs,
        batch=batch,
        dynamic=dynamic,
        height=size[0],
        width=size[1],
        half=half,
        licences=licences_of(model.config, licence),
        classes=model.config.classes,
        preprocess=model.config.preprocess,
        config=model.config,
    )
    program = traced(network, described)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".piip-export-", dir=path.parent) as folder:
        runtime.write(program, described, Path(folder) / path.name)
        for made in reversed(runtime.files(Path(folder) / path.name)):  # the file that needs the others comes last
            if made.is_file():
                os.replace(made, path.parent / made.name)
    del program, network
    exported = load_exported(path)
    files = tuple(file for file in runtime.files(path) if file.is_file())
    return Export(path, files, check(model, exported, images), exported)


def traced(network: Network, described: Description) -> ExportedProgram:
    """`torch.export` of the network, with the weights as the description says."""
    inputs = network.example(max(described.batch, 2) if described.dynamic else described.batch, *described.size)
    inputs = inputs[: len(described.inputs)]
    shapes: tuple[Any, ...] | None = tuple({0: Dim.DYNAMIC} for _ in inputs) if described.dynamic else None
    module = HalfStored(network) if described.half else network
    if described.half:
        shapes = (shapes,) if shapes else None  # its inputs are one list
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)


def graph_size(model: config.Model, image_size: int | Size | None) -> Size:
    """(height, width) of the images that the graph takes, for a model that is at that size already."""
    multiple, least = model.preprocess.pad_multiple, model.backbone.smallest_image
    if isinstance(model.head, config.UperNet) and model.head.window is not None:
        return model.head.window, model.head.window
    if isinstance(image_size, tuple) and model.task != "classification":
        return padded_size(image_size, multiple, least)
    side = model.preprocess.long_side
    return (side, side) if model.task == "classification" else padded_size((side, side), multiple, least)


def _plain_copy(model: PIIPModel, image_size: int | Size | None) -> PIIPModel:
    """The model in float32 on the CPU, for images of that size."""
    if model.folded:
        raise ValueError("this is a folded copy for inference; export the model it was made from")
    if model.config.backbone.views:
        raise ValueError("branches with views of their own see more than the images that a graph takes; export "
                         "with_views of 1 for every branch")  # fmt: skip
    longest = max(image_size) if isinstance(image_size, tuple) else image_size
    if isinstance(image_size, tuple) and model.config.task == "classification" and image_size[0] != image_size[1]:
        raise ValueError(f"image size {image_size}: a classifier sees square images")
    copied = copy.deepcopy(model).cpu().float().eval()
    choose(copied, "export")
    copied.config = model.config if longest is None else model.config.with_image_size(longest)
    copied.head.config = copied.config.head
    return copied


def _format(path: Path, format: str | None) -> Format:
    """The format that is asked for, or that the path's suffix means; ValueError where there is none."""
    by_suffix = {runtime.suffix: name for name, runtime in RUNTIMES.items()}
    found = format or by_suffix.get(path.suffix)
    if found not in get_args(Format):
        raise ValueError(f"format {found!r}: use one of {', '.join(get_args(Format))}, or a path that ends in "
                         f"{', '.join(by_suffix)}")  # fmt: skip
    return found  # type: ignore[return-value]


def _refuse(network: Network, batch: int, dynamic: bool) -> None:
    """ValueError for what this network cannot be exported as."""
    if not 1 <= batch <= MOST_IN_A_BATCH:
        raise ValueError(f"batch {batch}: use 1 to {MOST_IN_A_BATCH}")
    if dynamic and not network.any_batch:
        raise ValueError("Mask R-CNN suppresses boxes image by image, so its graph has a fixed number of them: "
                         "leave out dynamic and give a batch")  # fmt: skip
