"""A folded copy gives the outputs of the model it was made from, for every family of branches and every head."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests import tiny
from torch import Tensor, nn

from piip import config, zoo
from piip.backbone.branch import restore_buffers
from piip.heads.dino import DINOHead
from piip.heads.mask_rcnn import MaskRCNNHead
from piip.inference import fuse
from piip.inference.copies import version
from piip.model import PIIPModel
from piip.profile.measured import counts_of_parts
from piip.structures import Batch

STAGES = ((1, 32), (1, 32), (2, 64), (1, 64))
STAGES_WIDE = ((1, 64), (1, 64), (2, 96), (1, 96))
PLAIN: dict[str, Any] = {"depth": 4, "heads": 2, "mlp_ratio": 2.0, "groups": 2, "position_grid": 3}
KINDS: dict[str, dict[str, Any]] = {
    "deit": PLAIN | {"layer_scale": 0.5, "windows": (2, None, 2, None)},
    "augreg": PLAIN | {"layer_scale": None, "windows": (2, None, 2, None), "position_prefix": 1},
    "mae": PLAIN | {"layer_scale": None, "windows": None},
    "dinov2": PLAIN | {"layer_scale": 0.5, "patch": 14, "windows": (3, None, 2, None)},
    "class token": PLAIN | {"layer_scale": 0.5, "windows": (3, None, 2, None), "prefix_tokens": 1},
    "beit": PLAIN | {"family": "beit", "layer_scale": 0.5, "windows": 2, "position_grid": None},
    "uni_perceiver": PLAIN | {"family": "uni_perceiver", "windows": (2, None, 2, None)},
    "intern_vit": PLAIN | {"family": "intern_vit", "qkv_bias": False, "windows": (2, None, 2, None)},
}
BY_NAME = ("vit_small_patch14_dinov2", "eva02_tiny_patch14_336", "vit_small_patch16_dinov3", "deit3_small_patch16_224")


def branches(kind: str, count: int = 2) -> tuple[config.Branch, ...]:
    fields = KINDS[kind]
    return tuple(
        config.Branch.model_validate({"size": size, "width": width, **fields})
        for size, width in zip((128, 96, 64)[:count], (32, 64, 96), strict=False)
    )


def convnext(size: int, stages: tuple[tuple[int, int], ...] = STAGES) -> config.Branch:
    # Blocks and downsampling layers alternate: the grid shrinks after the groups 0, 1 and 2.
    groups = ((0, 0), (1, 2), (3, 5), (6, 7))
    return config.Branch(size=size, family="convnext", stages=stages, groups=groups)  # type: ignore[call-arg]


BACKBONES: dict[str, config.Backbone] = {
    kind: config.Backbone(branches=branches(kind), interaction=tiny.interaction()) for kind in KINDS
}
BACKBONES |= {
    "three branches": tiny.backbone(3),
    "single branch": tiny.backbone(1),
    "baseline": config.Backbone(branches=branches("mae", 1), maps=config.FeatureMaps(norm="layernorm")),
    "cross attention": tiny.backbone(2, attention="cross"),
    "speed-up": tiny.backbone(2, projection=False, norm="none"),
    "projection without norm": tiny.backbone(2, norm="none"),
    "norm without projection": tiny.backbone(2, projection=False),
    "without ffn": tiny.backbone(2, ffn_ratio=None),
    "three maps": tiny.backbone(3, config.FeatureMaps(strides=(8, 16, 32))),
    "map after each group": config.Backbone(
        branches=tuple(tiny.branch(size, width, groups=4) for size, width in ((128, 32), (64, 64))),
        interaction=tiny.interaction(),
        maps=config.FeatureMaps(merge_after=(0, 1, 2)),
    ),
    "convnext": config.Backbone(
        branches=(convnext(128), convnext(64, STAGES_WIDE)),
        interaction=tiny.interaction(),
        maps=config.FeatureMaps(merge_after=(0, 1, 2)),
    ),
    "hybrid": config.Backbone(
        branches=(convnext(128), tiny.branch(96, 64, groups=4)),
        interaction=tiny.interaction(),
        maps=config.FeatureMaps(merge_after=(0, 1, 2)),
    ),
}
HEADS: dict[str, config.Head] = {
    "mask_rcnn": config.MaskRCNN(channels=16, fc_channels=32, mask_convs=1, proposals=60, detections=20),
    "dino": config.DINO(channels=64, heads=2, encoder_layers=1, decoder_layers=2, ffn_channels=32, queries=20),
    "upernet": config.UperNet(channels=24, auxiliary_channels=16),
    "separate classifier": config.Classifier(separate_head=True),
    "merged classifier": config.Classifier(separate_head=False),
}


def build(backbone: config.Backbone, head: config.Head) -> PIIPModel:
    """Every part matters: nothing is 0 or 1 that fresh weights leave at 0 or 1."""
    if isinstance(head, config.Classifier):
        backbone = backbone.model_copy(update={"maps": None})
    preprocess = config.Preprocess(long_side=128, short_side=128)
    described = config.Model(name="tiny", backbone=backbone, head=head, classes=("a", "b", "c"), preprocess=preprocess)
    with torch.device("meta"):
        model = PIIPModel(described)
    model.load_state_dict({name: _random(name, old) for name, old in model.state_dict().items()}, assign=True)
    restore_buffers(model)
    return model.eval()


def _random(name: str, old: Tensor) -> Tensor:
    new = torch.randn(old.shape)
    if not old.is_floating_point():
        return torch.zeros(old.shape, dtype=old.dtype)
    if "running_var" in name:
        return 1 + 0.3 * new.abs()
    if old.ndim <= 1:
        scales = name.endswith("weight") or "gamma" in name or "weights." in name
        return (0.8 if scales else 0.0) + 0.2 * new
    if "pos_embed" in name or "token" in name or "table" in name:
        return 0.3 * new
    return new / old[0].numel() ** 0.5


def outputs(model: PIIPModel, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """All that the head computes before it decides."""
    features, head = model.features(images), model.head
    if isinstance(head, DINOHead):
        sizes = [(images.shape[2], images.shape[3])] * len(images)
        decoded = head(features, sizes, sizes[0])
        yield from (("scores", decoded.logits), ("boxes", decoded.boxes), ("selected", decoded.selected.logits))
        return
    if not isinstance(head, MaskRCNNHead):
        yield "logits", head(features)
        return
    levels = head.fpn(features)
    boxes = [torch.tensor([[4.0, 6.0, 60.0, 50.0], [30.0, 20.0, 120.0, 90.0]])] * len(images)
    logits, deltas = head.rpn(levels)
    scores, offsets = head.box(levels, boxes)
    named = {"level": levels, "objectness": logits, "deltas": deltas, "box": [scores, offsets]}
    named["mask"] = [head.mask(levels, boxes)]
    for name, tensors in named.items():
        for index, tensor in enumerate(tensors):
            yield f"{name} {index}", tensor


@torch.no_grad()
def assert_equal(model: PIIPModel, fused: PIIPModel, images: Tensor) -> None:
    for (name, expected), (_, actual) in zip(outputs(model, images), outputs(fused, images), strict=True):
        assert actual.shape == expected.shape, name
        error = (actual - expected).abs().max() / expected.std()
        assert error < 1e-4, f"{name}: {error:.1e} of its standard deviation"


@pytest.mark.parametrize("size", [(128, 128), (101, 75)])
@pytest.mark.parametrize("kind", BACKBONES)
def test_folded_detectors_are_equal(kind: str, size: tuple[int, int]) -> None:
    model = build(BACKBONES[kind], HEADS["mask_rcnn"])
    assert_equal(model, fuse(model), torch.randn(2, 3, *size))


@pytest.mark.parametrize("head", [head for head in HEADS if head != "mask_rcnn"])
@pytest.mark.parametrize("kind", ["deit", "three branches", "single branch", "convnext", "hybrid", "class token"])
def test_other_folded_heads_and_classifiers_are_equal(kind: str, head: str) -> None:
    model = build(BACKBONES[kind], HEADS[head])
    assert_equal(model, fuse(model), torch.randn(2, 3, 101, 75))


@pytest.mark.parametrize("name", BY_NAME)
def test_timm_models_by_name_are_equal(name: str) -> None:
    branch = config.Branch.model_validate({"model": name, "size": 64, "groups": 2, "windows": None})
    backbone = config.Backbone(branches=(branch,), maps=config.FeatureMaps(norm="layernorm"))
    model = build(backbone, config.Classifier())
    assert_equal(model, fuse(model), torch.randn(1, 3, 64, 80))


def test_sync_batch_norm_folds_as_batch_norm() -> None:
    model = build(BACKBONES["deit"], HEADS["upernet"])
    model.head = nn.SyncBatchNorm.convert_sync_batchnorm(model.head)
    fused = fuse(model.eval())
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in fused.modules())
    assert_equal(model, fused, torch.randn(1, 3, 96, 96))


def test_predictions_are_equal() -> None:
    model = build(BACKBONES["deit"], HEADS["mask_rcnn"])
    batch = Batch(torch.randn(1, 3, 96, 128))
    expected, actual = model.predict(batch)[0], fuse(model).predict(batch)[0]
    assert len(expected["boxes"]) > 0
    torch.testing.assert_close(actual["boxes"], expected["boxes"], atol=1e-2, rtol=1e-4)
    torch.testing.assert_close(actual["scores"], expected["scores"], atol=1e-4, rtol=1e-4)
    assert (actual["masks"] != expected["masks"]).float().mean() < 1e-3


def test_the_original_is_untouched_and_shares_nothing_with_its_copy() -> None:
    model = build(BACKBONES["three branches"], HEADS["mask_rcnn"]).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fused = fuse(model)
    assert model.training
    assert not fused.training
    storages = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    assert not storages & {tensor.untyped_storage().data_ptr() for tensor in fused.state_dict().values()}
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert all(parameter.requires_grad for parameter in model.head.parameters())
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_sharing_copy_holds_only_what_was_folded_anew() -> None:
    model = build(BACKBONES["three branches"], HEADS["mask_rcnn"])
    fused = fuse(model, share=True)
    theirs = {tensor.data_ptr() for tensor in model.state_dict().values()}
    shared = sum(tensor.numel() for tensor in fused.state_dict().values() if tensor.data_ptr() in theirs)
    assert shared > 0.3 * sum(tensor.numel() for tensor in model.state_dict().values())
    assert all(parameter.requires_grad for parameter in model.head.parameters())


def test_the_version_changes_with_the_weights() -> None:
    model = build(BACKBONES["deit"], HEADS["mask_rcnn"])
    first = version(model)
    assert version(model) == first
    model.load_state_dict(model.state_dict())
    second = version(model)
    assert second != first
    with torch.no_grad():
        model.head.box.scores.bias.add_(1)
    assert version(model) != second


def test_a_folded_copy_does_not_train() -> None:
    fused = fuse(build(BACKBONES["deit"], HEADS["mask_rcnn"]))
    batch = Batch(torch.randn(1, 3, 64, 64), [(64, 64)], [(64, 64)], [], [0])
    with pytest.raises(RuntimeError, match="folded copy"):
        fused.loss(batch)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_keep_their_dtype(dtype: torch.dtype) -> None:
    fused = fuse(build(BACKBONES["deit"], HEADS["upernet"]).to(dtype))
    assert {parameter.dtype for parameter in fused.parameters()} == {dtype}


@pytest.mark.parametrize("name", ["piip_tsb_1120_896_448_mask_rcnn", "piip_sbl_1120_672_448_mask_rcnn"])
def test_backbone_and_neck_of_the_paper_s_models_take_fewer_multiply_adds(name: str) -> None:
    described = zoo.entry(name).config()
    size = (described.backbone.branches[0].size,) * 2
    plain = counts_of_parts(described, size)
    folded = counts_of_parts(described, size, folded=True)
    direct = counts_of_parts(described, size, folded=True, winograd="nowhere")

    def total(counts: dict[str, Any]) -> int:
        return sum(count.macs for part, count in counts.items() if part != "head")

    assert total(folded) < 0.8 * total(plain)
    assert total(folded) < total(direct) < 0.9 * total(plain)
