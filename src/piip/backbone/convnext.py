"""A timm ConvNeXt as a branch: its grid shrinks between its stages."""

from __future__ import annotations

import re
from typing import Any

from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from piip import config
from piip.backbone.branch import drop_path, drop_path_rates, run_step
from piip.backbone.fetched import created
from piip.backbone.vit import ACTIVATIONS
from piip.structures import BranchState


class ConvNeXtBranch(nn.Module):
    """A ConvNeXt. `convnext` is timm's model, with timm's parameter names.

    Its blocks are, in one list, the blocks of all stages and the downsampling layers before stages 1, 2 and 3.
    """

    def __init__(self, branch: config.Branch) -> None:
        super().__init__()
        self.config = branch
        self.checkpointing = branch.checkpointing
        self.convnext = _by_name(branch) if branch.model is not None else _from_architecture(branch)
        # The norm after the last block belongs to a classifier. Checkpoints have it and so it is held, but it is not
        # used: the features are those of the last block.
        self.convnext.head.requires_grad_(False)
        blocks = [block for stage in self.convnext.stages for block in stage.blocks]
        for block, rate in zip(blocks, drop_path_rates(branch, len(blocks)), strict=True):
            block.drop_path = drop_path(rate)

    def embed(self, images: Tensor) -> BranchState:
        """[B, 3, H, W] -> tokens of the stem's grid, a quarter of the image in each direction."""
        stride = self.config.group_strides[-1]
        if min(images.shape[-2:]) < stride:
            raise ValueError(
                f"an image of {tuple(images.shape[-2:])} pixels has no grid at stride {stride}: a ConvNeXt branch must "
                f"see at least {stride} x {stride} pixels"
            )
        return _to_state(self.convnext.stem(images))

    def forward(self, state: BranchState, first: int, last: int) -> BranchState:
        """The state after blocks `first` to `last`, both included; its grid and width may be new ones."""
        grid = state.tokens.transpose(1, 2).unflatten(2, state.size)
        for block in self.blocks()[first : last + 1]:
            grid = run_step(self, block, grid, self.checkpointing)
        return _to_state(grid)._replace(frame=state.frame)

    def blocks(self) -> list[nn.Module]:
        """The blocks and downsampling layers, in order."""
        return [
            layer
            for stage in self.convnext.stages
            for layer in (stage.downsample, *stage.blocks)
            if not isinstance(layer, nn.Identity)
        ]

    def layer(self, parameter: str) -> int:
        """Depth of a parameter, by its name within the branch: 0 in the embedding, k + 1 in block k."""
        match = re.match(r"convnext\.stages\.(\d+)\.(?:downsample|blocks\.(\d+))\.", parameter)
        if match is None:
            return 0 if parameter.startswith("convnext.stem.") else self.config.depth
        stage, block = int(match[1]), match[2]
        assert self.config.stages is not None
        before = sum(blocks + 1 for blocks, _ in self.config.stages[:stage])
        return before if block is None else before + int(block) + 1


def _to_state(grid: Tensor) -> BranchState:
    return BranchState(grid.flatten(2).transpose(1, 2), (grid.shape[-2], grid.shape[-1]))


def _by_name(branch: config.Branch) -> Any:
    assert branch.model is not None
    return created(branch.model, branch.pretrained, num_classes=0)


def _from_architecture(branch: config.Branch) -> Any:
    assert branch.stages is not None
    return ConvNeXt(
        depths=tuple(stage.blocks for stage in branch.stages),
        dims=tuple(stage.width for stage in branch.stages),
        num_classes=0,
        head_hidden_size=branch.classifier_width,
        ls_init_value=branch.layer_scale,
        act_layer=ACTIVATIONS[branch.activation],
    )
