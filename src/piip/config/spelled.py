"""A pyramid in words, "vit_tiny_patch16_224@672 + vit_small_patch14_dinov2@448", and what such words leave open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ValidationError

from piip.config.backbone import Backbone, FeatureMaps, Interaction, Stride
from piip.config.branch import CONVNEXT_STAGES, Branch, Group
from piip.config.errors import problems
from piip.config.timm_models import architecture

MOST_GROUPS = 12
"""of blocks: as often do the branches of the released detectors interact"""
WINDOW = 14
"""cells: the grid that most ViTs were pretrained on, and the windows of the released detectors"""
LARGEST_GLOBAL_GRID = 32
"""cells of a side, up to which attention is global where nothing is said"""
INTERACTION_HEADS = (16, 8, 4, 2, 1)
"""the released models' number, and those that divide narrower branches"""

Windows = Literal["auto"] | int | None


def spelled_branches(
    text: str, groups: int | None = None, windows: Windows = "auto", pretrained: bool = False
) -> tuple[Branch, ...]:
    """The branches that `text` spells: timm names, each with the side of its image in pixels, finest first.

    Args:
        text: NAME@SIZE + NAME@SIZE + ...
        groups: of blocks, after each of which the branches interact; None: 12, or as many as the shallowest branch
            has blocks; with ConvNeXts 4, one for each stage.
        windows: side in cells of the attention windows of ViTs, None for global attention; "auto": global on grids up
            to 32 cells a side, where it costs little, and windows of 14 on larger ones.
        pretrained: begin as timm's weights, which are downloaded when the model is built.

    Raises:
        ValueError: other words, names that are no branches, sizes that grow.
    """
    named = [_name_and_size(part) for part in text.split("+")]
    read = [architecture(name) for name, _ in named]
    staged = any(fields["family"] == "convnext" for fields in read)
    if staged and groups not in (None, CONVNEXT_STAGES):
        raise ValueError(f"{groups} groups with a ConvNeXt, whose stages are the groups: leave them out")
    count = CONVNEXT_STAGES if staged else groups or min(MOST_GROUPS, *(fields["depth"] for fields in read))
    branches = []
    for (name, size), fields in zip(named, read, strict=True):
        given: dict[str, Any] = {"model": name, "size": size, "pretrained": pretrained, "prefix_tokens": 0}
        if fields["family"] == "convnext":
            given["groups"] = _stage_groups(fields["stages"])
        else:
            given |= {"groups": count, "windows": _window(windows, size // fields["patch"])}
        branches.append(Branch.model_validate(given))
    return tuple(branches)


def spelled_backbone(
    text: str,
    strides: tuple[Stride, ...] = (4, 8, 16, 32),
    groups: int | None = None,
    windows: Windows = "auto",
    pretrained: bool = False,
) -> Backbone:
    """The whole backbone; see `spelled_branches` and `backbone_of`. ValueError in a line for whatever is wrong."""
    try:
        return backbone_of(spelled_branches(text, groups, windows, pretrained), strides)
    except ValidationError as error:
        raise ValueError(f"{text}: {problems(error)}") from error


def backbone_of(
    branches: Sequence[Branch],
    strides: tuple[Stride, ...] | None = (4, 8, 16, 32),
    interaction: dict[str, Any] | None = None,
    maps: dict[str, Any] | None = None,
) -> Backbone:
    """A backbone of these branches with the paper's interactions, merge and maps, where nothing else is said.

    `strides` of the maps in pixels of images with patches of 16; None: no maps, for classification. `interaction` and
    `maps` are fields of `config.Interaction` and `config.FeatureMaps`.
    """
    several = len(branches) > 1
    between = None
    if several:
        usual = {"heads": _interaction_heads(branches)}
        between = Interaction.model_validate(usual | (interaction or {}))
    described = None
    if strides is not None:
        usual_maps: dict[str, Any] = {"strides": strides, "unused_level": False}
        if branches[0].family == "convnext":
            usual_maps |= {"strides": (4, 8, 16, 32), "merge_after": (0, 1, 2)}
        if not several:
            usual_maps["norm"] = "layernorm"
        described = FeatureMaps.model_validate(usual_maps | (maps or {}))
    return Backbone(branches=tuple(branches), interaction=between, maps=described)


def _name_and_size(part: str) -> tuple[str, int]:
    name, separator, size = (piece.strip() for piece in part.rpartition("@"))
    if not separator or not name or not size.isdecimal():
        raise ValueError(f'{part.strip()!r}: write NAME@SIZE for each branch and "+" between them, finest first, for '
                         'example "vit_tiny_patch16_224@672 + vit_small_patch14_dinov2@448"')  # fmt: skip
    return name, int(size)


def _window(windows: Windows, grid: int) -> int | None:
    if windows != "auto":
        return windows
    return None if grid <= LARGEST_GLOBAL_GRID else WINDOW


def _stage_groups(stages: Sequence[Sequence[int]]) -> tuple[Group, ...]:
    """The blocks of each stage; the downsampling layer that begins it counts as one, but before the first stage."""
    groups, first = [], 0
    for index, (blocks, _) in enumerate(stages):
        last = first + blocks - (1 if index == 0 else 0)
        groups.append((first, last))
        first = last + 1
    return tuple(groups)


def _interaction_heads(branches: Sequence[Branch]) -> int:
    """The most heads, up to the released models', that divide the values of every branch."""
    widths = {width for branch in branches for width in branch.group_widths}
    value = Interaction().value_width
    return next(heads for heads in INTERACTION_HEADS if all(value(width) % heads == 0 for width in widths))
