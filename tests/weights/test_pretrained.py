"""Branches from pretrained files in every published format: deterministic weights at small depth.

What a file means is told by others where there are any: timm's own models and loaders. For the rest the official key
table of `weights.official_keys` writes the file, which names things as the pretrained files do.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models.beit import Beit
from timm.models.convnext import ConvNeXt, checkpoint_filter_fn
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import piip
from piip import config, zoo
from piip.backbone import PIIPBackbone
from piip.backbone.piip import FAMILIES
from piip.weights.branches import pretrained
from piip.weights.branches.pretrained import branch_head, fit_tensor, load_branches, parse_sources, resize_bias_table
from piip.weights.files import WeightsError
from piip.weights.official.keys import official_keys

WIDTH, DEPTH, HEADS = 32, 2, 2


def vit_fields(**fields: Any) -> dict[str, Any]:
    return {"size": 64, "depth": DEPTH, "width": WIDTH, "heads": HEADS, "groups": 1, "windows": None,
            "position_grid": 4} | fields  # fmt: skip


def model_of(*branches: dict[str, Any]) -> piip.PIIPModel:
    """A detector of one branch or several, with other random weights at every call."""
    built = tuple(config.Branch.model_validate(fields) for fields in branches)
    shrinks = built[0].family == "convnext"
    maps = config.FeatureMaps(norm="layernorm", merge_after=(0, 1, 2) if shrinks else ())
    interaction = config.Interaction(heads=2) if len(built) > 1 else None
    head = config.MaskRCNN(channels=8, fc_channels=8, masks=False)
    preprocess = config.Preprocess(long_side=64, short_side=64)
    backbone = config.Backbone(
        branches=built, interaction=interaction, maps=maps if len(built) == 1 else config.FeatureMaps()
    )
    return piip.PIIPModel(
        config.Model(name="x", backbone=backbone, head=head, classes=("a",), preprocess=preprocess)
    ).eval()


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module.eval()


def plain(**fields: Any) -> Any:
    """timm's ViT, whose names DeiT, MAE, DINOv2 and InternViT files share."""
    arguments = {"img_size": 64, "patch_size": 16, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS,
                 "num_classes": 7} | fields  # fmt: skip
    return randomised(VisionTransformer(**arguments))


def save(path: Path, state: dict[str, Tensor], key: str | None = "model") -> Path:
    torch.save(state if key is None else {key: state, "optimizer": {}, "epoch": 3}, path)
    return path


def last_tokens(model: piip.PIIPModel, images: Tensor) -> Tensor:
    branch = model.backbone.branches[0]
    return branch(branch.embed(images), 0, DEPTH - 1).tokens


def by_hand(vit: Any, images: Tensor, grid: int) -> Tensor:
    """timm's blocks without its class token, positions resized to the image's grid."""
    tokens = vit.patch_embed.proj(images)
    size = tokens.shape[-2:]
    positions = vit.pos_embed[:, -(grid**2) :].reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
    positions = F.interpolate(positions, size=size, mode="bicubic", align_corners=False)
    tokens = (tokens + positions).flatten(2).transpose(1, 2)
    for block in vit.blocks:
        tokens = block(tokens)
    return tokens


# -- formats ---------------------------------------------------------------------------------------------------------


def test_deit_has_no_layer_scale(tmp_path: Path) -> None:
    deit = plain()
    model = model_of(vit_fields())
    (report,) = load_branches(model, {0: save(tmp_path / "deit.pth", deit.state_dict())})
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)  # in float32 the order of sums shows
    torch.testing.assert_close(last_tokens(model.double(), images), by_hand(deit.double(), images, 4))
    assert report.added == tuple(f"vit.blocks.{b}.ls{i}.gamma" for b in range(DEPTH) for i in (1, 2))
    assert set(report.ignored) == {"vit.cls_token", "norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert report.resized == ("vit.pos_embed 1x17x32 -> 1x16x32",)
    assert len(report.used) == len(model.backbone.branches[0].state_dict()) - 1 - len(report.added)
    assert "tensors used as they are" in str(report)


def test_a_model_without_values_needs_no_file_read(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = model_of(vit_fields())
    file = tmp_path / "deit.pth"
    file.write_bytes(b"no weights")
    assert load_branches(model, {0: file}) == []
    with pytest.raises(WeightsError, match="no branch 1"):
        load_branches(model, {1: file})


def test_deit3_keeps_its_layer_scale_under_another_name(tmp_path: Path) -> None:
    deit3 = plain(init_values=1e-3, no_embed_class=True)
    state = {re.sub(r"ls(\d)\.gamma", r"gamma_\1", name): tensor for name, tensor in deit3.state_dict().items()}
    model = model_of(vit_fields(position_grid=6))
    (report,) = load_branches(model, {0: save(tmp_path / "deit3.pth", state)})
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)  # in float32 the order of sums shows
    stored = F.interpolate(
        deit3.pos_embed.reshape(1, 4, 4, -1).permute(0, 3, 1, 2), size=(6, 6), mode="bicubic", align_corners=False
    )
    deit3.pos_embed = nn.Parameter(stored.flatten(2).transpose(1, 2))
    torch.testing.assert_close(last_tokens(model.double(), images), by_hand(deit3.double(), images, 6))
    assert report.added == ()
    assert report.resized == ("vit.pos_embed 1x16x32 -> 1x36x32",)


def test_mae_has_a_decoder(tmp_path: Path) -> None:
    mae = plain(num_classes=0)
    state = mae.state_dict() | {"mask_token": torch.ones(1), "decoder_blocks.0.norm1.weight": torch.ones(2)}
    model = model_of(vit_fields(position_prefix=1))
    (report,) = load_branches(model, {0: save(tmp_path / "mae.pth", state)})
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(last_tokens(model, images), by_hand(mae, images, 4))
    assert {"mask_token", "decoder_blocks.0.norm1.weight"} <= set(report.ignored)
    assert torch.equal(model.backbone.branches[0].vit.pos_embed, mae.pos_embed)


def test_dinov2_kernels_of_14_become_16(tmp_path: Path) -> None:
    dino = plain(img_size=70, patch_size=14, init_values=1e-3, num_classes=0)
    state = dino.state_dict() | {"mask_token": torch.ones(1, WIDTH)}
    model = model_of(vit_fields(position_prefix=1))
    (report,) = load_branches(model, {0: save(tmp_path / "dinov2.pth", state, key=None)})
    branch = model.backbone.branches[0]
    kernel = F.interpolate(dino.patch_embed.proj.weight, size=(16, 16), mode="bicubic", align_corners=False)
    assert torch.equal(branch.vit.patch_embed.proj.weight, kernel)
    grid = dino.pos_embed[:, 1:].reshape(1, 5, 5, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(4, 4), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    assert torch.equal(branch.vit.pos_embed, torch.cat((dino.pos_embed[:, :1], grid), dim=1))
    assert torch.equal(branch.vit.blocks[1].ls2.gamma, dino.blocks[1].ls2.gamma)
    assert len(report.resized) == 2


def augreg_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = {
        "embedding/kernel": (16, 16, 3, WIDTH), "embedding/bias": (WIDTH,), "cls": (1, 1, WIDTH),
        "Transformer/posembed_input/pos_embedding": (1, 17, WIDTH), "Transformer/encoder_norm/scale": (WIDTH,),
        "Transformer/encoder_norm/bias": (WIDTH,), "head/kernel": (WIDTH, 7), "head/bias": (7,),
    }  # fmt: skip
    for block in range(DEPTH):
        prefix, dim = f"Transformer/encoderblock_{block}", WIDTH // HEADS
        attention = f"{prefix}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            shapes |= {f"{attention}/{part}/kernel": (WIDTH, HEADS, dim), f"{attention}/{part}/bias": (HEADS, dim)}
        shapes |= {f"{attention}/out/kernel": (HEADS, dim, WIDTH), f"{attention}/out/bias": (WIDTH,)}
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes |= {f"{prefix}/{norm}/scale": (WIDTH,), f"{prefix}/{norm}/bias": (WIDTH,)}
        shapes |= {
            f"{prefix}/MlpBlock_3/Dense_0/kernel": (WIDTH, 4 * WIDTH), f"{prefix}/MlpBlock_3/Dense_0/bias": (4 * WIDTH,),  # noqa: E501
            f"{prefix}/MlpBlock_3/Dense_1/kernel": (4 * WIDTH, WIDTH), f"{prefix}/MlpBlock_3/Dense_1/bias": (WIDTH,),
        }  # fmt: skip
    return {name: random.normal(size=shape).astype(np.float32) * 0.2 for name, shape in shapes.items()}


def test_augreg_arrays_mean_what_timm_reads(tmp_path: Path) -> None:
    np.savez(tmp_path / "S_16.npz", **augreg_arrays())
    oracle = plain()
    oracle.load_pretrained(str(tmp_path / "S_16.npz"))
    model = model_of(vit_fields(position_prefix=1, layer_scale=None))
    (report,) = load_branches(model, {0: tmp_path / "S_16.npz"})
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(last_tokens(model, images), by_hand(oracle, images, 4))
    assert report.added == ()
    assert set(report.ignored) == {
        "vit.cls_token", "Transformer/encoder_norm/scale", "Transformer/encoder_norm/bias", "head/kernel", "head/bias",
    }  # fmt: skip


def test_beitv2_tables_are_resized_to_the_branchs_windows(tmp_path: Path) -> None:
    arguments = {"img_size": 64, "patch_size": 16, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS,
                 "num_classes": 7, "use_abs_pos_emb": False, "use_rel_pos_bias": True, "init_values": 0.1}  # fmt: skip
    beit = randomised(Beit(**arguments))
    model = model_of(vit_fields(family="beit", position_grid=None, windows=4))
    (report,) = load_branches(model, {0: save(tmp_path / "beitv2.pth", beit.state_dict())})
    assert len(report.resized) == DEPTH  # windows as in pretraining: only the class token's rows go
    for index, block in enumerate(model.backbone.branches[0].vit.blocks):
        table = beit.blocks[index].attn.relative_position_bias_table
        assert torch.equal(block.attn.relative_position_bias_table, table[:-3])
        assert torch.equal(block.attn.v_bias, beit.blocks[index].attn.v_bias)
        assert torch.equal(block.ls2.gamma, beit.blocks[index].gamma_2)
    wider = model_of(vit_fields(family="beit", position_grid=None, windows=6, size=96))
    load_branches(wider, {0: tmp_path / "beitv2.pth"})
    table = wider.backbone.branches[0].vit.blocks[0].attn.relative_position_bias_table
    assert table.shape == (11 * 11, HEADS)
    original = beit.blocks[0].attn.relative_position_bias_table
    torch.testing.assert_close(table[60], original[24], atol=1e-5, rtol=1e-5)  # the cell itself keeps its bias


def test_a_table_shared_by_all_blocks_is_given_to_each(tmp_path: Path) -> None:
    model = model_of(vit_fields(family="beit", position_grid=None, windows=4))
    state = {k.removeprefix("vit."): v for k, v in randomised(model.backbone.branches[0]).state_dict().items()}
    shared = torch.randn(49 + 3, HEADS)
    state = {k: v for k, v in state.items() if "table" not in k} | {"rel_pos_bias.relative_position_bias_table": shared}
    load_branches(model, {0: save(tmp_path / "beit.pth", state)})
    for block in model.backbone.branches[0].vit.blocks:
        assert torch.equal(block.attn.relative_position_bias_table, shared[:-3])


@pytest.mark.parametrize("sides", [(6, 9), (14, 28)])
def test_resized_tables_follow_a_cubic(sides: tuple[int, int]) -> None:
    """A spline reproduces a cubic of the position exactly, and the old positions lie where they should."""
    old, new = (2 * side - 1 for side in sides)
    places = torch.tensor(pretrained._geometric_positions(old // 2, new // 2), dtype=torch.float64)
    assert abs(places[-1] - new // 2) < 1e-3
    steps = places.diff()
    torch.testing.assert_close(
        steps[old // 2 + 1 :] / steps[old // 2 : -1], (steps[-1] / steps[-2]).expand(old // 2 - 1)
    )

    def surface(positions: Tensor) -> Tensor:
        return (0.01 * positions**3 - 0.2 * positions)[:, None] + 0.5 * positions[None]

    table = torch.stack((surface(places), -surface(places)), dim=-1).flatten(0, 1)
    resized = resize_bias_table(table, new)
    expected = surface(torch.arange(-(new // 2), new // 2 + 1, dtype=torch.float64))
    torch.testing.assert_close(resized[:, 0].reshape(new, new), expected, atol=1e-4, rtol=1e-4)


def official_file(
    tmp_path: Path, fields: dict[str, Any], rename: Callable[[str], str] = str
) -> tuple[Path, PIIPBackbone]:
    """The branch's weights under the names of the official class, which are those of its pretrained files."""
    backbone = randomised(model_of(fields).backbone)
    names = official_keys(backbone)
    state = {rename(names[key]): tensor for key, tensor in backbone.state_dict().items() if key.startswith("branches.")}
    return save(tmp_path / "official.pth", state), backbone


FILES = {
    "intern_vit": vit_fields(family="intern_vit", qkv_bias=False, layer_scale=0.1, position_prefix=1),
    "uni_perceiver": vit_fields(family="uni_perceiver"),
    "beit": vit_fields(family="beit", position_grid=None, windows=4),
    "convnext": {"size": 64, "family": "convnext", "stages": ((1, 8), (1, 16), (2, 16), (1, 32)), "groups": ((0, 0), (1, 2), (3, 5), (6, 7))},  # noqa: E501
}  # fmt: skip


@pytest.mark.parametrize("family", FILES)
def test_files_named_as_the_official_classes(family: str, tmp_path: Path) -> None:
    path, original = official_file(tmp_path, FILES[family], lambda name: name.removeprefix("convnext_model."))
    model = model_of(FILES[family])
    (report,) = load_branches(model, {0: path})
    for name, tensor in original.branches[0].state_dict().items():
        assert torch.equal(model.backbone.branches[0].state_dict()[name], tensor), name
    assert (report.added, report.ignored, report.resized) == ((), (), ())


def test_uni_perceiver_in_the_naming_of_multihead_attention(tmp_path: Path) -> None:
    path, original = official_file(tmp_path, FILES["uni_perceiver"], lambda name: name.replace("in_proj.", "in_proj_"))
    model = model_of(FILES["uni_perceiver"])
    load_branches(model, {0: path})
    qkv = original.branches[0].vit.blocks[0].attn.qkv.weight
    assert torch.equal(model.backbone.branches[0].vit.blocks[0].attn.qkv.weight, qkv)


def test_facebooks_convnext_names_mean_what_timm_reads(tmp_path: Path) -> None:
    fields = FILES["convnext"]
    oracle: Any = randomised(ConvNeXt(depths=(1, 1, 2, 1), dims=(8, 16, 16, 32), num_classes=7))
    facebook = {}
    for name, tensor in oracle.state_dict().items():
        name = re.sub(r"stem\.", "downsample_layers.0.", name)
        name = re.sub(r"stages\.(\d)\.downsample\.", r"downsample_layers.\1.", name)
        name = re.sub(r"stages\.(\d)\.blocks\.(\d+)\.", r"stages.\1.\2.", name)
        name = name.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        facebook[name.replace("head.norm.", "norm.").replace("head.fc.", "head.")] = tensor
    assert checkpoint_filter_fn(dict(facebook), oracle).keys() == oracle.state_dict().keys()
    model = model_of(fields)
    (report,) = load_branches(model, {0: save(tmp_path / "convnext.pth", facebook)})
    assert set(report.ignored) == {"head.weight", "head.bias"}
    images = torch.randn(1, 3, 64, 64)
    branch = model.backbone.branches[0]
    out = branch(branch.embed(images), 0, fields["groups"][-1][1]).tokens
    torch.testing.assert_close(out, oracle.stages(oracle.stem(images)).flatten(2).transpose(1, 2))


def test_timm_by_name_and_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    vit = plain(num_classes=0)
    asked = []

    def create_model(name: str, **arguments: Any) -> nn.Module:
        asked.append((name, arguments))
        return vit

    monkeypatch.setattr(timm, "create_model", create_model)
    one, other = model_of(vit_fields()), model_of(vit_fields())
    load_branches(one, {0: "timm:deit_tiny_patch16_224.fb_in1k"})
    name = "deit_tiny_patch16_224.fb_in1k"
    assert asked == [(name, {}), (name, {"pretrained": True})]  # whether it fits; with its head, for classifiers
    save_file(vit.state_dict(), tmp_path / "x.safetensors")
    load_branches(other, {0: tmp_path / "x.safetensors"})
    assert torch.equal(last_tokens(one, torch.ones(1, 3, 64, 64)), last_tokens(other, torch.ones(1, 3, 64, 64)))


def test_published_models_know_the_weights_their_branches_began_as() -> None:
    known = set(timm.list_models(pretrained=True))
    checked = 0
    for entry in zoo.MODELS.values():
        if {"intern_vit", "uni_perceiver"} & set(entry.pretraining) or not entry.pretraining:
            with pytest.raises(ValueError, match="timm does not have|was not published"):
                entry.branch_weights()
            continue
        sources = entry.branch_weights()
        assert {source.removeprefix("timm:") for source in sources.values()} <= known, sources
        checked += 1
    assert checked > 25
    assert zoo.entry("piip_tsb_1120_896_448_mask_rcnn").branch_weights() == {
        0: "timm:deit_tiny_patch16_224.fb_in1k",
        1: "timm:deit3_small_patch16_224.fb_in22k_ft_in1k",
        2: "timm:deit3_base_patch16_224.fb_in22k_ft_in1k",
    }


# -- refused ---------------------------------------------------------------------------------------------------------


def test_other_architectures_are_refused_and_change_nothing(tmp_path: Path) -> None:
    model = model_of(vit_fields(), vit_fields(size=32))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    good = save(tmp_path / "good.pth", plain().state_dict())
    bad = {
        "shallower": (plain(depth=1).state_dict(), r"missing: vit\.blocks\.1"),
        "wider": (plain(embed_dim=64).state_dict(), "of another shape"),
        "no qkv bias": (plain(qkv_bias=False).state_dict(), r"missing: vit\.blocks\.0\.attn\.qkv\.bias"),
        "unknown": ({"conv1.weight": torch.zeros(1)}, "not a backbone in a known format"),
        "nan": (plain().state_dict() | {"norm.bias": torch.tensor([float("nan")])}, "NaN or infinite"),
    }
    for name, (state, reason) in bad.items():
        with pytest.raises(WeightsError, match=reason):
            load_branches(model, {0: good, 1: save(tmp_path / f"{name}.pth", state)})
    with pytest.raises(WeightsError, match="no branch 5: the model has branches 0"):
        load_branches(model, {5: good})
    with pytest.raises(WeightsError, match="no such file"):
        load_branches(model, {0: tmp_path / "none.npz"})
    with pytest.raises(WeightsError, match="timm has no model 'deit_tinny'"):
        load_branches(model, {0: "timm:deit_tinny"})
    with pytest.raises(WeightsError, match="no weights 'fb_in22' of 'deit_tiny_patch16_224'; its tags: fb_in1k"):
        load_branches(model, {0: "timm:deit_tiny_patch16_224.fb_in22"})
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_layer_scale_without_a_place_is_folded(tmp_path: Path) -> None:
    dinov2 = plain(init_values=0.3)
    for block in dinov2.blocks:
        nn.init.normal_(block.ls1.gamma)
        nn.init.normal_(block.ls2.gamma)
    model = model_of(vit_fields(layer_scale=None))
    (report,) = load_branches(model, {0: save(tmp_path / "dinov2.pth", dinov2.state_dict())})
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(last_tokens(model, images), by_hand(dinov2, images, 4), rtol=1e-4, atol=1e-4)
    assert report.folded == 2 * DEPTH
    assert not [name for name in report.ignored if "blocks" in name]
    assert f"LayerScale: {2 * DEPTH} folded" in str(report)


@pytest.mark.parametrize("half", [False, True])
def test_the_first_blocks_of_a_deeper_model(tmp_path: Path, half: bool) -> None:
    deep = plain(depth=DEPTH + 2)
    if half:
        deep.half()
    save_file(deep.state_dict(), tmp_path / "deep.safetensors")
    model = model_of(vit_fields(layer_scale=None))
    (report,) = load_branches(model, {0: tmp_path / "deep.safetensors"})
    deep.float().blocks = deep.blocks[:DEPTH]
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(last_tokens(model, images), by_hand(deep, images, 4), rtol=1e-4, atol=1e-4)
    assert report.left_out == f"blocks {DEPTH} to {DEPTH + 1}: the branch has {DEPTH} of the {DEPTH + 2}"
    assert f"left out: blocks {DEPTH}" in str(report)
    gap = deep.state_dict() | {"blocks.7.norm1.weight": torch.ones(32)}
    with pytest.raises(WeightsError, match=r"left over: vit\.blocks\.7"):
        load_branches(model, {0: save(tmp_path / "gap.pth", gap)})


def test_relative_biases_are_not_dropped_in_a_plain_vit(tmp_path: Path) -> None:
    path, _ = official_file(tmp_path, FILES["beit"])
    with pytest.raises(WeightsError, match="relative_position_bias_table|q_bias"):
        load_branches(model_of(vit_fields()), {0: path})


def test_npz_with_objects_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "pwned"

    class Runs:
        def __reduce__(self) -> Any:
            return (open, (str(mark), "w"))

    np.savez(tmp_path / "evil.npz", **augreg_arrays(), extra=np.array([Runs()], dtype=object))
    with pytest.raises(WeightsError, match="not plain arrays"):
        load_branches(model_of(vit_fields()), {0: tmp_path / "evil.npz"})
    assert not mark.exists()


def test_command_line_form() -> None:
    assert parse_sources(["0=a.pth,1=timm:x", "2=b=c.npz"]) == {0: "a.pth", 1: "timm:x", 2: "b=c.npz"}
    for text in ("a.pth", "x=a.pth", "0="):
        with pytest.raises(WeightsError, match="write BRANCH=SOURCE"):
            parse_sources([text])


def test_every_family_has_a_format() -> None:
    # A "vit" comes in any of them or from timm, "clip" with the whole of PIIP-LLaVA's encoder (weights/official/llava).
    assert set(FILES) | {"vit", "clip"} == set(FAMILIES)
    assert fit_tensor("x", torch.zeros(2), torch.zeros(3), None) is None


def classifier(classes: int, separate: bool = True) -> piip.PIIPModel:
    branch = config.Branch.model_validate(vit_fields(prefix_tokens=1, layer_scale=None, position_prefix=1,
                                                     prefix_positions=False))  # fmt: skip
    backbone = config.Backbone(branches=(branch, branch), interaction=config.Interaction(heads=2), maps=None)
    return piip.PIIPModel(
        config.Model(
            name="x",
            backbone=backbone,
            head=config.Classifier(separate_head=separate),
            classes=tuple(map(str, range(classes))),
            preprocess=config.Preprocess(long_side=64, short_side=64),
        )
    )


def test_classifiers_of_branches_come_with_them_where_the_classes_fit(tmp_path: Path) -> None:
    """As the official classifiers begin: with the norm and head of every pretrained branch."""
    vit = plain()
    path = save(tmp_path / "vit.pth", vit.state_dict())
    model = classifier(7)
    before = model.head.logits.heads[0].weight.clone()
    (report,) = load_branches(model, {1: path})
    assert torch.equal(model.head.logits.heads[1].weight, vit.head.weight)
    assert torch.equal(model.head.logits.heads[1].bias, vit.head.bias)
    assert torch.equal(model.head.logits.norms[1].weight, vit.norm.weight)
    assert torch.equal(model.head.logits.norms[1].bias, vit.norm.bias)
    assert torch.equal(model.head.logits.heads[0].weight, before)
    assert {"norm.weight", "norm.bias", "head.weight", "head.bias"} <= set(report.used)
    assert report.ignored == ()

    (report,) = load_branches(classifier(5), {0: path})
    assert set(report.ignored) == {"head.weight", "head.bias"}
    (report,) = load_branches(classifier(7, separate=False), {0: path})
    assert set(report.ignored) == {"norm.weight", "norm.bias", "head.weight", "head.bias"}


def test_an_augreg_classifier_comes_with_its_branch(tmp_path: Path) -> None:
    arrays = {"Transformer/encoder_norm/scale": torch.rand(WIDTH), "head/kernel": torch.rand(WIDTH, 7)}
    model = classifier(7)
    found = branch_head(model, arrays, 0)
    assert torch.equal(found["head/kernel"][1], arrays["head/kernel"].T)
    assert found["head/kernel"][0] is model.head.logits.heads[0].weight
    assert found["Transformer/encoder_norm/scale"][0] is model.head.logits.norms[0].weight
