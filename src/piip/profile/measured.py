"""Parameters and multiply-adds of what really runs, counted on the meta device, where nothing is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from piip import config
from piip.backbone import PIIPBackbone
from piip.backbone.pyramid import image_pyramid
from piip.heads import Head, build_head
from piip.inference import Winograd, choose, fuse
from piip.model import PIIPModel
from piip.profile.published import Count
from piip.structures import BranchState, Size
from piip.weights.files import without_downloads

SAMPLE_MACS = 5
"""per channel of a sampled point in deformable attention: four for the bilinear sample, one for its weight"""


def measured_counts(backbone: config.Backbone, model: config.Model | None, image: Size) -> dict[str, Count]:
    """Counts of one forward pass on an `image` by part: "branch 0", ..., "interactions", "merge", "maps", "head".

    Matrix products, convolutions and attention are counted by `torch.utils.flop_counter`; norms, activations, biases,
    pooling and resizing are not. Nor is the padding of windows, for it is not computed. Without `model` there is no
    "head".
    """
    with torch.device("meta"):
        built = PIIPBackbone(backbone.without_downloads()).eval()
        head = None if model is None else build_head(model).eval()
    choose(built, "train")
    counts = _counts(built, head, image)
    if "neck" in counts:
        counts["head"] += counts.pop("neck")
    return counts


def counts_of_parts(
    model: config.Model, image: Size, folded: bool = False, winograd: Winograd = "everywhere"
) -> dict[str, Count]:
    """The same with the "neck" apart from the "head", where there is one, and on request as folded for inference.

    A folded model is counted as it runs on a CPU; with other `winograd` as elsewhere, see `piip.inference.fuse`.
    """
    with torch.device("meta"):
        built = PIIPModel(without_downloads(model)).eval()
        if folded:
            built = fuse(built, winograd=winograd)
        else:
            choose(built, "train")
    return _counts(built.backbone, built.head, image)


def _counts(backbone: PIIPBackbone, head: Head | None, image: Size) -> dict[str, Count]:
    meter = Meter()
    neck = None if head is None else head.neck
    for module in (backbone, head):
        if module is not None:
            module.requires_grad_(False)  # a parameter that is an input of a module would confuse the counter
    with torch.no_grad():
        outputs = _run(backbone, torch.empty(1, 3, *image, device="meta"), meter)
        if neck is not None:
            outputs = meter.count("neck", neck, outputs)
        if head is not None:
            meter.count("head", head.dry_run, outputs, image)
    modules: dict[str, list[nn.Module | None]] = {
        f"branch {index}": [branch] for index, branch in enumerate(backbone.branches)
    }
    modules |= {
        "interactions": [backbone.interactions],
        "merge": [backbone.merge, backbone.earlier_merges],
        "maps": [backbone.maps],
    }
    counts = {part: Count(_params(own), meter.macs[part]) for part, own in modules.items()}
    if neck is not None:
        counts["neck"] = Count(_params([neck]), meter.macs["neck"])
    if head is not None:
        counts["head"] = Count(_params([head]) - _params([neck]), meter.macs["head"])
    return counts


class Meter:
    """Adds up multiply-adds by part."""

    def __init__(self) -> None:
        self.macs: Counter[str] = Counter()

    def count(self, part: str, step: Callable[..., Any], *inputs: Any, times: int = 1) -> Any:
        """What `step(*inputs)` returns, its cost added to `part` so many times."""
        counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.grid_sampler_2d: _sampling_flops})
        with counter:
            result = step(*inputs)
        self.macs[part] += times * counter.get_total_flops() // 2
        return result


def _sampling_flops(*_: Any, out_shape: torch.Size, **__: Any) -> int:
    """The heart of deformable attention, which the stock counter takes to be free."""
    return 2 * SAMPLE_MACS * out_shape.numel()


def _params(modules: list[nn.Module | None]) -> int:
    return sum(parameter.numel() for module in modules if module is not None for parameter in module.parameters())


# -- backbone --------------------------------------------------------------------------------------------------------


def _run(backbone: PIIPBackbone, images: Tensor, meter: Meter) -> Any:
    """As the backbone's forward (or `states`), but what repeats itself is run once and counted so many times."""
    pyramid = image_pyramid(images, [branch.size for branch in backbone.config.branches])
    parts = [f"branch {index}" for index in range(len(pyramid))]
    branches: list[Any] = list(backbone.branches)
    states = [meter.count(*step) for step in zip(parts, [branch.embed for branch in branches], pyramid, strict=True)]
    earlier, repeats = [], _repeats(backbone)
    for group in range(backbone.config.groups):
        states = [_run_blocks(*step, group, meter) for step in zip(parts, branches, states, strict=True)]
        if repeats[group]:
            states = meter.count("interactions", backbone.interactions[group], states, times=repeats[group])
        if str(group) in backbone.earlier_merges:
            merge = backbone.earlier_merges[str(group)]
            earlier.append(meter.count("merge", merge, states))
    if backbone.merge is None or backbone.maps is None:
        return states
    merged = meter.count("merge", backbone.merge, states)
    return meter.count("maps", backbone.maps, merged, earlier)


def _run_blocks(part: str, branch: Any, state: BranchState, group: int, meter: Meter) -> BranchState:
    """A group of blocks. Those of a ViT differ in their windows only; those of a ConvNeXt all run."""
    if branch.config.family == "convnext":
        return meter.count(part, branch, state, *branch.config.groups[group])
    if group == 0:  # all groups of a ViT see the same grid
        for window, times in Counter(branch.config.windows).items():
            block = branch.config.windows.index(window)
            meter.count(part, branch, state, block, block, times=times)
    return state


def _repeats(backbone: PIIPBackbone) -> list[int]:
    """How often the interactions after each group are to be counted: equal ones all at the first of them."""
    if not backbone.interactions:
        return [0] * backbone.config.groups
    branches = backbone.config.branches
    kinds = list(zip(*(zip(b.group_widths, b.group_strides, strict=True) for b in branches), strict=True))
    return [kinds.count(kind) if kinds.index(kind) == group else 0 for group, kind in enumerate(kinds)]
