"""Parameters and multiply-adds as the paper's tables count them.

That counter sees the branches at their own sizes (position embeddings stored at that size), the interactions, and the
light merge of a classifier with its 1000 classes: not the convolutional merge and the upsampling that detectors and
segmentors really run. Its rules: linears and convolutions by multiply-adds, plus one per output for a convolution's
bias; LayerNorm and GroupNorm 2 per element (RMSNorm and ConvNeXt's norms none); attention 2 * N * N * C, or
2 * N * w * w * C in windows of side w, whether they fit the grid or not; deformable attention 5 * N * P * C.
`docs/counting.md` compares it with what runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from piip import config
from piip.structures import Size

CLASSES = 1000
"""of the classification head that the counter puts on every model"""


@dataclass(frozen=True)
class Count:
    """Parameters and multiply-adds of a part."""

    params: int = 0
    macs: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.params + other.params, self.macs + other.macs)

    def __mul__(self, times: int) -> Count:
        return Count(self.params * times, self.macs * times)


def published_counts(backbone: config.Backbone, image: Size, separate_heads: bool = False) -> dict[str, Count]:
    """Counts by part: "branch 0", ..., "interactions", "merge", "head".

    Args:
        backbone: a branch given by timm's name counts as a plain one of its depth and width.
        image: (height, width) of the finest branch's image.
        separate_heads: one class token and head per branch instead of a merge, as in the released classifiers.
    """
    images = [_image(image, branch.size / backbone.branches[0].size) for branch in backbone.branches]
    by_stage = backbone.maps is not None and bool(backbone.maps.merge_after)
    parts = {
        f"branch {index}": _branch(branch, size, by_stage)
        for index, (branch, size) in enumerate(zip(backbone.branches, images, strict=True))
    }
    parts["interactions"] = _interactions(backbone, images)
    if separate_heads:
        parts["head"] = _separate_heads(backbone, images)
    elif by_stage:
        parts["merge"] = _stage_merges(backbone, images)
    else:
        parts["merge"], parts["head"] = _light_merge(backbone, images), _linear(backbone.width, CLASSES, 1)
    return parts


def _image(image: Size, ratio: float) -> Size:
    return (int(image[0] * ratio), int(image[1] * ratio)) if ratio < 1 else image


def _grid(image: Size, stride: int) -> Size:
    return image[0] // stride, image[1] // stride


# -- layers ----------------------------------------------------------------------------------------------------------


def _linear(inputs: int, outputs: int, tokens: int, bias: bool = True) -> Count:
    return Count(inputs * outputs + (outputs if bias else 0), tokens * inputs * outputs)


def _convolution(inputs: int, outputs: int, kernel: int, cells: int, bias: bool = True) -> Count:
    weights = inputs * outputs * kernel**2
    return Count(weights + (outputs if bias else 0), cells * (weights + (outputs if bias else 0)))


def _norm(width: int, tokens: int) -> Count:
    """LayerNorm or GroupNorm."""
    return Count(2 * width, 2 * tokens * width)


# -- branches --------------------------------------------------------------------------------------------------------


def _branch(branch: config.Branch, image: Size, by_stage: bool) -> Count:
    if branch.stages is not None:
        return _convnext(branch, branch.stages, image)
    grid, width = _grid(image, branch.patch), branch.width
    cells = prod(grid)
    tokens = cells + branch.prefix_tokens
    total = _convolution(3, width, branch.patch, cells) + Count(branch.prefix_tokens * width)
    if branch.position_grid is not None:
        total += Count((cells + branch.position_prefix) * width)
    if branch.family == "uni_perceiver":
        total += Count(8 * width) + _norm(width, cells)  # temporal positions, and the norm before the blocks
    padded = by_stage or _is_official_intern_class(branch)
    for window in branch.windows:
        total += _block(branch, grid, tokens, window, padded)
    return total


def _block(branch: config.Branch, grid: Size, tokens: int, window: int | None, padded: bool) -> Count:
    width, cells = branch.width, prod(grid)
    queried = prod(-(-side // window) * window for side in grid) if window is not None and padded else tokens
    total = _linear(width, 3 * width, queried, branch.qkv_bias) + _linear(width, width, tokens)
    total += Count(macs=2 * cells * (cells if window is None else window**2) * width)
    hidden = int(width * branch.mlp_ratio)
    total += _linear(width, hidden, tokens) + _linear(hidden, width, tokens)
    if branch.family == "intern_vit":
        total += Count(4 * width)  # two RMSNorms, and those of the queries and keys
    else:
        total += _norm(width, tokens) * 2
    if branch.family == "beit":
        total += Count((2 * (window or 1) - 1) ** 2 * branch.heads - width)  # keys have no bias there
    return total + Count(0 if branch.layer_scale is None else 2 * width)


def _is_official_intern_class(branch: config.Branch) -> bool:
    """The counter's code pads windows before the qkv projection in this class only, and so counts the padding.

    Models with merges by stage were counted with the detection code, where all classes do.
    """
    return branch.family in ("vit", "intern_vit") and branch.position_prefix == 1


def _convnext(branch: config.Branch, stages: tuple[config.Stage, ...], image: Size) -> Count:
    total = Count()
    previous, stride = 3, branch.patch
    for index, (blocks, width) in enumerate(stages):
        cells = prod(_grid(image, stride))
        kernel = branch.patch if index == 0 else 2
        total += _convolution(previous, width, kernel, cells) + Count(2 * (width if index == 0 else previous))
        layers = _depthwise(width, 7, cells) + _linear(width, 4 * width, cells) + _linear(4 * width, width, cells)
        total += (layers + Count(2 * width + (0 if branch.layer_scale is None else width))) * blocks
        previous, stride = width, stride * 2
    return total + Count(2 * previous)


def _depthwise(width: int, kernel: int, cells: int) -> Count:
    return Count(width * (kernel**2 + 1), cells * width * (kernel**2 + 1))


# -- interactions and merge ------------------------------------------------------------------------------------------


def _interactions(backbone: config.Backbone, images: list[Size]) -> Count:
    total = Count()
    if backbone.interaction is None:
        return total
    for group in range(backbone.groups):
        widths = [branch.group_widths[group] for branch in backbone.branches]
        cells = _cells(backbone, images, group)
        for fine, coarse in zip(range(len(widths) - 1), range(1, len(widths)), strict=True):
            for to, source in ((fine, coarse), (coarse, fine)):
                total += _injector(backbone.interaction, widths[to], cells[to], widths[source], cells[source])
    return total


def _cells(backbone: config.Backbone, images: list[Size], group: int) -> list[int]:
    return [
        prod(_grid(image, branch.group_strides[group])) for branch, image in zip(backbone.branches, images, strict=True)
    ]


def _injector(interaction: config.Interaction, width: int, queries: int, source_width: int, sources: int) -> Count:
    total = Count(width)  # the gamma
    projected = width if interaction.projection else source_width
    if interaction.projection:
        total += _linear(source_width, width, sources)
    if interaction.norm == "layernorm":
        total += _norm(width, queries) + _norm(projected, sources)
    if interaction.attention == "deformable":
        points, value_width = interaction.heads * interaction.points, interaction.value_width(width)
        total += _linear(width, 3 * points, queries) + _linear(projected, value_width, sources)
        total += _linear(value_width, width, queries) + Count(macs=5 * queries * interaction.points * width)
    else:
        total += (_linear(width, width, queries) + _linear(projected, width, sources)) * 2
        total += Count(macs=2 * queries * sources * width)
    if interaction.ffn_ratio is not None:
        hidden = int(width * interaction.ffn_ratio)
        total += _linear(width, hidden, queries) + _depthwise(hidden, 3, queries) + _linear(hidden, width, queries)
        total += Count(width) + (_norm(width, queries) if interaction.norm == "layernorm" else Count())
    return total


def _light_merge(backbone: config.Backbone, images: list[Size]) -> Count:
    """A norm per branch, a linear layer to the largest width and another norm (the coarsest: the first norm only).

    A single branch has its final norm only, which in InternViT is an RMSNorm.
    """
    cells = _cells(backbone, images, -1)
    width = backbone.width
    if len(cells) == 1:
        return Count(width) if backbone.branches[0].family == "intern_vit" else _norm(width, cells[0])
    total = Count(len(cells)) + _norm(width, cells[0])  # the branches' weights, and the norm of their sum
    for branch, own in zip(backbone.branches, cells, strict=True):
        total += _norm(branch.width, own)
    for branch, own in zip(backbone.branches[:-1], cells[:-1], strict=True):
        total += _linear(branch.width, width, own) + _norm(width, own)
    return total


def _separate_heads(backbone: config.Backbone, images: list[Size]) -> Count:
    total = Count()
    for branch, cells in zip(backbone.branches, _cells(backbone, images, -1), strict=True):
        total += _norm(branch.width, cells + branch.prefix_tokens) + _linear(branch.width, CLASSES, 1)
    return total


def _stage_merges(backbone: config.Backbone, images: list[Size]) -> Count:
    """Models with ConvNeXt branches were counted with their real merges: a convolution per branch but the coarsest."""
    assert backbone.maps is not None
    total = Count()
    if len(backbone.branches) == 1:
        return total
    for group in (*backbone.maps.merge_after, backbone.groups - 1):
        widths = [branch.group_widths[group] for branch in backbone.branches]
        for index, (width, cells) in enumerate(zip(widths, _cells(backbone, images, group), strict=True)):
            convolved = _convolution(width, widths[-1], 3, cells, bias=False) if index < len(widths) - 1 else Count()
            total += convolved + _norm(widths[-1], cells) + Count(1, cells * widths[-1])  # and a ReLU
    return total
