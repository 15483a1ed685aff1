"""The facts that `piip info` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from piip import config, zoo
from piip.profile.encoders import encoder_counts
from piip.profile.measured import measured_counts
from piip.profile.published import Count, published_counts
from piip.structures import Size
from piip.weights.files import stored_precision
from piip.weights.names import config_of, is_path
from piip.zoo.encoders import PUBLISHED_GFLOPS, encoder, list_encoders
from piip.zoo.own import is_description

ImageSize = int | tuple[int, int] | None


def info(name: str | Path, size: ImageSize = None) -> dict[str, Any]:
    """What is known of a model by name, or of saved weights by path.

    Args:
        name: of the zoo, also where a folder is called so, or a path to weights or to a description (anything
            `piip.PIIP` takes).
        size: side of the (square) image, or (height, width); None: the published size of the finest branch.

    Returns:
        `published_convention` and `as_run`, each {"params", "gmacs"}, of the backbone; the same by part under `parts`;
        `whole_model`, which is `as_run` with the head; sizes, branches and published facts; `stored_precision`, the
        types of saved weights (None for a name). `gmacs` are billions of
        multiply-adds, which the paper calls FLOPs.

    Raises:
        ValueError: unknown name (with near names), or a size that gives a branch no grid.
    """
    if name in list_encoders():
        return encoder_info(encoder(str(name)))
    if is_path(name):
        return model_info(config_of(name), size) | {"stored_precision": list(stored_precision(name))}
    if is_description(name):
        return model_info(config_of(name), size)
    entry = zoo.entry(str(name))
    return _facts(entry.name, entry.task, entry.backbone(), entry.config(), entry, size)


def model_info(model: config.Model, size: ImageSize = None) -> dict[str, Any]:
    """The same for any config."""
    return _facts(model.name, model.task, model.backbone, model, zoo.MODELS.get(model.name), size)


def encoder_info(described: config.Encoder) -> dict[str, Any]:
    """The same for a vision encoder, whose projector no part counts, at its published size."""
    image = image_size(described.backbone, None)
    published, measured = encoder_counts(described), measured_counts(described.backbone, None, image)
    facts = _facts(described.name, "encoder", described.backbone, None, None, None)
    gflops = PUBLISHED_GFLOPS.get(described.name)
    return facts | {
        "published_convention": _as_printed(_convention(published)),
        "parts": [_part(part, published, measured) for part in published],
        "published": {} if gflops is None else {"gflops": gflops},
    }


def _facts(
    name: str,
    task: str,
    backbone: config.Backbone,
    model: config.Model | None,
    entry: zoo.Entry | None,
    size: ImageSize,
) -> dict[str, Any]:
    image = image_size(backbone, size)
    separate = task == "classification" and (model is None or getattr(model.head, "separate_head", False))
    described = entry.published_backbone() if entry is not None else backbone
    published = published_counts(described, image, separate)
    measured = measured_counts(backbone, model, image)
    names = [*measured, *(part for part in published if part not in measured)]
    return {
        "name": name,
        "task": task,
        "input": list(image),
        "published_convention": _as_printed(_convention(published)),
        "as_run": _convention({part: count for part, count in measured.items() if part != "head"}),
        "whole_model": _convention(measured) if "head" in measured else None,
        "parts": [_part(part, published, measured) for part in names],
        "classes": len(model.classes) if model is not None else None,
        "image_sizes": [branch.size for branch in backbone.branches],
        "branches": [_branch(branch, entry, index) for index, branch in enumerate(backbone.branches)],
        "stored_precision": None,
        **_published_facts(entry),
    }


def image_size(backbone: config.Backbone, size: ImageSize) -> Size:
    """(height, width) from a side, both or neither; ValueError if it gives a branch no grid."""
    finest = backbone.branches[0].size
    height, width = (finest, finest) if size is None else (size, size) if isinstance(size, int) else size
    for index, branch in enumerate(backbone.branches):
        ratio, stride = branch.size / finest, branch.group_strides[-1]
        if min(height, width) * ratio < stride:
            needed = -(-stride * finest // branch.size)
            raise ValueError(f"an image of {height} x {width} pixels gives branch {index} (at {ratio:.3g} of it, with "
                             f"cells of {stride} pixels) no grid; use at least {needed} x {needed}")  # fmt: skip
    return height, width


def _convention(parts: dict[str, Count]) -> dict[str, float]:
    return _numbers(sum(parts.values(), Count()))


def _as_printed(numbers: dict[str, float]) -> dict[str, float]:
    """To the 0.1 billion that the paper's counter prints, for all but the smallest models."""
    gmacs = numbers["gmacs"]
    return numbers | {"gmacs": round(gmacs, 1) if gmacs >= 10 else gmacs}


def _numbers(count: Count) -> dict[str, float]:
    return {"params": count.params, "gmacs": round(count.macs / 1e9, 3)}


def _part(part: str, published: dict[str, Count], measured: dict[str, Count]) -> dict[str, Any]:
    columns = {"published_convention": published, "as_run": measured}
    return {"part": part} | {key: _numbers(counts.get(part, Count())) for key, counts in columns.items()}


def _branch(branch: config.Branch, entry: zoo.Entry | None, index: int) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "size": branch.size,
        "family": branch.family,
        "model": branch.model,
        "depth": branch.depth,
        "width": branch.width,
    }
    if entry is None or not entry.pretraining:
        return facts
    pretraining = zoo.PRETRAININGS[entry.pretraining[index]]
    return facts | {"name": entry.letters[index], "pretraining": pretraining.label, "licence": pretraining.licence}


def _published_facts(entry: zoo.Entry | None) -> dict[str, Any]:
    if entry is None:
        return {}
    return {
        "published": dict(entry.published),
        "official_config": entry.official_config,
        "checkpoint": entry.checkpoint,
        "licences": entry.licences,
        "notes": list(entry.notes),
    }
