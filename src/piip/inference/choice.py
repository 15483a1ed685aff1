"""The one place that decides what runs instead of the paper's modules, by mode and device.

`backbone/`, `heads/` and `ops/` are the paper in plain PyTorch. For many of their modules there are twins, subclasses
with the same parameters and the same numbers (but for rounding) that take less time or memory in one situation. A row
of `TABLE` is such a situation; what has no twin in it stays as it is.

Plain modules call modules, which is what hooks, FSDP and `torch.export` need; twins may read the weights of the parts
they are made of.

What only a call shows (gradients wanted or not, autocast, a tracer, another device) each twin asks `lean.situation` or
looks at its inputs, and runs as the plain module where it was not made for them. So a model in the wrong mode is slow,
not wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from timm.layers import PatchEmbed
from torch import nn

from piip.backbone.block import Blocks, WindowBlock
from piip.backbone.feature_maps import Halve, Upsample, UpsampleTwice
from piip.backbone.interaction import DeformableCrossAttention, Injector
from piip.backbone.merge import ConvMerge, LightMerge
from piip.backbone.vit import ResizedPositions
from piip.heads.mask_rcnn.fpn import FPN
from piip.heads.mask_rcnn.roi import RoIAlign
from piip.heads.mask_rcnn.rpn import RPN
from piip.inference.cpu.blocks import BlocksInPlace
from piip.inference.cpu.exchange import InjectorInPieces
from piip.inference.cpu.maps import HalveByMaxima, UpsampleInPieces, UpsampleTwiceInPieces
from piip.inference.cpu.merge import ConvMergeInPlace, LightMergeInPlace
from piip.inference.cpu.neck import FPNInPieces, RPNInPieces
from piip.inference.folding.interactions import FoldedInjector
from piip.inference.gpu.blocks import BlocksByRows, InjectorByRows
from piip.inference.gpu.exchange import KernelCrossAttention
from piip.inference.gpu.maps import (
    ConvMergeChannelsLast,
    LightMergeChannelsLast,
    UpsampleTwiceChannelsLast,
)
from piip.inference.kept_positions import KeptLeanPositions, KeptPositions
from piip.lean.blocks import LeanBlock, LeanBlocks
from piip.lean.convolutions import ChannelsFirstConv2d
from piip.lean.embedding import LeanPatchEmbed, LeanPositions
from piip.lean.gpu.sampling import KernelSampling
from piip.lean.interaction import LeanInjector
from piip.lean.maps import LeanUpsample, LeanUpsampleTwice
from piip.lean.neck import ChannelsLastFPN
from piip.lean.roi_align import RoIAlignByProducts
from piip.lean.sampling import RowSampling
from piip.ops.deformable_attention import DeformableSampling

Mode = Literal["train", "predict", "compile", "export"]
Winograd = Literal["everywhere", "head", "nowhere"]
"""where 3x3 convolutions take fewer multiply-adds, in float32 on a CPU"""
WINOGRAD: Mapping[Mode, Winograd] = {"predict": "everywhere", "compile": "head", "export": "nowhere"}
"""of a folded copy; a compiled backbone makes no use of it"""
Twins = Mapping[type[nn.Module], type[nn.Module]]
"""plain class -> the class that stands for it"""

LEAN: Twins = {
    PatchEmbed: LeanPatchEmbed,
    Blocks: LeanBlocks,
    WindowBlock: LeanBlock,
    Upsample: LeanUpsample,
    UpsampleTwice: LeanUpsampleTwice,
}
"""fewer multiply-adds and copies, on any device, with gradients"""
LEAN_ON_CPU: Twins = {
    ResizedPositions: LeanPositions,
    DeformableSampling: RowSampling,
    FPN: ChannelsLastFPN,
    RoIAlign: RoIAlignByProducts,
}
LEAN_ON_GPU: Twins = {DeformableSampling: KernelSampling}
TRAINED_ON_CPU: Twins = {Injector: LeanInjector, nn.Conv2d: ChannelsFirstConv2d}
PREDICTED_ON_CPU: Twins = {
    Blocks: BlocksInPlace,
    FoldedInjector: InjectorInPieces,
    Upsample: UpsampleInPieces,
    UpsampleTwice: UpsampleTwiceInPieces,
    Halve: HalveByMaxima,
    ConvMerge: ConvMergeInPlace,
    LightMerge: LightMergeInPlace,
}
HEAD_PREDICTED_ON_CPU: Twins = {FPN: FPNInPieces, RPN: RPNInPieces}
"""heads are never compiled"""
RUN_ON_GPU: Twins = {Blocks: BlocksByRows, FoldedInjector: InjectorByRows}
"""a compiler makes such passes by itself"""
PREDICTED_ON_GPU: Twins = {
    ConvMerge: ConvMergeChannelsLast,
    LightMerge: LightMergeChannelsLast,
    UpsampleTwice: UpsampleTwiceChannelsLast,
    DeformableCrossAttention: KernelCrossAttention,
}
KEPT: Twins = {ResizedPositions: KeptPositions}
KEPT_ON_CPU: Twins = {ResizedPositions: KeptLeanPositions}
"""what does not change from image to image"""
TABLE: Mapping[tuple[Mode, bool], Twins] = {
    ("train", True): {**LEAN, **LEAN_ON_CPU, **TRAINED_ON_CPU},
    ("train", False): {**LEAN, **LEAN_ON_GPU},
    ("predict", True): {**LEAN, **LEAN_ON_CPU, **KEPT_ON_CPU, **PREDICTED_ON_CPU, **HEAD_PREDICTED_ON_CPU},
    ("predict", False): {**LEAN, **LEAN_ON_GPU, **KEPT, **PREDICTED_ON_GPU, **RUN_ON_GPU},
    ("compile", True): {**LEAN, **LEAN_ON_CPU, **KEPT_ON_CPU, **HEAD_PREDICTED_ON_CPU},
    ("compile", False): {**LEAN, **LEAN_ON_GPU, **KEPT, **PREDICTED_ON_GPU},
    ("export", True): {},
    ("export", False): {},
}
"""mode, on a CPU in float32 or float64 -> twins"""
PLAIN_OF: Twins = {twin: plain for twins in TABLE.values() for plain, twin in twins.items()}


def choose(model: nn.Module, mode: Mode, device: torch.device | None = None) -> None:
    """Put in place of the modules of `model` the twins for `mode` on its device, and the plain ones for all others.

    `device`: where its weights will be, if they are elsewhere yet.

    Nothing but the classes of modules changes, as `torch.distributed.fsdp.fully_shard` does it: parameters, their
    names and order, buffers, hooks and optimizers stay what they are; so it can be done at any time, more than once.
    What is sharded already keeps the twin that it had then.
    Weights are not folded, see `inference.fuse`.

    Raises:
        ValueError: another mode.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode {mode!r}: use one of {', '.join(map(repr, get_args(Mode)))}")
    twins = TABLE[mode, is_for_a_cpu(model, device)]
    for module in model.modules():
        plain = PLAIN_OF.get(type(module), type(module))
        kind = twins.get(plain, plain)
        if kind is not type(module):
            module.__class__ = kind


def is_for_a_cpu(model: nn.Module, device: torch.device | None = None) -> bool:
    """Whether a model's weights are on a CPU (or, to be counted, on the meta device), in float32 or float64.

    `device`: where they will be, if they are elsewhere yet.
    """
    weights = list(model.parameters())
    devices = {weight.device.type for weight in weights} if device is None else {device.type}
    return devices <= {"cpu", "meta"} and {weight.dtype for weight in weights} <= {torch.float32, torch.float64}
