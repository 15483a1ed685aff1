"""Typed, frozen description of a branch of the backbone. Use it through `piip.config`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    model_validator,
)

from piip.config.limits import MOST_LAYERS, MOST_VIEW, Layers, Pixels, Ratio, Rows, Width

Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Group = tuple[int, int]
View = Annotated[float, Field(ge=1.0, le=MOST_VIEW)] | Literal["image"]
"""how many times the side of a tile, or the whole image"""

CONVNEXT_STAGES = 4
"""stages of every ConvNeXt: timm builds no others"""
LARGEST_BEIT_WINDOW = 64
"""cells of a side; the index of its biases has the fourth power of this"""


class Frozen(BaseModel):
    """Immutable, and strict about unknown keys: a typing mistake must not fall back to a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Stage(NamedTuple):
    """One stage of a ConvNeXt."""

    blocks: Layers
    width: Width


class Branch(Frozen):
    """One pretrained backbone on one resolution of the image.

    Either `model` names a timm ViT or ConvNeXt, whose architecture is read from timm, or the architecture fields
    describe a member of `family`.
    """

    size: Pixels
    """side, in pixels, that this branch sees when the finest branch sees its own `size`; only the ratio counts"""
    view: View = 1.0
    """in tiles, what of the photo this branch's image shows: so many times the tile's sides around it, as far as there
    is a photo, or "image": all of it. It is resized to the same `size`. Without tiles all branches see the same"""
    family: Literal["vit", "beit", "uni_perceiver", "intern_vit", "convnext", "clip"] = "vit"
    """"vit": plain pre-norm ViT (or any of timm's, by `model`); "beit": no positions, but a relative position bias
    in every window; "uni_perceiver": spatial and temporal positions and a norm before the blocks; "intern_vit":
    RMSNorm, queries and keys normalised over the full width; "convnext": a grid that shrinks; "clip": CLIP's image
    encoder, with a norm before the blocks"""
    model: str | None = None
    """timm name, e.g. "deit3_small_patch16_224.fb_in22k_ft_in1k" or "convnext_tiny" """
    pretrained: bool = False
    """start from timm's weights of `model` (downloaded by timm)"""
    depth: Layers
    """blocks; in a ConvNeXt the downsampling layers between its stages count as blocks"""
    width: Width
    """channels (of the last stage in a ConvNeXt)"""
    heads: Width
    """attention heads (1 in a ConvNeXt, which has no attention)"""
    mlp_ratio: Ratio = 4.0
    patch: Pixels = 16
    """side of a patch in pixels (4 in a ConvNeXt, the stride of its stem)"""
    stages: tuple[Stage, ...] | None = None
    """(blocks, width) of each stage of a ConvNeXt, e.g. ((3, 96), (3, 192), (9, 384), (3, 768))"""
    groups: tuple[Group, ...]
    """first and last block of each group; after each group all branches interact. A number is that many groups of
    about equal length"""
    windows: tuple[Pixels | None, ...]
    """per block: side of its attention windows in cells, or None for global attention. One value is for all blocks"""
    position_grid: Pixels | None
    """side, in cells, of the stored position embedding, which is resized to the grid at hand; None where the branch
    has none (rotary or relative positions, convolutions)"""
    position_prefix: Rows = 0
    """rows of the stored position embedding before those of the patches: one per class and register token"""
    prefix_tokens: Rows = 0
    """class and register tokens that run through the blocks beside the patches, the class token first. By `model`:
    all that the model has, or 0 to leave them out"""
    prefix_positions: bool = True
    """add the `position_prefix` rows to the prefix tokens; without, the rows are stored but not used"""
    drop_path: Rate = 0.0
    """stochastic depth"""
    drop_path_schedule: Literal["constant", "linear"] = "constant"
    """the same rate in all blocks, or a ramp from 0 to the rate"""
    layer_scale: PositiveFloat | None = 1.0
    """initial value of LayerScale; None for a branch without it"""
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu"
    qkv_bias: bool = True
    classifier_width: Width | None = None
    """of a hidden layer in a ConvNeXt's classifier, which is stored and not used; None without one"""
    checkpointing: bool = False
    """recompute each block in the backward pass: less memory, more time"""

    @property
    def group_widths(self) -> tuple[int, ...]:
        """Channels after each group of blocks."""
        if self.stages is None:
            return (self.width,) * len(self.groups)
        return tuple(self.stages[stage].width for stage in self._stages_of_groups(self.stages))

    @property
    def group_strides(self) -> tuple[int, ...]:
        """Pixels per cell after each group of blocks."""
        if self.stages is None:
            return (self.patch,) * len(self.groups)
        return tuple(self.patch * 2**stage for stage in self._stages_of_groups(self.stages))

    def _stages_of_groups(self, stages: tuple[Stage, ...]) -> list[int]:
        """The stage that the last block of each group belongs to."""
        stage_of_block = [0] * stages[0].blocks
        for index, stage in enumerate(stages[1:], start=1):
            stage_of_block += [index] * (1 + stage.blocks)  # a downsampling layer begins the stage
        return [stage_of_block[last] for _, last in self.groups]

    @property
    def about_parameters(self) -> float:
        """Weights of the blocks, roughly: what a limit can be held against before anything is built."""
        if self.stages is not None:
            return sum(8.0 * blocks * width**2 for blocks, width in self.stages)
        return self.depth * self.width**2 * (4.0 + 2.0 * self.mlp_ratio)

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        if values.get("model") is not None:
            from piip.config.timm_models import architecture

            values = architecture(values["model"]) | values
        if values.get("family") == "convnext":
            values = _convnext_architecture(values.get("stages")) | values
        elif values.get("family") == "beit":
            values.setdefault("position_grid", None)
        return _expand(values)

    @model_validator(mode="after")
    def _check(self) -> Branch:
        _check_groups(self.groups, self.depth)
        if self.model is not None:
            _check_model(self)
        _check_windows(self)
        _check_family(self)
        stride = self.group_strides[-1]
        if self.size < stride:
            raise ValueError(f"size {self.size} has no token grid with patches of {stride}: use at least {stride} "
                             "pixels")  # fmt: skip
        return self


def even_groups(depth: int, count: int) -> tuple[Group, ...]:
    """`depth` blocks in `count` groups of (nearly) equal length.

    >>> even_groups(4, 2)
    ((0, 1), (2, 3))
    """
    if not 1 <= count <= depth:
        raise ValueError(f"{depth} blocks cannot form {count} groups; use 1 to {depth}")
    ends = [math.floor(depth * (i + 1) / count) for i in range(count)]
    return tuple((start, end - 1) for start, end in zip([0, *ends[:-1]], ends, strict=True))


def _convnext_architecture(stages: Any) -> dict[str, Any]:
    pairs = isinstance(stages, list | tuple) and all(isinstance(stage, list | tuple) for stage in stages)
    if (
        not pairs
        or [len(stage) for stage in stages] != [2] * CONVNEXT_STAGES
        or not all(isinstance(number, int) for stage in stages for number in stage)
    ):
        raise ValueError(f"a ConvNeXt branch needs `stages`, (blocks, width) of each of its {CONVNEXT_STAGES} stages, "
                         "such as ConvNeXt-T's ((3, 96), (3, 192), (9, 384), (3, 768)), or a timm name as `model`; "
                         f"given: {stages!r:.200}")  # fmt: skip
    counts = [blocks for blocks, _ in stages]
    return {
        "depth": sum(counts) + len(counts) - 1,
        "width": stages[-1][1],
        "heads": 1,
        "patch": 4,
        "position_grid": None,
        "drop_path_schedule": "linear",
        "layer_scale": 1e-6,
    }


def _expand(values: dict[str, Any]) -> dict[str, Any]:
    """One number for `windows` and `groups` written out."""
    depth = values.get("depth")
    if not isinstance(depth, int) or depth > MOST_LAYERS:
        return values  # pydantic says what is wrong
    windows, groups = values.get("windows"), values.get("groups")
    if windows is None or isinstance(windows, int):
        values["windows"] = (windows,) * depth
    if isinstance(groups, int):
        values["groups"] = even_groups(depth, groups)
    return values


def _check_groups(groups: tuple[Group, ...], depth: int) -> None:
    expected = 0
    for first, last in groups:
        if first != expected or last < first:
            raise ValueError(f"groups {groups} skip or repeat a block at {(first, last)}: each group must begin at the "
                             f"block after the previous one's last, here {expected}")  # fmt: skip
        expected = last + 1
    if expected != depth:
        raise ValueError(f"groups {groups} end at block {expected - 1}, the branch at {depth - 1}; valid would be "
                         f"{even_groups(depth, max(1, min(len(groups), depth)))}")  # fmt: skip


def _check_windows(branch: Branch) -> None:
    grid = branch.size // branch.patch
    if len(branch.windows) != branch.depth:
        raise ValueError(f"{len(branch.windows)} windows for {branch.depth} blocks: give one per block, one number "
                         "for all, or none")  # fmt: skip
    used = {window for window in branch.windows if window is not None}
    if used and branch.family == "convnext":
        raise ValueError("a ConvNeXt branch has no attention: leave `windows` out")
    if branch.family == "beit" and max(used, default=0) > LARGEST_BEIT_WINDOW:
        raise ValueError(f"windows of {max(used)} cells with a bias for each pair of cells; use at most "
                         f"{LARGEST_BEIT_WINDOW}")  # fmt: skip
    if branch.family == "beit" and None in branch.windows:
        raise ValueError("a BEiT branch stores a relative position bias per window: every block needs a window")
    too_large = sorted(window for window in used if window > grid)
    if too_large:
        raise ValueError(f"windows of {too_large} cells do not fit the branch's grid of {grid} x {grid} cells; "
                         f"use at most {grid}, or none for global attention")  # fmt: skip


def _check_family(branch: Branch) -> None:
    if branch.width % branch.heads:
        valid = [heads for heads in range(1, branch.width + 1) if branch.width % heads == 0]
        raise ValueError(f"width {branch.width} is not divisible by {branch.heads} heads; valid: {valid}")
    if (branch.stages is not None) != (branch.family == "convnext"):
        raise ValueError(f"`stages` describes a ConvNeXt, not a branch of family {branch.family!r}")
    if branch.stages is not None:
        expected = _convnext_architecture(branch.stages)
        wrong = [key for key in ("depth", "width", "patch") if getattr(branch, key) != expected[key]]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} of a ConvNeXt follow from its stages; leave them out")
    has_positions = branch.family not in ("convnext", "beit")
    if branch.model is None and (branch.position_grid is not None) != has_positions:
        raise ValueError(f"position_grid {branch.position_grid}: a branch of family {branch.family!r} has "
                         f"{'a' if has_positions else 'no'} stored position embedding")  # fmt: skip
    if branch.prefix_tokens and branch.family not in ("vit", "intern_vit", "clip"):
        raise ValueError(f"a branch of family {branch.family!r} has no class or register tokens; prefix_tokens must "
                         "be 0")  # fmt: skip
    if branch.prefix_tokens and branch.position_prefix not in (0, branch.prefix_tokens):
        raise ValueError(f"position_prefix {branch.position_prefix} with {branch.prefix_tokens} prefix tokens; valid: "
                         f"0 and {branch.prefix_tokens}")  # fmt: skip


FIXED_BY_MODEL = ("family", "depth", "width", "heads", "mlp_ratio", "stages", "position_prefix", "layer_scale",
                  "qkv_bias")  # fmt: skip


def _check_model(branch: Branch) -> None:
    from piip.config.timm_models import architecture

    assert branch.model is not None
    read = architecture(branch.model)
    for key in FIXED_BY_MODEL:
        if key in read and getattr(branch, key) != read[key]:
            raise ValueError(f"{key} {getattr(branch, key)!r} is not that of {branch.model!r}, {read[key]!r}; leave it "
                             "out, or leave `model` out and give all of the architecture")  # fmt: skip
    if branch.activation != "gelu":
        raise ValueError(f"the activation is {branch.model!r}'s own; leave `activation` out")
    if branch.prefix_tokens not in (0, read["prefix_tokens"]):
        raise ValueError(f"prefix_tokens {branch.prefix_tokens}: {branch.model!r} has {read['prefix_tokens']}; use "
                         "that, or 0 to run it without")  # fmt: skip
    if (branch.position_grid is None) != (read["position_grid"] is None):
        raise ValueError(f"position_grid {branch.position_grid}: {branch.model!r} has "
                         f"{'no' if read['position_grid'] is None else 'a'} stored position embedding")  # fmt: skip
