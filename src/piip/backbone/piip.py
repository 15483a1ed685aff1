"""The PIIP backbone: images in, feature maps out. The forward is the paper's figure 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from piip import config
from piip.backbone.beit import BEiTBranch
from piip.backbone.clip import CLIPBranch
from piip.backbone.convnext import ConvNeXtBranch
from piip.backbone.feature_maps import FeatureMaps
from piip.backbone.initial_values import set_initial_values
from piip.backbone.interaction import InteractionStage
from piip.backbone.intern_vit import InternViTBranch
from piip.backbone.merge import ConvMerge, LightMerge, OnlyBranch
from piip.backbone.pyramid import image_pyramid
from piip.backbone.uni_perceiver import UniPerceiverBranch
from piip.backbone.vit import ViTBranch
from piip.structures import BranchState, View

FAMILIES = {
    "vit": ViTBranch,
    "beit": BEiTBranch,
    "uni_perceiver": UniPerceiverBranch,
    "intern_vit": InternViTBranch,
    "convnext": ConvNeXtBranch,
    "clip": CLIPBranch,
}


class PIIPBackbone(nn.Module):
    """Any number of branches, finest first; one branch is the plain single-resolution baseline."""

    def __init__(self, backbone: config.Backbone) -> None:
        super().__init__()
        self.config = backbone
        self.branches: Any = nn.ModuleList(FAMILIES[branch.family](branch) for branch in backbone.branches)
        widths = list(zip(*(branch.group_widths for branch in backbone.branches), strict=True))  # after each group
        self.interactions = nn.ModuleList()
        if backbone.interaction is not None:
            self.interactions.extend(InteractionStage(list(group), backbone.interaction) for group in widths)
        self.merge: nn.Module | None = None
        self.earlier_merges = nn.ModuleDict()
        self.maps: FeatureMaps | None = None
        if backbone.maps is not None:
            several, earlier = len(backbone.branches) > 1, backbone.maps.merge_after
            kind = LightMerge if earlier else ConvMerge
            self.merge = kind(list(widths[-1])) if several else OnlyBranch()
            for group in earlier:
                self.earlier_merges[str(group)] = kind(list(widths[group])) if several else OnlyBranch()
            shrinks = backbone.branches[0].family == "convnext"
            self.maps = FeatureMaps(backbone.width, backbone.maps, backbone.map_widths[: len(earlier)], shrinks)
        set_initial_values(self.interactions, self.merge, self.earlier_merges, self.maps)

    def forward(self, images: Tensor, views: Sequence[View | None] = ()) -> list[Tensor]:
        """[B, 3, H, W] normalised images at the finest branch's resolution -> maps [B, C, h, w], finest first.

        Pixels per cell: `config.Backbone.map_strides`. Any H and W work from 32 pixels (in the finest branch) and one
        patch (in every branch) on. `views`: what each branch sees, None: the images; the maps are those of the images.

        Raises:
            RuntimeError: for a backbone without maps (`config.Backbone.maps` is None); it has `states`.
        """
        if self.merge is None or self.maps is None:
            raise RuntimeError("this backbone has no merge and no maps; call its `states` instead")
        states, earlier = self.embed(images, views), []
        for group in range(self.config.groups):
            states = self.run_group(states, group)
            if str(group) in self.earlier_merges:
                earlier.append(self.earlier_merges[str(group)](states))
        merged = self.merge(states)
        del states  # of a large image they take as much as a map
        return self.maps(merged, earlier)

    def set_checkpointing(self, on: bool) -> None:
        """In training, recompute every block and exchange in the backward pass: less memory, more time.

        Branches whose config asks for it do so in any case.
        """
        for branch in self.branches:
            branch.checkpointing = on or branch.config.checkpointing
        stage: Any
        for stage in self.interactions:
            for unit in stage.units:
                unit.checkpointing = on

    def states(self, images: Tensor, views: Sequence[View | None] = ()) -> list[BranchState]:
        """[B, 3, H, W] normalised images -> tokens (and class tokens) of every branch after its last block."""
        states = self.embed(images, views)
        for group in range(self.config.groups):
            states = self.run_group(states, group)
        return states

    def embed(self, images: Tensor, views: Sequence[View | None] = ()) -> list[BranchState]:
        """Every branch on its own resolution of the images, or of its view, before the first block."""
        pyramid = image_pyramid(images, [branch.size for branch in self.config.branches], views)
        states = [branch.embed(image) for branch, image in zip(self.branches, pyramid, strict=True)]
        frames = [view and view.frame for view in views or [None] * len(states)]
        return [state._replace(frame=frame) for state, frame in zip(states, frames, strict=True)]

    def run_group(self, states: list[BranchState], group: int) -> list[BranchState]:
        """One group of blocks in every branch, then the exchange between neighbours."""
        states = [
            branch(state, *branch.config.groups[group]) for branch, state in zip(self.branches, states, strict=True)
        ]
        return self.interactions[group](states) if self.interactions else states
