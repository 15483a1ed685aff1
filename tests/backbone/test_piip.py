"""The backbone as a whole, on tiny widths."""

import copy
import pickle

import pytest
import torch
from tests import tiny
from torch import Tensor

from piip import config
from piip.backbone import PIIPBackbone
from piip.backbone.pyramid import image_pyramid
from piip.backbone.vit import plain_vit

ODD_SIZES = [(32, 32), (128, 96), (33, 47), (61, 95), (101, 64), (97, 129)]


def build(branches: int = 3, seed: int = 0, **interaction) -> PIIPBackbone:
    """With gammas and other parameters away from where they begin, so that everything takes part."""
    torch.manual_seed(seed)
    backbone = PIIPBackbone(tiny.backbone(branches, **interaction)).eval()
    for name, parameter in backbone.named_parameters():
        if parameter.ndim <= 1 and "sampling_offsets" not in name:
            torch.nn.init.normal_(parameter, mean=0.2, std=0.3)
    return backbone


def largest_difference(actual: list[Tensor], expected: list[Tensor]) -> float:
    return max((a.float() - b.float()).abs().max().item() for a, b in zip(actual, expected, strict=True))


@pytest.mark.parametrize("branches", [1, 2, 3, 4])
@pytest.mark.parametrize("attention", ["deformable", "cross"])
@torch.no_grad()
def test_any_number_of_branches_at_any_size(branches: int, attention: str) -> None:
    backbone = build(branches) if branches == 1 else build(branches, attention=attention)
    coarsest = tiny.SIZES[branches - 1] / tiny.SIZES[0]
    for height, width in ODD_SIZES:
        if min(height, width) * coarsest < 16:
            continue
        maps = backbone(torch.randn(1, 3, height, width))
        rows, columns = height // 16, width // 16
        expected = [(rows * 4, columns * 4), (rows * 2, columns * 2), (rows, columns), (rows // 2, columns // 2)]
        assert [tuple(level.shape) for level in maps] == [(1, backbone.config.width, *grid) for grid in expected]
        assert all(level.isfinite().all() for level in maps)


@pytest.mark.parametrize("attention", ["deformable", "cross"])
@torch.no_grad()
def test_images_of_a_batch_do_not_mix(attention: str) -> None:
    backbone = build(attention=attention)
    images = torch.randn(3, 3, 75, 110)
    together = backbone(images)
    for index in range(3):
        alone = backbone(images[index, None])
        assert largest_difference([level[index, None] for level in together], alone) < 1e-4


@torch.no_grad()
def test_without_interaction_every_branch_is_its_own_vit() -> None:
    """Gammas at 0, as they begin: the tokens are those of the plain timm models on their resolutions."""
    backbone = PIIPBackbone(tiny.backbone(3)).eval()
    images = torch.randn(2, 3, 96, 128)
    pyramid = image_pyramid(images, [branch.size for branch in backbone.config.branches])
    for branch, image, state in zip(backbone.branches, pyramid, backbone.states(images), strict=True):
        expected = branch(branch.embed(image), 0, 3)
        torch.testing.assert_close(state.tokens, expected.tokens)
        assert state.size == (image.shape[2] // 16, image.shape[3] // 16)


@torch.no_grad()
def test_equals_plain_timm_blocks_where_attention_is_global() -> None:
    branches = tuple(
        tiny.branch(size, width, windows=None) for size, width in zip(tiny.SIZES[:2], tiny.WIDTHS[:2], strict=True)
    )
    backbone = PIIPBackbone(config.Backbone(branches=branches, interaction=tiny.interaction())).eval()
    images = torch.randn(1, 3, 64, 128)
    for branch, image, state in zip(
        backbone.branches, image_pyramid(images, (128, 96)), backbone.states(images), strict=True
    ):
        timms = plain_vit(branch.config).eval()
        timms.load_state_dict(branch.vit.state_dict())
        torch.testing.assert_close(state.tokens, timms.blocks(branch.embed(image).tokens))


@torch.no_grad()
def test_the_stages_come_in_the_papers_order() -> None:
    backbone = build(3)
    images = torch.randn(1, 3, 96, 128)
    pyramid = image_pyramid(images, tiny.SIZES[:3])
    states = [branch.embed(image) for branch, image in zip(backbone.branches, pyramid, strict=True)]
    for group, blocks in enumerate(((0, 1), (2, 3))):
        states = [branch(state, *blocks) for branch, state in zip(backbone.branches, states, strict=True)]
        states = backbone.interactions[group](states)
    expected = backbone.maps(backbone.merge(states))
    assert largest_difference(backbone(images), expected) < 1e-5


@torch.no_grad()
def test_a_single_branch_has_neither_interaction_nor_merge_weights() -> None:
    backbone = build(1)
    names = {name.split(".")[0] for name, _ in backbone.named_parameters()}
    assert names == {"branches", "maps"}
    images = torch.randn(1, 3, 64, 96)
    tokens = backbone.states(images)[0].tokens
    torch.testing.assert_close(backbone(images)[2], tokens.transpose(1, 2).reshape(1, 32, 4, 6))


@torch.no_grad()
def test_the_order_of_branches_matters_not_their_index_in_a_name() -> None:
    """Every branch moves every map: no branch is left out of the flow."""
    images = torch.randn(1, 3, 96, 128)
    expected = build(4)(images)
    for index in range(4):
        changed = build(4)
        torch.nn.init.normal_(changed.branches[index].vit.patch_embed.proj.weight)
        differences = [(a - b).abs().max() for a, b in zip(changed(images), expected, strict=True)]
        assert min(differences) > 1e-4


@pytest.mark.parametrize("branches", [1, 3])
def test_every_parameter_is_trained(branches: int) -> None:
    backbone = build(branches).train()
    sum(level.square().mean() for level in backbone(torch.randn(2, 3, 65, 97))).backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("attention", ["deformable", "cross"])
def test_meta_device(attention: str) -> None:
    with torch.device("meta"):
        backbone = PIIPBackbone(tiny.backbone(3, attention=attention))
    assert all(parameter.is_meta for parameter in backbone.parameters())
    maps = backbone(torch.empty(2, 3, 96, 128, device="meta"))
    assert [tuple(level.shape) for level in maps] == [(2, 96, 24, 32), (2, 96, 12, 16), (2, 96, 6, 8), (2, 96, 3, 4)]
    assert all(level.is_meta for level in maps)


@torch.no_grad()
def test_bfloat16_autocast_is_close() -> None:
    backbone, images = build(), torch.randn(1, 3, 96, 128)
    expected = backbone(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = backbone(images)
    for level, wanted in zip(actual, expected, strict=True):
        assert (level.float() - wanted).abs().mean() < 0.05 * wanted.abs().mean()


def test_bfloat16_autocast_trains() -> None:
    backbone = build().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sum(level.float().square().mean() for level in backbone(torch.randn(1, 3, 64, 96)))
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in backbone.parameters())


@torch.no_grad()
def test_bfloat16_weights() -> None:
    backbone, images = build(), torch.randn(1, 3, 96, 128)
    expected = backbone(images)
    actual = backbone.bfloat16()(images.bfloat16())
    for level, wanted in zip(actual, expected, strict=True):
        assert level.dtype == torch.bfloat16
        assert (level.float() - wanted).abs().mean() < 0.1 * wanted.abs().mean()


@torch.no_grad()
def test_float64_shows_how_far_float32_rounds() -> None:
    backbone, images = build(), torch.randn(1, 3, 61, 95)
    single = backbone(images)
    double = backbone.double()(images.double())
    assert all(level.dtype == torch.float64 for level in double)
    assert largest_difference(single, double) < 1e-4


@torch.no_grad()
def test_copies_and_pickles_give_the_same_maps() -> None:
    backbone, images = build(), torch.randn(1, 3, 64, 96)
    expected = backbone(images)
    for copied in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert largest_difference(copied(images), expected) == 0
        assert copied.config == backbone.config


@torch.no_grad()
def test_state_dict_fills_another_backbone_to_the_last_key() -> None:
    backbone, images = build(), torch.randn(1, 3, 64, 96)
    other = PIIPBackbone(backbone.config).eval()
    assert largest_difference(other(images), backbone(images)) > 1e-3
    other.load_state_dict(backbone.state_dict(), strict=True)
    assert largest_difference(other(images), backbone(images)) == 0


@pytest.mark.parametrize("train", [False, True])
def test_compiles_in_one_graph(train: bool) -> None:
    branches = tuple(
        tiny.branch(size, width, depth=2, groups=2, windows=(2, None)) for size, width in ((128, 32), (64, 64))
    )
    backbone = PIIPBackbone(config.Backbone(branches=branches, interaction=tiny.interaction())).eval()
    images = torch.randn(1, 3, 64, 96)
    compiled = torch.compile(backbone, fullgraph=True, backend="eager")
    with torch.set_grad_enabled(train):
        assert largest_difference([m.detach() for m in compiled(images)], [m.detach() for m in backbone(images)]) < 1e-5


@pytest.mark.parametrize(("height", "width"), [(31, 64), (64, 20), (8, 8)])
def test_images_that_are_too_small_are_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        build(3)(torch.randn(1, 3, height, width))
