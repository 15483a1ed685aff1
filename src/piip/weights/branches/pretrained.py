"""Branches that start from pretrained backbones: timm's by name, or local files in the formats of the released models.

Every tensor of the file is accounted for. What the branch has no place for may only be a classifier, a decoder or a
token; a block that is missing is an error, and so is one left over that is not the next of a deeper model (which gives
its first blocks, and the report says so), so that a wrong file cannot pass for a right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from piip import config
from piip.backbone.fetched import created
from piip.backbone.piip import PIIPBackbone
from piip.config.timm_models import unknown
from piip.console import shortened
from piip.model import PIIPModel
from piip.weights.branches.fewer import first_blocks, without_layer_scale
from piip.weights.branches.formats import normalised, read_branch_file
from piip.weights.errors import WeightsError
from piip.weights.files import nonfinite_keys

TIMM_PREFIX = "timm:"
PUBLISHED = "published"
BLOCKS = ("vit.blocks.", "convnext.stages.", "convnext.stem.", "vit.patch_embed.")
"""names that a pretrained file and a branch must share completely"""
NEVER_RESIZED = ("vit.blocks.", "convnext.stages.")
"""but for tables of relative positions"""
SHOWN = 6


@dataclass(frozen=True)
class BranchReport:
    """What became of a pretrained file's tensors, by their names in the branch (of its head, by the file's)."""

    branch: int
    source: str
    used: tuple[str, ...]
    resized: tuple[str, ...]
    """with their old and new sizes"""
    added: tuple[str, ...]
    """parameters of the branch that the file does not have, which keep their initial value"""
    ignored: tuple[str, ...]
    """tensors of the file that the branch has no place for: classifiers, decoders, tokens"""
    left_out: str | None = None
    """blocks of a deeper model than the branch"""
    folded: int = 0
    """LayerScales that the branch does not have: the layers before them are scaled instead, which is the same"""

    def __str__(self) -> str:
        lines = [f"branch {self.branch} from {self.source}: {len(self.used)} tensors used as they are"]
        for title, names in (("resized", self.resized), ("added", self.added), ("ignored", self.ignored)):
            if names:
                lines.append(f"  {title}: {shortened(names, SHOWN)}")
        if self.left_out is not None:
            lines.append(f"  left out: {self.left_out}")
        if self.folded:
            lines.append(f"  LayerScale: {self.folded} folded into the layers before them, as the branch has none")
        return "\n".join(lines)


def load_branches(model: PIIPModel, sources: Mapping[int, str | Path]) -> list[BranchReport]:
    """Fill branches of `model` with pretrained weights: all of the given ones, or none after an error.

    The norm and linear head that each branch of some classifiers has are filled, too, where the file has them for as
    many classes.

    Args:
        model: its branches are changed in place.
        sources: branch (0 is the finest) -> "timm:NAME", whose weights timm downloads, or the path of a file: `.pth` of
            DeiT, DeiT III, MAE, DINOv2, BEiTv2, Uni-Perceiver, InternViT-6B or ConvNeXt (Facebook's or Hugging
            Face's), AugReg's `.npz`, or a `.safetensors` file of timm's.

    A model on the meta device has nothing to fill: no file is read, and there are no reports.

    Raises:
        WeightsError: no such branch or file, unreadable file, or one of another architecture.
    """
    _check_all(model.backbone, sources)
    if next(model.parameters()).is_meta:
        return []
    prepared = []
    for index, source in sources.items():
        branch, theirs = model.backbone.branches[index], _read(source)
        state, report = _fit(branch, theirs, index, str(source))
        head = branch_head(model, theirs, index)
        taken = tuple(name for name in theirs if name in head)
        ignored = tuple(name for name in report.ignored if name not in head)
        prepared.append((branch, state, head, replace(report, used=report.used + taken, ignored=ignored)))
    for branch, state, head, _ in prepared:
        branch.load_state_dict(state, strict=False)
        for parameter, value in head.values():
            parameter.data.copy_(value)
    return [report for *_, report in prepared]


def load_backbone_branches(backbone: PIIPBackbone, sources: Mapping[int, str | Path]) -> list[BranchReport]:
    """As `load_branches`, of a backbone without a head."""
    _check_all(backbone, sources)
    prepared = []
    for index, source in sources.items():
        branch = backbone.branches[index]
        prepared.append((branch, *_fit(branch, _read(source), index, str(source))))
    for branch, state, _ in prepared:
        branch.load_state_dict(state, strict=False)
    return [report for *_, report in prepared]


def branch_head(model: PIIPModel, theirs: Mapping[str, Tensor], index: int) -> dict[str, tuple[nn.Parameter, Tensor]]:
    """By their names, the tensors of a file that fit a classifier's norm and linear head of branch `index`."""
    if not isinstance(model.config.head, config.Classifier) or not model.config.head.separate_head:
        return {}
    logits: Any = model.head.logits
    norm, linear = logits.norms[index], logits.heads[index]
    places = {
        "norm.weight": norm.weight, "Transformer/encoder_norm/scale": norm.weight,
        "norm.bias": norm.bias, "Transformer/encoder_norm/bias": norm.bias,
        "head.weight": linear.weight, "head/kernel": linear.weight,
        "head.bias": linear.bias, "head/bias": linear.bias,
    }  # fmt: skip
    values = {name: theirs[name].T if name == "head/kernel" else theirs[name] for name in places if name in theirs}
    return {name: (places[name], value) for name, value in values.items() if value.shape == places[name].shape}


def check_sources(backbone: config.Backbone, sources: Mapping[int, str | Path]) -> None:
    """WeightsError for what cannot be a branch's weights: no such branch, file or timm model."""
    count = len(backbone.branches)
    for index, source in sources.items():
        if not 0 <= index < count:
            raise WeightsError(f"no branch {index}: the model has branches 0 (the finest) to {count - 1}")
        if str(source).startswith(TIMM_PREFIX):
            _check_timm_name(str(source).removeprefix(TIMM_PREFIX))
        elif not Path(source).is_file():
            raise WeightsError(f"{source}: no such file")


def _check_all(backbone: PIIPBackbone, sources: Mapping[int, str | Path]) -> None:
    """As `check_sources`, and WeightsError for timm models of another architecture, before anything is fetched."""
    check_sources(backbone.config, sources)
    for index, source in sources.items():
        if not str(source).startswith(TIMM_PREFIX):
            continue
        with torch.device("meta"):  # names and shapes alone
            theirs = dict(timm.create_model(str(source).removeprefix(TIMM_PREFIX)).state_dict())
        wanted = backbone.branches[index].state_dict()
        theirs, _ = first_blocks(normalised(theirs, str(source)), backbone.config.branches[index].depth)
        theirs, _ = without_layer_scale(theirs, wanted)
        added = [name for name in wanted if name not in theirs]
        ignored = [name for name in theirs if name not in wanted]
        wrong = [
            f"{name} {tuple(theirs[name].shape)} instead of {tuple(ours.shape)}"
            for name, ours in wanted.items()
            if name.startswith(NEVER_RESIZED) and not name.endswith("bias_table") and name in theirs
            and theirs[name].shape != ours.shape
        ]  # fmt: skip
        _refuse_other_architecture(str(source), index, added, ignored, wrong)


def branch_sources(texts: list[str], model: str) -> dict[int, str]:
    """What the command line's `--branch-weights` means: see `parse_sources`; "published": as the model of that name."""
    if texts != [PUBLISHED]:
        return parse_sources(texts)
    from piip import zoo

    return zoo.entry(model).branch_weights()


def parse_sources(texts: list[str]) -> dict[int, str]:
    """The command line's form, "0=PATH,1=timm:NAME", once or several times, as `load_branches` takes it."""
    sources: dict[int, str] = {}
    for part in ",".join(texts).split(","):
        index, separator, source = part.partition("=")
        if not separator or not index.strip().isdigit() or not source:
            raise WeightsError(
                f"--branch-weights {part!r}: write BRANCH=SOURCE, for example 0=deit_tiny.pth,1=timm:NAME"
            )
        sources[int(index)] = source
    return sources


def _read(source: str | Path) -> dict[str, Tensor]:
    """The source's tensors under our names for a branch."""
    if not str(source).startswith(TIMM_PREFIX):
        return read_branch_file(Path(source))
    return normalised(_timm_state_dict(str(source).removeprefix(TIMM_PREFIX)), str(source))


def _timm_state_dict(name: str) -> dict[str, Tensor]:
    """Weights of a timm model of this name, downloaded by timm (and kept in its cache)."""
    try:
        built = created(name, pretrained=True)
    except (RuntimeError, OSError, ValueError) as error:  # no such weights, or no connection
        said = f"{error}".removeprefix(f"{name}: ")
        raise WeightsError(f"{TIMM_PREFIX}{name}: {said}") from error
    return dict(built.state_dict())


def _check_timm_name(name: str) -> None:
    if not timm.is_model(name) or (name.partition(".")[2] and not timm.list_pretrained(name)):
        raise WeightsError(unknown(name))


# -- fitting ---------------------------------------------------------------------------------------------------------


def _fit(
    branch: nn.Module, theirs: dict[str, Tensor], index: int, source: str
) -> tuple[dict[str, Tensor], BranchReport]:
    """The branch's new tensors, and what became of the file's."""
    if broken := nonfinite_keys(theirs):
        raise WeightsError(f"{source}: NaN or infinite weights in {', '.join(broken[:SHOWN])}")
    wanted = branch.state_dict()
    theirs, left_out = first_blocks(theirs, branch.config.depth)  # type: ignore[union-attr, arg-type]
    theirs, folded = without_layer_scale(theirs, wanted)
    state: dict[str, Tensor] = {}
    resized, added, wrong = [], [], []
    for name, old in wanted.items():
        if name not in theirs:
            added.append(name)
            continue
        fitted = fit_tensor(name, theirs[name], old, branch.config)
        if fitted is None:
            wrong.append(f"{name} {tuple(theirs[name].shape)} instead of {tuple(old.shape)}")
            continue
        if theirs[name].shape != old.shape:
            resized.append(f"{name} {_extent(theirs[name])} -> {_extent(old)}")
        state[name] = fitted
    ignored = [name for name in theirs if name not in wanted]
    _refuse_other_architecture(source, index, added, ignored, wrong)
    used = [name for name in state if theirs[name].shape == wanted[name].shape]
    report = BranchReport(index, source, tuple(used), tuple(resized), tuple(added), tuple(ignored), left_out, folded)
    return state, report


def _refuse_other_architecture(source: str, index: int, added: list[str], ignored: list[str], wrong: list[str]) -> None:
    missing = [name for name in added if not _may_be_added(name)]
    left_over = [name for name in ignored if name.startswith(BLOCKS)]
    problems = {"of another shape": wrong, "missing": missing, "left over": left_over}
    found = [f"{len(names)} tensors {what}: {', '.join(names[:SHOWN])}" for what, names in problems.items() if names]
    if not found:
        return
    raise WeightsError(f"{source}: these weights are not of branch {index}'s architecture; {'; '.join(found)}")


def _may_be_added(name: str) -> bool:
    """LayerScale begins as what a model without it computes, times its initial value; unused norms do not matter."""
    return name.endswith((".ls1.gamma", ".ls2.gamma")) or name.startswith("convnext.head.")


def fit_tensor(name: str, theirs: Tensor, ours: Tensor, branch: Any) -> Tensor | None:
    """A tensor of a pretrained file in the shape that the branch needs, resized the official way; None if it cannot."""
    if theirs.shape == ours.shape:
        return theirs
    if theirs.ndim < 2:
        return None
    if name in ("vit.pos_embed", "spatial_pos_embed"):
        return _resize_positions(theirs, ours, branch.position_prefix)
    if name == "vit.patch_embed.proj.weight" and theirs.shape[:2] == ours.shape[:2]:
        return F.interpolate(theirs.float(), size=ours.shape[-2:], mode="bicubic", align_corners=False)
    if name.endswith(".relative_position_bias_table") and theirs.shape[1] == ours.shape[1]:
        return resize_bias_table(theirs, side_of(len(ours)))
    return None


def _resize_positions(theirs: Tensor, ours: Tensor, prefix: int) -> Tensor | None:
    """Rows of class and distillation tokens are kept or left out as the branch wants, the grid is resized (bicubic)."""
    stored = theirs.reshape(1, -1, theirs.shape[-1])
    extra = next((rows for rows in range(6) if side_of(stored.shape[1] - rows) ** 2 == stored.shape[1] - rows), None)
    if extra is None or stored.shape[-1] != ours.shape[-1] or prefix > max(extra, 1):
        return None
    side, new = side_of(stored.shape[1] - extra), side_of(ours.reshape(1, -1, ours.shape[-1]).shape[1] - prefix)
    rows, grid = stored[:, :extra].float(), stored[:, extra:].float()
    if side != new:
        image = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(image, size=(new, new), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    if prefix > extra:  # no class token in pretraining (DeiT III): the row is not used on patches
        rows = torch.zeros(1, prefix, stored.shape[-1])
    return torch.cat((rows[:, :prefix], grid), dim=1).reshape(ours.shape)


def resize_bias_table(table: Tensor, side: int) -> Tensor:
    """BEiT's relative position biases [T (+ 3), heads] for windows with `side` relative positions in each direction.

    The last three rows, those of the class token, are left out. Old positions are laid out at distances that grow
    geometrically to the new range, so that near ones keep their values; in between a cubic spline is followed.
    """
    old_side = side_of(len(table) - 3) if side_of(len(table) - 3) ** 2 == len(table) - 3 else side_of(len(table))
    grid = table[: old_side**2]
    if old_side == side:
        return grid
    try:
        from scipy.interpolate import RectBivariateSpline
    except ImportError as error:
        raise ImportError('resizing relative position biases needs scipy: pip install "piip[train]"') from error
    old, new = (
        _geometric_positions(old_side // 2, side // 2),
        torch.arange(-(side // 2), side // 2 + 1).double().numpy(),
    )
    resized = [
        RectBivariateSpline(old, old, head.reshape(old_side, old_side).double().numpy())(new, new)
        for head in grid.T.float()
    ]
    return torch.stack([torch.from_numpy(head).flatten() for head in resized], dim=1).to(table.dtype)


def _geometric_positions(old: int, new: int) -> list[float]:
    """2 * old + 1 places from about -new to new whose distances grow by one ratio, found by bisection."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**old) / (1 - ratio) > new:
            high = ratio
        else:
            low = ratio
    places, step = [], 1.0
    reached = 0.0
    for _ in range(old):
        reached += step
        places.append(reached)
        step *= ratio
    return [-place for place in reversed(places)] + [0.0] + places


def side_of(area: int) -> int:
    """Side of the largest square of at most `area` cells."""
    return int(max(0, area) ** 0.5 + 1e-9)


def _extent(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
