"""Parameters and multiply-adds of what really runs, counted on the meta device, where nothing is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from piip import config
from piip.backbone import PIIPBackbone
from piip.backbone.pyramid import image_pyramid
from piip.heads.dino import DINOHead
from piip.heads.dino.attention import FloatLinear
from piip.heads.dino.positions import geometry
from piip.heads.mask_rcnn import MaskRCNNHead, box, mask
from piip.heads.upernet import UperNetHead
from piip.inference import Winograd, fuse
from piip.model import PIIPModel, build_head
from piip.profile.published import Count
from piip.structures import BranchState, Size

SAMPLE_MACS = 5
"""per channel of a sampled point in deformable attention: four for the bilinear sample, one for its weight"""


def measured_counts(backbone: config.Backbone, model: config.Model | None, image: Size) -> dict[str, Count]:
    """Counts of one forward pass on an `image` by part: "branch 0", ..., "interactions", "merge", "maps", "head".

    Matrix products, convolutions and attention are counted by `torch.utils.flop_counter`; norms, activations, biases,
    pooling and resizing are not. Nor is the padding of windows, for it is not computed. Without `model` there is no
    "head".
    """
    with torch.device("meta"):
        built = PIIPBackbone(backbone).eval()
        head = None if model is None else build_head(model).eval()
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
        built = PIIPModel(model).eval()
        if folded:
            built = fuse(built, winograd=winograd)
    return _counts(built.backbone, built.head, image)


def neck_of(head: nn.Module | None) -> nn.Module | None:
    """What turns the maps into others before the head decides; None for a classifier."""
    if isinstance(head, MaskRCNNHead):
        return head.fpn
    if isinstance(head, DINOHead):
        return head.mapper
    return head.decoder if isinstance(head, UperNetHead) else None


def _counts(backbone: PIIPBackbone, head: nn.Module | None, image: Size) -> dict[str, Count]:
    meter = Meter()
    neck = neck_of(head)
    for module in (backbone, head):
        if module is not None:
            module.requires_grad_(False)  # a parameter that is an input of a module would confuse the counter
    with torch.no_grad():
        outputs = _run(backbone, torch.empty(1, 3, *image, device="meta"), meter)
        if neck is not None:
            outputs = meter.count("neck", neck, outputs)
        if head is not None:
            meter.count("head", _run_head, head, outputs, image)
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
        return meter.count(part, branch.run, state, *branch.config.groups[group])
    if group == 0:  # all groups of a ViT see the same grid
        for window, times in Counter(branch.config.windows).items():
            block = branch.config.windows.index(window)
            meter.count(part, branch.run, state, block, block, times=times)
    return state


def _repeats(backbone: PIIPBackbone) -> list[int]:
    """How often the interactions after each group are to be counted: equal ones all at the first of them."""
    if not backbone.interactions:
        return [0] * backbone.config.groups
    branches = backbone.config.branches
    kinds = list(zip(*(zip(b.group_widths, b.group_strides, strict=True) for b in branches), strict=True))
    return [kinds.count(kind) if kinds.index(kind) == group else 0 for group, kind in enumerate(kinds)]


# -- heads -----------------------------------------------------------------------------------------------------------


def _run_head(head: nn.Module, outputs: Any, image: Size) -> None:
    """What follows the neck, or all of a head without one."""
    with torch.device("meta"):
        if isinstance(head, MaskRCNNHead):
            _run_mask_rcnn(head, outputs)
        elif isinstance(head, DINOHead):
            _run_dino(head, outputs, image)
        elif not isinstance(head, UperNetHead):  # which is all neck
            head(outputs)


def _run_mask_rcnn(head: MaskRCNNHead, levels: list[Tensor]) -> None:
    """As `predict` with as many proposals and detections as it keeps; which ones depends on the image's content."""
    settings = head.config
    head.rpn(levels)
    hidden = torch.empty(settings.proposals, settings.channels * box.RESOLUTION**2)
    for layer in head.box.fc:
        hidden = layer(hidden)
    head.box.scores(hidden), head.box.deltas(hidden)
    if head.mask is not None:
        region = torch.empty(settings.detections, settings.channels, mask.RESOLUTION, mask.RESOLUTION)
        for conv in head.mask.convs:
            region = conv(region)
        functional.conv2d(head.mask.upsample(region), head.mask.logits.weight[:1])  # the mask of its own class only


def _run_dino(head: DINOHead, levels: list[Tensor], image: Size) -> None:
    """As its forward, but for the level embedding, which needs real numbers."""
    for layer in head.modules():
        if isinstance(layer, FloatLinear):
            layer.__class__ = nn.Linear  # type: ignore[assignment]  # there is no autocast on the meta device
    settings = head.config
    sizes = [(level.shape[-2], level.shape[-1]) for level in levels]
    places = geometry(sizes, [image], image, settings.channels, settings.temperature, levels[0].device)
    tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
    for layer in head.encoder.layers:
        tokens = layer(tokens, places.positions, places.centres(), places)
    selected = head.selection(tokens, places)
    head.decoder(selected.content, selected.boxes, tokens, places)
