"""Where each branch contributes to the merged map of an image, and where exchanges look, as pictures."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from piip.backbone.interaction import DeformableCrossAttention, InteractionUnit
from piip.backbone.merge import Merge, resize
from piip.inference import choose
from piip.model import PIIPModel
from piip.ops.deformable_attention import DeformableSampling
from piip.prediction.preparing import input_transform
from piip.structures import Size


@dataclass(frozen=True, eq=False)
class Looks:
    """Where queries of one branch look in another's map: of the exchange after the last group."""

    receiver: int
    source: int
    points: Tensor
    """[Q, H * P, 2] places in the source's map, x and y from 0 to 1"""
    weights: Tensor
    """[Q, H * P], adding up to the number of heads"""
    grid: Size
    """of the queries"""
    shown: tuple[float, float]
    """shares of the height and width of grid and map that are over the image; the rest is padding"""


@dataclass(frozen=True, eq=False)
class Contributions:
    """Of one image."""

    image: np.ndarray
    """[H, W, 3] uint8 as the network sees it, without padding"""
    shares: Tensor
    """[branches, H, W]: each branch's share of the merged map, adding up to 1 in every pixel"""
    looks: list[Looks]


def contributions(model: PIIPModel, pixels: np.ndarray) -> Contributions:
    """What each branch gives for an image (uint8 [H, W, 3], RGB).

    A branch's share at a place is the length of its part of the merged map there, over the sum of all branches'.

    Raises:
        ValueError: a model without a merge: a single branch, or a classifier of separate heads.
    """
    model = copy.deepcopy(model).float()
    choose(model, "export")  # the plain modules, which pass through each step one after the other
    merge = model.backbone.merge
    if not isinstance(merge, Merge):
        raise ValueError(f"{model.config.name} merges no branches: there are no contributions to show")
    network_input = input_transform(model.config)(torch.from_numpy(pixels).permute(2, 0, 1))
    height, width = network_input.shape[-2:]
    parts: dict[int, Tensor] = {}
    seen: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    for index, project in enumerate(merge.projections):
        project.register_forward_hook(partial(_keep_part, parts, index, merge))
    for fine, unit in enumerate(model.backbone.interactions[-1].units):  # type: ignore[arg-type]
        _watch(unit, fine, seen)
    with torch.inference_mode():
        model.eval().features(_padded(network_input[None], model).to(next(model.parameters()).device))
    lengths = torch.stack([_on_pixels(parts[index], (height, width), model) for index in sorted(parts)])
    shares = lengths / lengths.sum(dim=0).clamp(min=1e-12)
    sides = _padded(torch.zeros(1, 1, height, width), model).shape[-2:]
    shown = height / sides[0], width / sides[1]
    looks = [
        Looks(receiver, source, points, weights, _grid(model, receiver, (height, width)), shown)
        for (receiver, source), (points, weights) in sorted(seen.items())
    ]
    return Contributions(_seen_image(network_input, model), shares, looks)


def _keep_part(parts: dict[int, Tensor], index: int, merge: Merge, _: nn.Module, __: object, output: Tensor) -> None:
    parts[index] = (output * merge.weights[index]).float().norm(dim=1, keepdim=True).cpu()


def _watch(unit: InteractionUnit, fine: int, seen: dict[tuple[int, int], tuple[Tensor, Tensor]]) -> None:
    for receiver, source, injector in ((fine, fine + 1, unit.to_fine), (fine + 1, fine, unit.to_coarse)):
        if isinstance(injector.attention, DeformableCrossAttention):
            sampling: DeformableSampling = injector.attention.sampling
            sampling.register_forward_pre_hook(partial(_keep_looks, seen, (receiver, source)))


def _keep_looks(
    seen: dict[tuple[int, int], tuple[Tensor, Tensor]], pair: tuple[int, int], _: nn.Module, given: tuple[Tensor, ...]
) -> None:
    points, weights = given[2][0], given[3][0]
    seen[pair] = points.float().flatten(1, -2).cpu(), weights.float().flatten(1).cpu()


def _padded(images: Tensor, model: PIIPModel) -> Tensor:
    multiple, least = model.config.preprocess.pad_multiple, model.config.backbone.smallest_image
    sides = [max(-(-side // multiple) * multiple, least) for side in images.shape[-2:]]
    return F.pad(images, (0, sides[1] - images.shape[-1], 0, sides[0] - images.shape[-2]))


def _on_pixels(part: Tensor, size: Size, model: PIIPModel) -> Tensor:
    """[1, 1, h, w] over the padded image to [H, W] over the image."""
    sides = _padded(torch.zeros(1, 1, *size), model).shape[-2:]
    return resize(part, (sides[0], sides[1]))[0, 0, : size[0], : size[1]]


def _grid(model: PIIPModel, branch: int, size: Size) -> Size:
    """Cells of a branch's last grid over the padded image."""
    branches = model.config.backbone.branches
    ratio = branches[branch].size / branches[0].size
    sides = _padded(torch.zeros(1, 1, *size), model).shape[-2:]
    stride = branches[branch].group_strides[-1]
    return int(sides[0] * ratio) // stride, int(sides[1] * ratio) // stride


def _seen_image(network_input: Tensor, model: PIIPModel) -> np.ndarray:
    preprocess = model.config.preprocess
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    pixels = (network_input * std + mean).round().clamp(0, 255).to(torch.uint8)
    return np.asarray(pixels.permute(1, 2, 0).contiguous().numpy())
