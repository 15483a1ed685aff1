"""Every family of branches at small widths and depths; timm's own models by name."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from piip import config
from piip.backbone import PIIPBackbone
from piip.backbone.beit import RelativeBiasAttention, relative_position_index
from piip.backbone.branch import restore_buffers
from piip.backbone.convnext import ConvNeXtBranch
from piip.backbone.intern_vit import WideNormAttention
from piip.backbone.piip import FAMILIES
from piip.backbone.vit import ViTBranch
from piip.config.timm_models import architecture, pixel_statistics

TINY_STAGES = ((1, 32), (1, 32), (2, 64), (1, 64))
FIELDS: dict[str, dict[str, Any]] = {
    "vit": {"depth": 4, "width": 32, "heads": 2, "position_grid": 4},
    "vit with prefix": {"depth": 4, "width": 32, "heads": 2, "position_grid": 4, "prefix_tokens": 3, "windows": 2},
    "beit": {"family": "beit", "depth": 4, "width": 32, "heads": 2, "windows": 3},
    "uni_perceiver": {"family": "uni_perceiver", "depth": 4, "width": 32, "heads": 2, "position_grid": 4},
    "intern_vit": {"family": "intern_vit", "depth": 4, "width": 32, "heads": 2, "position_grid": 4, "qkv_bias": False},
    "convnext": {"family": "convnext", "stages": TINY_STAGES},
}
SMALL_BY_NAME = {  # timm name -> fields that make it cheap to run
    "vit_tiny_patch16_224": {"position_grid": 4},
    "deit_tiny_distilled_patch16_224": {"position_grid": 4},
    "deit3_small_patch16_224": {"position_grid": 4},
    "vit_xsmall_patch16_clip_224": {"position_grid": 4},
    "vit_small_patch14_dinov2": {"position_grid": 4},
    "vit_small_patch14_reg4_dinov2": {"position_grid": 4},
    "eva02_tiny_patch14_336": {"position_grid": 4},
    "vit_small_patch16_dinov3": {},
    "vit_small_patch16_rope_mixed_224": {},
    "convnext_atto": {},
    "convnextv2_atto": {},
    "convnext_atto_ols": {},
}


def toy(kind: str, size: int = 64, groups: int = 2, **changes: Any) -> config.Branch:
    return config.Branch.model_validate({"size": size, "groups": groups, **FIELDS[kind], **changes})


def randomise(module: nn.Module) -> nn.Module:
    """Weights for which every part matters: fresh LayerScales, biases and position tables are (nearly) 0."""
    weights = {}
    for name, old in module.state_dict().items():
        new = torch.randn(old.shape)
        if old.ndim <= 1:
            centre = float("norm" in name and name.endswith("weight")) or 0.5 * ("gamma" in name)
            weights[name] = centre + 0.1 * new
        elif "pos_embed" in name or "token" in name or "table" in name:
            weights[name] = 0.3 * new
        else:
            weights[name] = new / old[0].numel() ** 0.5
    trainable = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    module.load_state_dict(weights, assign=True)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in trainable)
    restore_buffers(module)
    return module


def make(branch: config.Branch) -> Any:
    with torch.device("meta"):  # timm's own initialisation of larger models takes seconds
        module = FAMILIES[branch.family](branch)
    return randomise(module).eval()


def by_name(name: str, **fields: Any) -> config.Branch:
    return config.Branch.model_validate({"model": name, "size": 64, "groups": 1, **fields})


# -- what holds for all of them --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("size", [(64, 64), (96, 80), (71, 53)])
def test_states_fit_the_image_and_images_of_a_batch_do_not_mix(kind: str, size: tuple[int, int]) -> None:
    branch = make(toy(kind))
    images = torch.randn(2, 3, *size)
    last = branch.config.depth - 1
    with torch.no_grad():
        state = branch(branch.embed(images), 0, last)
        alone = branch(branch.embed(images[1:]), 0, last)
    stride, width = branch.config.group_strides[-1], branch.config.group_widths[-1]
    assert state.size == (size[0] // stride, size[1] // stride)
    assert state.tokens.shape == (2, state.size[0] * state.size[1], width)
    torch.testing.assert_close(state.tokens[1:], alone.tokens, atol=1e-5, rtol=1e-5)
    if branch.config.prefix_tokens:
        assert state.prefix.shape == (2, branch.config.prefix_tokens, width)
    else:
        assert state.prefix is None


@pytest.mark.parametrize("kind", FIELDS)
def test_groups_of_blocks_one_after_another_are_all_blocks_at_once(kind: str) -> None:
    branch = make(toy(kind, groups=3))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        whole = branch(branch.embed(images), 0, branch.config.depth - 1)
        state = branch.embed(images)
        for index, group in enumerate(branch.config.groups):
            state = branch(state, *group)
            assert state.tokens.shape[-1] == branch.config.group_widths[index]
            assert state.size[0] == 64 // branch.config.group_strides[index]
    torch.testing.assert_close(state.tokens, whole.tokens)


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_used_parameter_is_trained_with_and_without_checkpointing(kind: str, checkpointing: bool) -> None:
    branch = make(toy(kind, checkpointing=checkpointing)).train()
    state = branch(branch.embed(torch.randn(1, 3, 64, 64)), 0, branch.config.depth - 1)
    total = state.tokens.square().sum() + (0 if state.prefix is None else state.prefix.square().sum())
    total.backward()
    unused = {
        name for name, parameter in branch.named_parameters() if parameter.requires_grad and parameter.grad is None
    }
    assert unused == set()
    zero = {
        name for name, parameter in branch.named_parameters() if parameter.requires_grad and not parameter.grad.any()
    }
    assert zero == set()


@pytest.mark.parametrize("kind", FIELDS)
def test_checkpointing_changes_no_gradient(kind: str) -> None:
    plain = make(toy(kind)).train()
    recomputing = make(toy(kind, checkpointing=True)).train()
    recomputing.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 64, 64)
    for branch in (plain, recomputing):
        branch(branch.embed(images), 0, branch.config.depth - 1).tokens.square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), recomputing.parameters(), strict=True):
        if one.requires_grad and one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", FIELDS)
def test_half_precision_is_near_and_keeps_prefix_and_patches_in_one_type(kind: str) -> None:
    branch = make(toy(kind))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        exact = branch(branch.embed(images), 0, 1)
        with torch.autocast("cpu", torch.bfloat16):
            embedded = branch.embed(images)
            near = branch(embedded, 0, 1)
    assert embedded.prefix is None or embedded.prefix.dtype == embedded.tokens.dtype
    assert (near.tokens.float() - exact.tokens).abs().max() < 0.05 * exact.tokens.abs().max()


@pytest.mark.parametrize("kind", FIELDS)
def test_an_image_too_small_for_a_token_is_refused(kind: str) -> None:
    branch = make(toy(kind))
    with pytest.raises(ValueError, match="at least"):
        branch.embed(torch.randn(1, 3, 40, 7))


@pytest.mark.parametrize("kind", FIELDS)
def test_config_survives_json(kind: str) -> None:
    branch = toy(kind)
    assert config.Branch.model_validate_json(branch.model_dump_json()) == branch


@pytest.mark.parametrize("kind", FIELDS)
def test_layers_count_from_the_embedding_to_the_last_block(kind: str) -> None:
    branch = make(toy(kind))
    layers = {name: branch.layer(name) for name, parameter in branch.named_parameters() if parameter.requires_grad}
    assert set(layers.values()) == set(range(branch.config.depth + 1))
    images, depth = torch.randn(1, 3, 64, 64), branch.config.depth
    for block in range(depth):  # a parameter of layer k + 1 changes nothing before block k
        branch.zero_grad()
        state = branch(branch.embed(images), 0, block)
        (state.tokens.sum() + (0 if state.prefix is None else state.prefix.sum())).backward()
        reached = {layers[name] for name, parameter in branch.named_parameters() if parameter.grad is not None}
        assert max(reached) == block + 1


# -- families --------------------------------------------------------------------------------------------------------


def test_relative_position_index_numbers_the_offsets() -> None:
    window = 3
    index = relative_position_index(window, torch.device("cpu"))
    offsets: dict[int, tuple[int, int]] = {}
    for query in range(window**2):
        for key in range(window**2):
            offset = (query // window - key // window, query % window - key % window)
            assert offsets.setdefault(int(index[query, key]), offset) == offset
    assert sorted(offsets) == list(range((2 * window - 1) ** 2))
    assert int(index[0, window**2 - 1]) == 0  # the key is as far right and below as it can be


def test_beit_attention_is_softmax_with_a_bias_per_offset() -> None:
    attention = RelativeBiasAttention(width=8, heads=2, window=2, qkv_bias=True)
    randomise(attention)
    tokens = torch.randn(3, 4, 8)
    assert attention.q_bias is not None
    assert attention.v_bias is not None
    q, k, v = (tokens @ attention.qkv.weight.T).chunk(3, dim=-1)
    q, v = q + attention.q_bias, v + attention.v_bias  # keys have no bias
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / 4**0.5
        for query in range(4):
            for key in range(4):
                row = relative_position_index(2, torch.device("cpu"))[query, key]
                scores[:, query, key] += attention.relative_position_bias_table[row, head]
        heads.append(scores.softmax(-1) @ v[..., part])
    expected = attention.proj(torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(tokens), expected, atol=1e-6, rtol=1e-5)


def test_intern_vit_normalises_queries_and_keys_over_all_heads() -> None:
    attention = WideNormAttention(width=8, heads=2, qkv_bias=False)
    randomise(attention)
    tokens = torch.randn(2, 5, 8)
    q, k, v = attention.qkv(tokens).chunk(3, dim=-1)
    q = q / (q.square().mean(-1, keepdim=True) + 1e-6).sqrt() * attention.q_norm.weight
    k = k / (k.square().mean(-1, keepdim=True) + 1e-6).sqrt() * attention.k_norm.weight
    heads = [
        (q[..., part] @ k[..., part].transpose(1, 2) / 2).softmax(-1) @ v[..., part]
        for part in (slice(0, 4), slice(4, 8))
    ]
    torch.testing.assert_close(attention(tokens), attention.proj(torch.cat(heads, -1)), atol=1e-6, rtol=1e-5)


def test_uni_perceiver_adds_the_place_and_the_first_frame_then_normalises() -> None:
    branch = make(toy("uni_perceiver"))
    images = torch.randn(1, 3, 64, 64)
    patches = branch.vit.patch_embed.proj(images).flatten(2).transpose(1, 2)
    positions = branch.spatial_pos_embed + branch.temporal_pos_embed[0]
    torch.testing.assert_close(branch.embed(images).tokens, branch.vit.norm_pre(patches + positions))
    assert branch.vit.norm_pre.eps == 1e-5


def test_a_convnext_lists_downsampling_layers_among_its_blocks() -> None:
    branch = make(toy("convnext", groups=((0, 0), (1, 2), (3, 5), (6, 7))))
    assert branch.config.depth == len(branch.blocks()) == 8
    assert branch.config.group_widths == (32, 32, 64, 64)
    assert branch.config.group_strides == (4, 8, 16, 32)
    assert [isinstance(block, nn.Sequential) for block in branch.blocks()] == [i in (1, 3, 6) for i in range(8)]
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        state = branch(branch.embed(images), 0, 7)
        expected = branch.convnext.stages(branch.convnext.stem(images))
    torch.testing.assert_close(state.tokens, expected.flatten(2).transpose(1, 2))


@pytest.mark.parametrize(("schedule", "rates"), [("constant", [0.3] * 4), ("linear", [0.0, 0.1, 0.2, 0.3])])
def test_stochastic_depth_schedules(schedule: str, rates: list[float]) -> None:
    vit = ViTBranch(toy("vit", drop_path=0.3, drop_path_schedule=schedule))
    assert [getattr(block.drop_path1, "drop_prob", 0.0) for block in vit.vit.blocks] == pytest.approx(rates)
    cnn = ConvNeXtBranch(toy("convnext", drop_path=0.3, drop_path_schedule="linear"))
    found = [getattr(block.drop_path, "drop_prob", 0.0) for stage in cnn.convnext.stages for block in stage.blocks]
    assert found == pytest.approx([0.0, 0.075, 0.15, 0.225, 0.3])


def test_prefix_positions_can_be_stored_without_being_used() -> None:
    used = make(toy("vit", prefix_tokens=1, position_prefix=1))
    stored = make(toy("vit", prefix_tokens=1, position_prefix=1, prefix_positions=False))
    stored.load_state_dict(used.state_dict())
    images = torch.randn(1, 3, 64, 64)
    one, other = used.embed(images), stored.embed(images)
    assert torch.equal(one.tokens, other.tokens)
    assert one.prefix is not None
    torch.testing.assert_close(other.prefix, used.vit.cls_token)
    torch.testing.assert_close(one.prefix, used.vit.cls_token + used.vit.pos_embed[:, :1])


# -- windows, prefix tokens and rotary positions ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["vit_small_patch16_dinov3", "vit_small_patch16_rope_mixed_224", "eva02_tiny_patch14_336"]
)
def test_one_window_with_prefix_and_rotary_positions_is_global_attention(name: str) -> None:
    whole = make(by_name(name))
    windowed = make(by_name(name, windows=4))
    windowed.load_state_dict(whole.state_dict())
    patch = whole.config.patch
    images = torch.randn(2, 3, 4 * patch, 4 * patch)
    with torch.no_grad():
        one = whole(whole.embed(images), 0, 1)
        other = windowed(windowed.embed(images), 0, 1)
    torch.testing.assert_close(one.tokens, other.tokens, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.prefix, other.prefix, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "eva02_tiny_patch14_336"])
def test_each_window_attends_with_the_rotary_positions_of_its_own_place(name: str) -> None:
    branch = make(by_name(name, windows=2))
    attention = branch.vit.blocks[0].attn
    prefix_tokens, width = branch.config.prefix_tokens, branch.config.width
    captured: list[tuple[Tensor, Tensor]] = []
    attention.register_forward_hook(lambda module, args, kwargs, out: captured.append((args[0], kwargs["rope"])),
                                    with_kwargs=True)  # fmt: skip
    patch = branch.config.patch
    with torch.no_grad():
        branch(branch.embed(torch.randn(2, 3, 3 * patch, 4 * patch)), 0, 0)
    tokens, rope = captured[0]
    assert tokens.shape == (2 * 4, prefix_tokens + 4, width)  # two rows of two windows, the lower ones half padding
    grid = branch.vit.rope.get_embed(shape=(3, 4)).unflatten(0, (3, 4))
    for window, (row, column) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
        cells = grid[row : row + 2, column : column + 2].flatten(0, 1)
        for image in range(2):
            assert torch.equal(rope[4 * image + window, 0, : len(cells)], cells)


def test_windows_exchange_through_the_prefix_tokens_only() -> None:
    without = make(toy("vit", windows=2))
    with_prefix = make(toy("vit", windows=2, prefix_tokens=1))
    for branch, reached in ((without, False), (with_prefix, True)):
        images = torch.randn(1, 3, 64, 64)
        changed = images.clone()
        changed[..., 32:, 32:] += 1.0
        with torch.no_grad():
            one, other = (branch(branch.embed(x), 0, 1).tokens.unflatten(1, (4, 4)) for x in (images, changed))
        assert not torch.allclose(one[:, 2:, 2:], other[:, 2:, 2:])
        assert torch.equal(one[:, :2, :2], other[:, :2, :2]) != reached


def test_rotary_positions_are_not_jittered_in_training() -> None:
    branch = make(by_name("vit_small_patch16_dinov3")).train()
    images = torch.randn(1, 3, 64, 64)
    one, other = (branch(branch.embed(images), 0, 0).tokens for _ in range(2))
    assert torch.equal(one, other)


def test_buffers_that_no_file_holds_come_back_after_building_without_memory() -> None:
    branch = by_name("vit_small_patch16_dinov3")
    full = make(branch)
    with torch.device("meta"):
        empty = ViTBranch(branch)
    empty.load_state_dict(full.state_dict(), assign=True)
    restore_buffers(empty)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(empty.eval()(empty.embed(images), 0, 0).tokens, full(full.embed(images), 0, 0).tokens)


# -- timm by name ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL_BY_NAME)
def test_a_branch_by_name_computes_what_timm_computes(name: str) -> None:
    branch = make(by_name(name, **({"groups": 2} | SMALL_BY_NAME[name])))
    is_vit = branch.config.family == "vit"
    size = 4 * branch.config.patch if is_vit else 64
    images = torch.randn(1, 3, size, size)
    with torch.device("meta"):
        same = timm.create_model(name, num_classes=0, **({"img_size": size} if is_vit else {}))
    randomise(same.eval())  # what the branch has no use for, such as the last norm
    report = same.load_state_dict((branch.vit if is_vit else branch.convnext).state_dict(), strict=False)
    assert report.unexpected_keys == []
    state = branch.embed(images)
    with torch.no_grad():
        for group in branch.config.groups:
            state = branch(state, *group)
        _, (features, *_) = _last_features(same, images, branch.config.prefix_tokens)
    prefix = None
    if branch.config.prefix_tokens:
        features, prefix = features
    tolerance = 1e-5 * features.abs().max().item()
    torch.testing.assert_close(state.tokens, features.flatten(2).transpose(1, 2), atol=tolerance, rtol=0)
    if prefix is not None:
        torch.testing.assert_close(state.prefix, prefix, atol=tolerance, rtol=0)


def _last_features(model: Any, images: Tensor, prefix_tokens: int) -> Any:
    more = {"return_prefix_tokens": True} if prefix_tokens else {}
    return model.forward_intermediates(images, indices=1, **more)


@pytest.mark.parametrize(
    "name", ["vit_small_patch16_dinov3", "deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_336"]
)
def test_prefix_tokens_can_be_left_out(name: str) -> None:
    branch = make(by_name(name, prefix_tokens=0))
    state = branch(branch.embed(torch.randn(1, 3, 64, 64)), 0, 0)
    assert state.prefix is None
    assert not any("token" in name for name in branch.state_dict())


def test_patches_and_positions_of_a_named_model_can_be_resized() -> None:
    branch = make(by_name("vit_small_patch14_dinov2", patch=16, position_grid=4))
    assert branch.vit.patch_embed.proj.kernel_size == (16, 16)
    assert branch.vit.pos_embed.shape == (1, 1 + 16, 384)
    assert branch.embed(torch.randn(1, 3, 64, 64)).size == (4, 4)


def test_pixel_statistics_are_those_of_the_weights() -> None:
    mean, std = pixel_statistics("vit_base_patch16_clip_224.openai")
    assert mean == pytest.approx((122.77, 116.75, 104.09), abs=0.01)
    assert std == pytest.approx((68.50, 66.63, 70.32), abs=0.01)
    assert pixel_statistics("vit_tiny_patch16_224")[0] == (127.5, 127.5, 127.5)


@pytest.mark.parametrize(
    "name",
    [
        "swin_tiny_patch4_window7_224",
        "resnet50",
        "vit_small_r26_s32_224",  # convolutional stem
        "vit_relpos_small_patch16_224",
        "beit_base_patch16_224",
        "vit_base_patch16_xp_224",  # parallel blocks
    ],
)
def test_other_architectures_are_refused_with_what_works(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name}.* cannot be a branch.*vit_small_patch14_dinov2.*convnext_tiny"):
        by_name(name)


def test_a_misspelt_name_suggests_near_ones() -> None:
    with pytest.raises(ValidationError, match=r"timm has no model 'convnext_tny'; near names: convnext_tiny"):
        by_name("convnext_tny")
    with pytest.raises(ValidationError, match=r"no weights 'dinoo' of 'vit_small_patch16_224'; its tags: dino"):
        by_name("vit_small_patch16_224.dinoo")
    with pytest.raises(ValidationError, match=r"near names: .*vit_small_patch14_dinov2"):
        by_name("dinov2_vits14")  # Facebook's name
    with pytest.raises(ValidationError, match=r"near names.*deit3_small_patch16_224"):
        by_name("deit3_small_patch17_224")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": 6}, "depth 6 is not that of 'vit_small_patch14_dinov2', 12; leave it out"),
        ({"activation": "gelu_tanh"}, "leave `activation` out"),
        ({"prefix_tokens": 4}, "has 1; use that, or 0"),
        ({"position_grid": None}, "has a stored position embedding"),
        ({"family": "beit", "windows": 4}, "family 'beit' is not that of"),
    ],
)
def test_fields_that_contradict_the_named_model_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        by_name("vit_small_patch14_dinov2", **fields)


def test_the_architecture_of_a_giant_is_read_without_its_memory() -> None:
    read = architecture("vit_giant_patch14_dinov2")  # 4.5 GB
    assert (read["depth"], read["width"], read["patch"], read["prefix_tokens"]) == (40, 1536, 14, 1)


# -- pyramids of different families ----------------------------------------------------------------------------------

GROUPS_OF_TOY_CONVNEXT = ((0, 0), (1, 2), (3, 5), (6, 7))


def hybrid(*kinds: str, **maps: Any) -> config.Backbone:
    """Branches of four groups each on 64, 48, 32, ... pixels."""
    branches = tuple(
        toy(kind, size=96 - 16 * index, groups=GROUPS_OF_TOY_CONVNEXT if kind == "convnext" else 4)  # type: ignore[arg-type]
        for index, kind in enumerate(kinds)
    )
    interaction = config.Interaction(heads=4) if len(kinds) > 1 else None
    return config.Backbone(branches=branches, interaction=interaction, maps=config.FeatureMaps(**maps))


PYRAMIDS: dict[str, Callable[[], config.Backbone]] = {
    "all families": lambda: hybrid("vit", "vit with prefix", "uni_perceiver", "intern_vit", norm="layernorm"),
    "vit first, one map per merge": lambda: hybrid("vit", "convnext", "convnext", merge_after=(0, 1, 2)),
    "convnext first": lambda: hybrid("convnext", "vit", "convnext", merge_after=(0, 1, 2)),
    "vit first, one merge": lambda: hybrid("vit", "convnext"),
    "single convnext": lambda: hybrid("convnext", merge_after=(0, 1, 2)),
    "beit": lambda: hybrid("vit", "beit"),
}


@pytest.mark.parametrize("kind", PYRAMIDS)
def test_maps_have_the_promised_widths_and_strides(kind: str) -> None:
    backbone = PYRAMIDS[kind]()
    module = PIIPBackbone(backbone).eval()
    with torch.no_grad():
        maps = module(torch.randn(1, 3, 96, 160))
    assert [level.shape[1] for level in maps] == list(backbone.map_widths)
    sizes = [(int(96 / stride), int(160 / stride)) for stride in backbone.map_strides]
    assert [tuple(level.shape[-2:]) for level in maps] == sizes
    assert config.Backbone.model_validate_json(backbone.model_dump_json()) == backbone


@pytest.mark.parametrize("kind", PYRAMIDS)
def test_every_trainable_parameter_of_a_pyramid_is_used(kind: str) -> None:
    module = PIIPBackbone(PYRAMIDS[kind]()).train()
    sum(level.square().mean() for level in module(torch.randn(1, 3, 96, 96))).backward()
    unused = [
        name for name, parameter in module.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]
    # after the last group the prefix tokens are read by classification heads only
    assert unused == []


def test_without_maps_a_backbone_gives_its_states() -> None:
    backbone = hybrid("vit with prefix", "vit with prefix")
    with_maps = PIIPBackbone(backbone).eval()
    without = PIIPBackbone(backbone.model_copy(update={"maps": None})).eval()
    without.load_state_dict({key: with_maps.state_dict()[key] for key in without.state_dict()})
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        states = without.states(images)
        for one, other in zip(states, with_maps.states(images), strict=True):
            assert torch.equal(one.tokens, other.tokens)
        merged = with_maps.maps(with_maps.merge(states))
        for one, other in zip(merged, with_maps(images), strict=True):
            assert torch.equal(one, other)
    assert [state.prefix.shape for state in states] == [(1, 3, 32)] * 2
    assert backbone.model_copy(update={"maps": None}).map_widths == ()
    with pytest.raises(RuntimeError, match="call its `states`"):
        without(images)


def test_interactions_leave_prefix_tokens_alone() -> None:
    module = PIIPBackbone(hybrid("vit with prefix", "vit"))
    randomise(module)
    states = module.embed(torch.randn(1, 3, 96, 96))
    after = module.interactions[0](states)
    assert after[0].prefix is states[0].prefix
    assert not torch.equal(after[0].tokens, states[0].tokens)


def test_light_merges_go_to_the_width_of_the_coarsest_branch() -> None:
    backbone = hybrid("convnext", "vit", merge_after=(0, 1, 2))
    assert backbone.map_widths == (32, 32, 32, 32)
    assert hybrid("vit", "convnext", merge_after=(0, 1, 2)).map_widths == (32, 32, 64, 64)
    module = PIIPBackbone(backbone)
    last = module.merge.projections[-1]
    assert [type(layer) for layer in last] == [nn.GroupNorm, nn.ReLU]
    assert all(weight == 1 for weight in module.merge.weights)


# -- nonsense --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("convnext", {"windows": 4}, "has no attention: leave `windows` out"),
        ("convnext", {"stages": None}, "needs `stages`"),
        ("convnext", {"stages": TINY_STAGES[:3]}, "each of its 4 stages.*ConvNeXt-T's.*given"),
        ("convnext", {"stages": TINY_STAGES * 2}, "each of its 4 stages"),
        ("convnext", {"stages": ((1,), (1,), (1,), (1,))}, r"\(blocks, width\) of each"),
        ("convnext", {"stages": 4}, "given: 4"),
        ("convnext", {"depth": 7}, "follow from its stages"),
        ("convnext", {"prefix_tokens": 1}, "no class or register tokens"),
        ("convnext", {"position_grid": 7}, "has no stored position embedding"),
        ("convnext", {"size": 24}, "use at least 32 pixels"),
        ("beit", {"windows": None}, "every block needs a window"),
        ("beit", {"position_grid": 4}, "has no stored position embedding"),
        ("vit", {"position_grid": None}, "has a stored position embedding"),
        ("vit", {"stages": TINY_STAGES}, "describes a ConvNeXt"),
        ("vit", {"windows": 9}, "use at most 4"),
        ("vit", {"prefix_tokens": 2, "position_prefix": 1}, "valid: 0 and 2"),
        ("vit", {"groups": ((0, 1), (3, 3))}, "skip or repeat a block"),
        ("vit", {"groups": 9}, "cannot form 9 groups"),
        ("vit", {"family": "swin"}, "Input should be 'vit', 'beit'"),
    ],
)
def test_nonsense_branches_are_refused(kind: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        toy(kind, **changes)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: hybrid("convnext", "vit"), r"merge_after=\(0, 1, 2\) would do"),
        (lambda: hybrid("convnext", "vit", merge_after=(0, 1, 3)), "groups 0 to 3"),
        (lambda: hybrid("vit", "vit", merge_after=(0, 1)), "takes three groups"),
        (lambda: hybrid("vit", "vit", merge_after=(0, 2, 1)), "must grow"),
        (lambda: hybrid("vit", "vit", merge_after=(0, 1, 2), strides=(8, 16, 32)), "all four strides"),
    ],
)
def test_nonsense_maps_are_refused(build: Callable[[], config.Backbone], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        build()
