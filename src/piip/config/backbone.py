"""Typed, frozen description of the backbone: branches, interactions, feature maps. Use it through `piip.config`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from pydantic import Field, NonNegativeInt, model_validator

from piip.config.branch import Branch, Frozen, Rate, View
from piip.config.limits import MOST_PARAMETERS, Ratio, Width

Stride = Literal[4, 8, 16, 32]

GROUP_NORM_GROUPS = 32
"""groups of every GroupNorm in the merge and the maps, as in the released models"""

MOST_BRANCHES = 16

MAP_STRIDES = (4, 8, 16, 32)


class Interaction(Frozen):
    """The exchange between neighbouring branches after each group of blocks (paper, section 3.2)."""

    attention: Literal["deformable", "cross"] = "deformable"
    heads: Width = 16
    points: Width = 4
    """sampling points per query and head (deformable attention only)"""
    value_ratio: Ratio = 0.5
    """width of the values over the receiver's width (deformable attention only)"""
    projection: bool = True
    """project the other branch's features to the receiver's width first"""
    norm: Literal["layernorm", "none"] = "layernorm"
    ffn_ratio: Ratio | None = 0.25
    """hidden width of the convolutional FFN over the receiver's width; None for no FFN"""
    drop_path: Rate = 0.4

    def value_width(self, width: int) -> int:
        """Width of the values for a receiver of `width` channels."""
        return int(width * self.value_ratio) if self.attention == "deformable" else width


class FeatureMaps(Frozen):
    """The maps that the heads read, from the merged map (paper, section 3.3)."""

    strides: tuple[Stride, ...] = MAP_STRIDES  # type: ignore[assignment]
    norm: Literal["groupnorm", "layernorm"] = "groupnorm"
    """between the two transposed convolutions of the stride-4 map: GroupNorm in pyramids, a channels-first
    LayerNorm in the single-branch baselines"""
    merge_after: tuple[NonNegativeInt, ...] = ()
    """groups after which the branches are merged for one map each; the merge after the last group gives the coarsest.
    Empty: all maps are made from that last one. Both kinds of merge differ, see `backbone.merge`"""
    unused_level: bool = True
    """with strides (8, 16, 32): hold the parameters of the stride-4 level nevertheless, as some released models do"""

    @model_validator(mode="after")
    def _check(self) -> FeatureMaps:
        if self.strides not in (MAP_STRIDES, MAP_STRIDES[1:], MAP_STRIDES[2:]):
            raise ValueError(f"strides {self.strides}: valid are (4, 8, 16, 32), (8, 16, 32) and (16, 32)")
        if self.merge_after and (self.strides != MAP_STRIDES or len(self.merge_after) != len(MAP_STRIDES) - 1):
            raise ValueError(f"merge_after {self.merge_after} with strides {self.strides}: it takes three groups, for "
                             "the maps of strides 4, 8 and 16, and all four strides")  # fmt: skip
        if list(self.merge_after) != sorted(set(self.merge_after)):
            raise ValueError(f"merge_after {self.merge_after} must grow: the finest map comes first")
        return self


class Backbone(Frozen):
    """Branches finest first: the smallest model on the largest image comes first."""

    branches: tuple[Branch, ...] = Field(min_length=1, max_length=MOST_BRANCHES)
    interaction: Interaction | None = None
    """None for a single branch only"""
    maps: FeatureMaps | None = FeatureMaps()
    """None: no merge and no maps, for heads that read the branches themselves (classification)"""

    @property
    def groups(self) -> int:
        """Groups of blocks of every branch."""
        return len(self.branches[0].groups)

    @property
    def width(self) -> int:
        """Channels of the last merged map."""
        if self.maps is not None and self.maps.merge_after:
            return self.branches[-1].width
        return max(branch.width for branch in self.branches)

    @property
    def smallest_image(self) -> int:
        """The side, in pixels, from which on every branch has a token and every map a cell; others need padding."""
        finest = self.branches[0]
        side = finest.group_strides[-1] * (1 if self.maps is None else 2)  # the coarsest map may be half of the merged
        for branch in self.branches:
            while int(side * (branch.size / finest.size)) < branch.group_strides[-1]:
                side += 1
        return side

    @property
    def map_widths(self) -> tuple[int, ...]:
        """Channels of each feature map, finest first: all equal to `width`, but with `maps.merge_after`."""
        if self.maps is None:
            return ()
        if not self.maps.merge_after:
            return (self.width,) * len(self.maps.strides)
        return (*(self.branches[-1].group_widths[group] for group in self.maps.merge_after), self.width)

    @property
    def map_strides(self) -> tuple[float, ...]:
        """Pixels per cell of each feature map, finest first: `maps.strides` for patches of 16 pixels, half of them
        for patches of 8, and so on."""
        if self.maps is None:
            return ()
        finest = self.branches[0]
        unit = 1.0 if finest.family == "convnext" else finest.patch / 16
        return tuple(stride * unit for stride in self.maps.strides)

    def with_sizes(self, sizes: Sequence[int]) -> Backbone:
        """The same branches on another pyramid: a side in pixels for each, finest first.

        Position embeddings stay as they are stored; they are resized to whatever grid there is.

        Raises:
            ValueError: another number of sizes than of branches, or sizes that grow or do not fit a branch.
        """
        if len(sizes) != len(self.branches):
            raise ValueError(f"{len(sizes)} sizes for {len(self.branches)} branches: give one for each, finest first, "
                             f"as in {'/'.join(str(branch.size) for branch in self.branches)}")  # fmt: skip
        branches = [branch.model_dump() | {"size": size} for branch, size in zip(self.branches, sizes, strict=True)]
        return Backbone.model_validate(self.model_dump() | {"branches": branches})

    @property
    def views(self) -> tuple[View, ...]:
        """What each branch sees of a photo beside its tiles, finest first; none where all see the tile itself."""
        views = tuple(branch.view for branch in self.branches)
        return () if set(views) == {1.0} else views

    def with_views(self, views: Sequence[View]) -> Backbone:
        """The same branches with other views of a photo in tiles, finest first: (1, 2, "image").

        Raises:
            ValueError: another number of views than of branches, or a view that is none, or not 1 of the finest branch.
        """
        if len(views) != len(self.branches):
            raise ValueError(f"{len(views)} views for {len(self.branches)} branches: give one for each, finest first; "
                             "1 is the tile")  # fmt: skip
        branches = [branch.model_dump() | {"view": view} for branch, view in zip(self.branches, views, strict=True)]
        return Backbone.model_validate(self.model_dump() | {"branches": branches})

    def without_downloads(self, among: Collection[int] | None = None) -> Backbone:
        """The same, but its branches (or those `among` them) fetch no pretrained weights, which nobody would read."""
        branches = tuple(
            branch.model_copy(update={"pretrained": False}) if among is None or index in among else branch
            for index, branch in enumerate(self.branches)
        )
        return self.model_copy(update={"branches": branches})

    @model_validator(mode="after")
    def _check(self) -> Backbone:
        parameters = sum(branch.about_parameters for branch in self.branches)
        if parameters > MOST_PARAMETERS:
            raise ValueError(f"branches of about {parameters:.0e} weights; at most {MOST_PARAMETERS:.0e} are built")
        sizes = [branch.size for branch in self.branches]
        if sizes != sorted(sizes, reverse=True):
            raise ValueError(f"branch sizes {sizes} must not grow: list the finest branch (the smallest model on the "
                             f"largest image) first, here {sorted(sizes, reverse=True)}")  # fmt: skip
        counts = [len(branch.groups) for branch in self.branches]
        if len(set(counts)) > 1:
            raise ValueError(f"branches have {counts} groups of blocks; all need the same number")
        if len(self.branches) > 1 and self.interaction is None:
            raise ValueError("several branches need an `interaction`; use Interaction() for the paper's")
        if len(self.branches) == 1 and self.interaction is not None:
            raise ValueError("a single branch has nothing to interact with; leave `interaction` out")
        if self.interaction is not None:
            _check_heads(self.branches, self.interaction)
        if self.views:
            self._check_views()
        if self.maps is not None:
            self._check_maps(self.maps)
        return self

    def _check_views(self) -> None:
        if self.branches[0].view != 1:
            raise ValueError(f"view {self.branches[0].view} of the finest branch: it sees the tile itself, which the "
                             "maps are of; give it 1")  # fmt: skip
        if self.maps is None:
            raise ValueError("views are for tiles, which need feature maps; the backbone's `maps` are None")

    def _check_maps(self, maps: FeatureMaps) -> None:
        finest = self.branches[0]
        if maps.merge_after and maps.merge_after[-1] >= self.groups - 1:
            raise ValueError(f"merge_after {maps.merge_after}: the branches have groups 0 to {self.groups - 1}, and "
                             "the last one is always merged")  # fmt: skip
        if finest.family == "convnext":
            strides = tuple(finest.group_strides[group] for group in (*maps.merge_after, -1))
            if strides != MAP_STRIDES:
                first = tuple(
                    finest.group_strides.index(stride) for stride in MAP_STRIDES[:-1] if stride in finest.group_strides
                )
                raise ValueError(f"the finest branch is a ConvNeXt, whose grids give the maps: after the groups of "
                                 f"merge_after and the last one its strides must be {MAP_STRIDES}, not {strides}; with "
                                 f"these groups merge_after={first} would do")  # fmt: skip
        normalised = self.map_widths if len(self.branches) > 1 else ()
        if finest.family != "convnext" and maps.norm == "groupnorm":
            normalised = (*normalised, self.map_widths[0])
        for width in normalised:
            if width % GROUP_NORM_GROUPS:
                raise ValueError(f"the largest width, {width}, must be a multiple of {GROUP_NORM_GROUPS} "
                                 f"(GroupNorm); nearest are {_nearest(width, GROUP_NORM_GROUPS)}")  # fmt: skip


def _check_heads(branches: tuple[Branch, ...], interaction: Interaction) -> None:
    for i, branch in enumerate(branches):
        for width in sorted(set(branch.group_widths)):
            value_width = interaction.value_width(width)
            if value_width == 0 or value_width % interaction.heads:
                valid = [h for h in range(1, value_width + 1) if value_width % h == 0]
                raise ValueError(f"branch {i}: interaction values of {value_width} channels are not divisible by "
                                 f"{interaction.heads} heads; valid: {valid}")  # fmt: skip


def _nearest(value: int, multiple: int) -> list[int]:
    down = value // multiple * multiple
    return [side for side in (down, down + multiple) if side > 0]
