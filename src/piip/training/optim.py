"""AdamW with layer-wise learning rates per branch, the schedule, and the running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from piip.heads.classification.logits import BRANCH_HEADS
from piip.training.lora import MATRIX
from piip.training.settings import Settings

LayerStrides = tuple[float | None, ...] | None
"""see `Settings.layer_strides`"""
BETAS = (0.9, 0.999)
STEP_FACTOR = 0.1
LONGEST_WARMUP = 0.1
"""part of the run, for a warm-up that is given in steps"""
CONVNEXT_LAYERS = 12
"""what the released recipes count where no branch is a ViT"""


def build_optimizer(
    model: nn.Module, settings: Settings, processes: int = 1, fused: bool | None = None
) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`; `set_learning_rate` must be called before every step.

    `fused`: one kernel for each group, of which layer-wise rates make dozens; for parameters that will be on a GPU.
    """
    lr = settings.scaled_lr(processes)
    groups = parameter_groups(
        model,
        lr,
        settings.weight_decay,
        settings.layer_decay,
        settings.new_lr_factor,
        settings.layer_strides,
        branch_head_lr_factor=settings.branch_head_lr_factor,
        whole_layers=settings.whole_layers,
        decay_all=settings.decay_all,
        branch_lr_factors=settings.branch_lr_factors,
    )
    return torch.optim.AdamW(groups, lr=lr, betas=BETAS, fused=fused)


def restore_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """Load a checkpoint's state into an optimizer of `build_optimizer`, or accelerate's around it."""
    rates = [group["peak_lr"] for group in optimizer.param_groups]
    for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=False):
        saved["fused"] = group["fused"]  # as suits this device, whatever it was saved on
    optimizer.load_state_dict(state)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["peak_lr"] = rate  # the settings', which may change after a run that ended on broken numbers


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    layer_decay: float,
    new_lr_factor: float = 1.0,
    layer_strides: LayerStrides = None,
    *,
    branch_head_lr_factor: float | None = None,
    whole_layers: bool = True,
    decay_all: bool = False,
    branch_lr_factors: tuple[float, ...] | None = None,
) -> list[dict[str, Any]]:
    """Every trainable parameter in exactly one group of equal learning rate and weight decay.

    The learning rate is lr times `layer_factors`, in a branch times its own of `branch_lr_factors`, and outside the
    branches times `new_lr_factor` (but for the heads of single branches, if `branch_head_lr_factor` is given). Unless
    `decay_all`, parameters with one dimension and biases have no weight decay (reference, "Recipes"; single numbers,
    the weights of the merge, have).
    Each group keeps its learning rate before the schedule as `peak_lr`.
    """
    factors = layer_factors(model, layer_decay, layer_strides, whole_layers)
    if branch_lr_factors is not None:
        factors = by_branch(factors, branch_lr_factors, len(model.backbone.branches))  # type: ignore[union-attr, arg-type]
    head_factor = new_lr_factor if branch_head_lr_factor is None else branch_head_lr_factor
    groups: dict[tuple[float, float, type], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        usual = head_factor if name.startswith(BRANCH_HEADS) else new_lr_factor
        rate = lr * factors.get(name, usual)
        plain = not decay_all and (parameter.ndim == 1 or name.endswith(".bias"))
        decay = 0.0 if plain else weight_decay
        kind = type(parameter)  # sharded or not: an optimizer cannot take both at once
        group = groups.setdefault(
            (rate, decay, kind), {"params": [], "lr": rate, "peak_lr": rate, "weight_decay": decay}
        )
        group["params"].append(parameter)
    return list(groups.values())


def layer_factors(
    model: nn.Module, layer_decay: float, layer_strides: LayerStrides = None, whole_layers: bool = True
) -> dict[str, float]:
    """Learning rate over that of the head, of every parameter of the branches by name.

    With L the depth of the deepest ViT, the k-th block (from 0) of a branch is layer (k + 1) * stride, and its
    embedding is layer 0. `layer_strides` gives the stride of each branch, finest first, and None for a branch without
    layers, all of it at the full rate. By default it is L / depth: 2 for 24 over 12 blocks, 1.5 for 48 over 32.
    `whole_layers`: the layer is the whole number below, as in the official groups, which have it in their names.

    Raises ValueError where `layer_strides` does not fit the branches.
    """
    branches: Any = model.backbone.branches  # type: ignore[union-attr]
    depths = [branch.config.depth for branch in branches if branch.config.stages is None]  # a ConvNeXt has stages
    deepest = max(depths, default=CONVNEXT_LAYERS)
    strides = _strides([branch.config.depth for branch in branches], deepest, layer_strides)

    def layer(block: int, stride: float) -> float:
        exact = block * stride
        return math.floor(exact + 1e-6) if whole_layers else exact  # 3 * (7 / 3) is less than 7

    return {
        f"backbone.branches.{index}.{name}": 1.0
        if stride is None
        else layer_factor(layer(branch.layer(name), stride), deepest, layer_decay)
        for index, (branch, stride) in enumerate(zip(branches, strides, strict=True))
        for name, _ in branch.named_parameters()
        if MATRIX not in name  # new, as what is outside the branches
    }


def by_branch(factors: dict[str, float], given: tuple[float, ...], branches: int) -> dict[str, float]:
    """`layer_factors` times those of the branches; ValueError where there are not as many."""
    if len(given) != branches:
        raise ValueError(f"branch_lr_factors {given} for {branches} branches: give one number per branch, finest first")
    return {name: factor * given[int(name.split(".")[2])] for name, factor in factors.items()}


def layer_factor(layer: float, deepest: int, layer_decay: float) -> float:
    """The factor of layer `layer`: 0 is the embedding, `deepest` the last block.

    >>> [layer_factor(layer, deepest=4, layer_decay=0.5) for layer in (0, 2, 4)]
    [0.03125, 0.125, 0.5]
    """
    return float(layer_decay ** (deepest + 1 - layer))


def _strides(depths: Sequence[int], deepest: int, given: LayerStrides) -> list[float | None]:
    """The layers that a block counts for, by branch."""
    if given is None:
        return [deepest / depth for depth in depths]
    if len(given) != len(depths):
        raise ValueError(f"layer_strides {given} for {len(depths)} branches: give one number (or null) per branch, "
                         "finest first")  # fmt: skip
    for index, (stride, depth) in enumerate(zip(given, depths, strict=True)):
        if stride is not None and stride * depth > deepest:
            raise ValueError(f"layer_strides {given}: the {depth} blocks of branch {index} would reach layer "
                             f"{stride * depth:g} of {deepest}; use at most {deepest / depth:g}, or null")  # fmt: skip
    return list(given)


def schedule_factor(settings: Settings, step: int, total_steps: int, peak: float = 1.0) -> float:
    """Learning rate of optimizer step `step` (0-based) over the `peak` of its group: warm-up and schedule.

    The peak plays a part only where the settings give ends as learning rates (`warmup_lr`, `min_lr`).
    """
    if settings.lr_by_epoch:
        epoch_steps = total_steps // settings.epochs
        step = max(0, step // epoch_steps - 1) * epoch_steps
    warmup = _warmup_steps(settings, total_steps)
    if settings.warmup_lr is None:
        risen = step / warmup if step < warmup else 1.0
        return (1 - (1 - risen) * (1 - settings.warmup_ratio)) * _scheduled(settings, step, total_steps, peak)
    if step < warmup:
        begin = settings.warmup_lr / peak
        return begin + (1 - begin) * step / warmup
    return _scheduled(settings, step, total_steps, peak)


def _warmup_steps(settings: Settings, total_steps: int) -> float:
    if settings.warmup_part is not None:
        return settings.warmup_part * total_steps
    return min(settings.warmup_iters, int(LONGEST_WARMUP * total_steps))


def _scheduled(settings: Settings, step: int, total_steps: int, peak: float) -> float:
    """Without the warm-up."""
    if settings.schedule == "step":
        return STEP_FACTOR ** sum(step >= round(part * total_steps) for part in settings.milestones)
    end = settings.min_lr_ratio if settings.min_lr is None else settings.min_lr / peak
    if settings.schedule == "cosine":
        return end + (1 - end) * (1 + math.cos(math.pi * min(1.0, step / total_steps))) / 2
    if settings.schedule == "poly":
        return end + (1 - end) * max(0.0, 1 - step / total_steps) ** settings.power
    return 1.0


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: Callable[[float], float]) -> None:
    """Give every group `factor(its peak)` of its peak: a function of the step alone, with no state to save."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor(group["peak_lr"])


def keep_of(decay: float, updates: int) -> float:
    """What a running average keeps of itself after so many updates: from 0.1 on, growing to `decay`.

    So the first steps do not linger in short runs.
    """
    return min(decay, (1 + updates) / (10 + updates))


def build_average(model: nn.Module, decay: float) -> AveragedModel:
    """A running average of `model`: call `.update_parameters(model)` after every step; `.module` is the average.

    Its decay is `keep_of`.
    """

    def average(averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        torch._foreach_lerp_(list(averaged), list(current), 1 - keep_of(decay, int(updates)))

    averaged = AveragedModel(model, multi_avg_fn=average)
    for mean, value in zip(averaged.module.parameters(), model.parameters(), strict=True):
        if not value.requires_grad:
            mean.data = value.data  # frozen: it never changes, and is held once
    return averaged
