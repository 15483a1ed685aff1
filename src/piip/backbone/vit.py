"""A timm vision transformer as a branch: any grid, windows, a range of blocks at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import QuickGELU
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from piip import config
from piip.backbone.block import Blocks, WindowBlock
from piip.backbone.branch import drop_path, drop_path_rates
from piip.backbone.fetched import created
from piip.config.timm_models import architecture
from piip.structures import BranchState, Size

ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "quick_gelu": QuickGELU,
}
EPSILON = 1e-6


class ViTBranch(nn.Module):
    """A pre-norm ViT. `vit` is timm's model, with timm's parameter names.

    Class and register tokens (`config.prefix_tokens`) run through the blocks with the patches and are kept in
    `BranchState.prefix` between them. In a block with windows every window attends to a copy of them, and the copies
    are averaged afterwards; with a single window that is global attention.
    """

    def __init__(self, branch: config.Branch) -> None:
        super().__init__()
        self.config = branch
        self.checkpointing = branch.checkpointing
        self.vit = self.build(branch)
        self.vit.norm = nn.Identity()
        self.vit.patch_embed.strict_img_size, self.vit.patch_embed.flatten = False, True  # any image, in rows
        self.vit.blocks = Blocks(
            WindowBlock(block, window, branch.prefix_tokens)
            for block, window in zip(self.vit.blocks, branch.windows, strict=True)
        )
        self.resize_positions = ResizedPositions()
        for block, rate in zip(self.vit.blocks, drop_path_rates(branch, branch.depth), strict=True):
            block.drop_path1, block.drop_path2 = drop_path(rate), drop_path(rate)

    def build(self, branch: config.Branch) -> Any:
        """timm's model, without a head."""
        return _by_name(branch) if branch.model is not None else plain_vit(branch)

    def embed(self, images: Tensor) -> BranchState:
        """[B, 3, H, W] -> tokens of the floor(H / patch) x floor(W / patch) grid, positions added."""
        patch = self.config.patch
        if min(images.shape[-2:]) < patch:
            raise ValueError(
                f"an image of {tuple(images.shape[-2:])} pixels has no token grid with patches of {patch}: each branch "
                f"must see at least {patch} x {patch} pixels"
            )
        size = (images.shape[-2] // patch, images.shape[-1] // patch)  # pixels beyond the last whole patch are dropped
        tokens = self.vit.patch_embed(images[..., : size[0] * patch, : size[1] * patch])
        positions = self.positions(size)
        if positions is not None:
            tokens = tokens + positions.to(tokens.dtype)
        prefix = self._prefix(images.shape[0])
        if prefix is not None:
            prefix = self.vit.norm_pre(prefix.to(tokens.dtype))
        return BranchState(self.vit.norm_pre(tokens), size, prefix)

    def positions(self, size: Size) -> Tensor | None:
        """The position embedding of a grid of `size`: [1, H*W, C], or None."""
        if self.vit.pos_embed is None:
            return None
        return self.resized(self.vit.pos_embed[:, self.config.position_prefix :], size)

    def resized(self, stored: Tensor, size: Size) -> Tensor:
        """See `ResizedPositions`."""
        return self.resize_positions.of(stored, size)

    def _prefix(self, batch: int) -> Tensor | None:
        """Class and register tokens before the first block: [B, K, C], or None."""
        if self.config.prefix_tokens == 0:
            return None
        names = ("cls_token", "dist_token", "reg_token")  # in timm's order
        tokens = [getattr(self.vit, name) for name in names if getattr(self.vit, name, None) is not None]
        prefix = torch.cat(tokens, dim=1)
        if self.config.position_prefix and self.config.prefix_positions:
            prefix = prefix + self.vit.pos_embed[:, : self.config.position_prefix]
        return prefix.expand(batch, -1, -1)

    def forward(self, state: BranchState, first: int, last: int) -> BranchState:
        """The state after blocks `first` to `last`, both included."""
        tokens = state.tokens if state.prefix is None else torch.cat((state.prefix, state.tokens), dim=1)
        rotary = self._rotary(state.size)
        tokens = self.vit.blocks(tokens, state.size, first, last, rotary, self.checkpointing)
        if state.prefix is None:
            return state._replace(tokens=tokens)
        prefix, tokens = tokens.split((state.prefix.shape[1], state.tokens.shape[1]), dim=1)
        return state._replace(tokens=tokens, prefix=prefix)

    def _rotary(self, size: Size) -> Tensor | None:
        """Rotary positions as timm's attention takes them: [H*W, 2D], or [depth, heads, H*W, 2D] if mixed."""
        rope: Any = getattr(self.vit, "rope", None)
        return None if rope is None else rope.get_embed(shape=size)

    def train(self, mode: bool = True) -> ViTBranch:
        """As ever, but rotary positions are never jittered: all groups of blocks must see the same ones."""
        super().train(mode)
        if getattr(self.vit, "rope", None) is not None:
            self.vit.rope.eval()
        return self

    def layer(self, parameter: str) -> int:
        """Depth of a parameter, by its name within the branch: 0 in the embedding, k + 1 in block k."""
        match = re.match(r"vit\.blocks\.(\d+)\.", parameter)
        return int(match[1]) + 1 if match else 0


def plain_vit(branch: config.Branch, norm: type[nn.Module] = nn.LayerNorm, epsilon: float = EPSILON) -> Any:
    """timm's VisionTransformer of the architecture in `branch`; without positions where `position_grid` is None."""
    grid = branch.position_grid
    vit = VisionTransformer(
        img_size=(grid or 1) * branch.patch,
        patch_size=branch.patch,
        num_classes=0,
        global_pool="",
        embed_dim=branch.width,
        depth=branch.depth,
        num_heads=branch.heads,
        mlp_ratio=branch.mlp_ratio,
        qkv_bias=branch.qkv_bias,
        init_values=branch.layer_scale,
        class_token=branch.prefix_tokens > 0,
        reg_tokens=max(0, branch.prefix_tokens - 1),
        no_embed_class=True,
        pos_embed="none" if grid is None else "learn",
        final_norm=False,
        norm_layer=partial(norm, eps=epsilon),
        act_layer=ACTIVATIONS[branch.activation],
        # On the meta device there is nothing to initialise, but timm would take seconds for it.
        weight_init="skip" if torch.get_default_device().type == "meta" else "",
    )
    if grid is not None and branch.position_prefix:
        rows = torch.empty(1, branch.position_prefix + grid**2, branch.width)
        vit.pos_embed = nn.Parameter(nn.init.trunc_normal_(rows, std=0.02))
    return vit


def _by_name(branch: config.Branch) -> Any:
    """timm's own model, its patches and position grid resized where the config says so."""
    assert branch.model is not None
    usual = architecture(branch.model)
    changes: dict[str, Any] = {}
    if branch.patch != usual["patch"]:
        changes["patch_size"] = branch.patch
    if branch.position_grid is not None and (changes or branch.position_grid != usual["position_grid"]):
        changes["img_size"] = branch.position_grid * branch.patch
    if timm.model_entrypoint(branch.model).__module__.endswith(".eva"):
        changes["dynamic_img_size"] = True  # else rotary positions are fixed to one grid
    vit: Any = created(branch.model, branch.pretrained, num_classes=0, **changes)
    vit.fc_norm = vit.attn_pool = None  # parts of timm's classification head
    if branch.prefix_tokens == 0:
        vit.cls_token = vit.dist_token = vit.reg_token = None
        for block in vit.blocks:
            block.attn.num_prefix_tokens = 0  # how many tokens rotary positions leave alone
    return vit


class ResizedPositions(nn.Module):
    """A stored position embedding for another grid; no parameters of its own."""

    def of(self, stored: Tensor, size: Size) -> Tensor:
        """A call on a copy of `stored`, as a parameter's view for an input would stop torch's counters of FLOPs."""
        resized: Tensor = self(stored.to(torch.float32, copy=True), size)
        return resized

    def forward(self, stored: Tensor, size: Size) -> Tensor:
        """[1, side*side, C], resized to `size` in float32: [1, H*W, C]."""
        side = round(stored.shape[1] ** 0.5)
        if size == (side, side):
            return stored.float()
        image = stored.float().reshape(side, side, -1).permute(2, 0, 1)[None]
        return F.interpolate(image, size=size, mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
