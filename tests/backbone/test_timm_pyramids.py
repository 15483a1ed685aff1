"""timm's models by name as branches of whole pyramids: odd grids, windows, class and register tokens."""

from typing import Any

import pytest
import torch

from piip import config
from piip.backbone import PIIPBackbone
from piip.backbone.branch import restore_buffers
from piip.config.timm_models import pixel_statistics

VITS: tuple[Any, ...] = (
    "vit_small_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
    "eva02_small_patch14_224",
    "vit_xsmall_patch16_clip_224",
    pytest.param("vit_base_patch16_clip_224", marks=pytest.mark.slow),  # 86 million random numbers a time
    "deit3_small_patch16_224",
)
CONVNEXTS = ("convnext_tiny", "convnextv2_tiny")
STAGES = ((0, 2), (3, 6), (7, 16), (17, 20))
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
CLIP = ((122.771, 116.746, 104.094), (68.5, 66.632, 70.323))


def pyramid(name: str, finest: bool, **fields: Any) -> config.Backbone:
    """timm's model `name` beside a ViT of our own, on 112 and 84 pixels."""
    groups: Any = STAGES if name in CONVNEXTS else 4
    by_name = {"model": name, "groups": groups, **fields}
    own = {"depth": 4, "width": 64, "heads": 2, "groups": 4, "windows": None, "position_grid": 4}
    branches = (by_name, own) if finest else (own, by_name)
    maps: dict[str, Any] = {"merge_after": (0, 1, 2)} if name in CONVNEXTS and finest else {}
    return config.Backbone.model_validate({
        "branches": [branch | {"size": size} for branch, size in zip(branches, (112, 84), strict=True)],
        "interaction": {"heads": 4},
        "maps": maps,
    })  # fmt: skip


def filled(backbone: config.Backbone) -> PIIPBackbone:
    """Random weights; nothing is nearly 0 that would hide a part. timm's own initialisation takes seconds."""
    with torch.device("meta"):
        module = PIIPBackbone(backbone)
    state = module.state_dict()
    for key, old in state.items():
        new = torch.randn(old.shape)
        state[key] = new / old[0].numel() ** 0.5 if old.ndim > 1 else 1 + 0.1 * new if key.endswith("t") else 0.1 * new
    module.load_state_dict(state, assign=True)
    restore_buffers(module)
    return module.eval()


@pytest.mark.parametrize("finest", [True, False], ids=["finest", "coarsest"])
@pytest.mark.parametrize("name", [*VITS, *CONVNEXTS])
def test_a_pyramid_gives_maps_of_any_image(name: str, finest: bool) -> None:
    windows = {} if name in CONVNEXTS else {"windows": 3}
    backbone = pyramid(name, finest, **windows)
    module = filled(backbone)
    images = torch.randn(2, 3, 90, 118)  # whole in patches of neither 14 nor 16
    with torch.no_grad():
        maps = module(images)
        first = module(images[:1])
    assert [level.shape[1] for level in maps] == list(backbone.map_widths)
    for level, alone in zip(maps, first, strict=True):
        assert level.isfinite().all()
        assert level[0].std() > 0
        torch.testing.assert_close(level[:1], alone, atol=2e-4, rtol=1e-4)  # images of a batch do not mix
    patch = backbone.branches[0].patch
    per_patch = 1 if patch == 4 else 4  # a ConvNeXt's grid is that of its first map; a ViT's is upsampled
    assert tuple(maps[0].shape[-2:]) == tuple(side // patch * per_patch for side in images.shape[-2:])


@pytest.mark.parametrize("name", [*VITS, *CONVNEXTS])
def test_every_trained_parameter_of_the_named_branch_is_used(name: str) -> None:
    module = filled(pyramid(name, finest=False))
    sum(level.square().mean() for level in module(torch.randn(1, 3, 112, 112))).backward()
    unused = [
        key
        for key, parameter in module.branches[1].named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    assert unused == []


@pytest.mark.parametrize("name", VITS[:-1])
def test_class_and_register_tokens_reach_the_maps_unless_left_out(name: str) -> None:
    images = torch.randn(1, 3, 112, 112)
    module = filled(pyramid(name, finest=False))
    with torch.no_grad():
        before = module(images)[0]
        module.branches[1].vit.cls_token.add_(1.0)
        after = module(images)[0]
    assert not torch.allclose(before, after)
    without = filled(pyramid(name, finest=False, prefix_tokens=0))
    assert without.branches[1].vit.cls_token is None
    assert without(images)[0].isfinite().all()


@pytest.mark.parametrize("name", [*VITS, *CONVNEXTS])
def test_pixel_statistics(name: str) -> None:
    expected = CLIP if "clip" in name or "eva02" in name else IMAGENET
    for found, known in zip(pixel_statistics(name), expected, strict=True):
        assert found == pytest.approx(known, abs=0.01)


def test_swin_is_refused_with_what_works() -> None:
    with pytest.raises(ValueError, match=r"swin_tiny_patch4_window7_224.*cannot be a branch.*convnext_tiny"):
        pyramid("swin_tiny_patch4_window7_224", finest=True)
