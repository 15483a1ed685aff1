"""Counts in both conventions: against the paper's tables, and against a counter over a whole forward pass."""

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import piip
from piip import config, zoo
from piip.backbone import PIIPBackbone
from piip.inference import choose
from piip.profile import model_info
from piip.profile.facts import info
from piip.profile.measured import Meter, _sampling_flops, measured_counts
from piip.profile.published import Count, _branch, _cells, _convolution, _image, _interactions, _norm, published_counts
from piip.weights import files
from piip.zoo import Entry

PUBLISHED = [entry for entry in zoo.MODELS.values() if entry.official_config is not None]


@pytest.fixture
def counts(goldens: Path) -> dict[str, Any]:
    return json.loads((goldens.parent / "counts.json").read_text())


def published(entry: Entry) -> Count:
    backbone = entry.published_backbone()
    size = backbone.branches[0].size
    return sum(published_counts(backbone, (size, size), entry.task == "classification").values(), Count())


def test_published_convention_is_the_papers(counts: dict[str, Any]) -> None:
    rows = {name: row["counted_light_merge"] for name, row in counts.items() if "counted_light_merge" in row}
    entries = [entry for entry in PUBLISHED if entry.official_config in rows]
    assert len(entries) == len(rows) == 28
    for entry in entries:
        count, expected = published(entry), rows[entry.official_config]
        assert round(count.params / 1e6, 1) == pytest.approx(expected["params_m"]), entry.name  # as the counter prints
        assert round(count.macs / 1e9, 1) == pytest.approx(expected["gmacs"]), entry.name


@pytest.mark.parametrize(
    "entry", [e for e in PUBLISHED if "regular-fpn" in str(e.official_config)], ids=lambda e: e.name
)
def test_convnext_models_count_as_published(entry: Entry) -> None:
    """Their publisher prints whole billions, cut off rather than rounded."""
    assert published(entry).macs / 1e9 == pytest.approx(entry.published["gflops"] + 0.5, abs=0.55)


# -- as run ----------------------------------------------------------------------------------------------------------


def whole_forward(backbone: config.Backbone, image: tuple[int, int]) -> int:
    """Multiply-adds of one ordinary forward pass on the meta device."""
    with torch.device("meta"):
        built = PIIPBackbone(backbone).eval()
        choose(built, "train")  # without the padding of windows
        images = torch.empty(1, 3, *image)
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.grid_sampler_2d: _sampling_flops})
    with torch.no_grad(), counter:
        built(images) if built.maps is not None else built.states(images)
    return counter.get_total_flops() // 2


def small(family: str = "vit", **fields: Any) -> dict[str, Any]:
    return {"family": family, "depth": 3, "width": 32, "heads": 2, "groups": 2, "windows": (2, None, 3),
            "position_grid": 2} | fields  # fmt: skip


BACKBONES = {
    "windows that do not fit": [small(size=128), small(size=96, width=64)],
    "one branch": [small(size=128, groups=1)],
    "beit and uni-perceiver": [
        small("beit", size=128, windows=3, position_grid=None),
        small("uni_perceiver", size=80),
        small("intern_vit", size=64, width=96, qkv_bias=False, position_prefix=1),
    ],
    "class tokens": [small(size=128, windows=None, prefix_tokens=1), small(size=64, windows=None, prefix_tokens=1)],
}


@pytest.mark.parametrize("name", BACKBONES)
def test_as_run_is_what_a_forward_pass_costs(name: str) -> None:
    branches = tuple(config.Branch.model_validate(branch) for branch in BACKBONES[name])
    interaction = config.Interaction(heads=4) if len(branches) > 1 else None
    backbone = config.Backbone(branches=branches, interaction=interaction)
    counted = measured_counts(backbone, None, (150, 97))
    assert sum(counted.values(), Count()).macs == whole_forward(backbone, (150, 97))


def test_as_run_with_convnext_branches() -> None:
    stages = ((1, 16), (1, 32), (2, 32), (1, 64))
    cnn = {"size": 128, "family": "convnext", "stages": stages, "groups": ((0, 0), (1, 2), (3, 5), (6, 7))}
    branches = (
        config.Branch.model_validate(cnn),
        config.Branch.model_validate(small(size=96, depth=4, groups=4, windows=2)),
    )
    backbone = config.Backbone(branches=branches, interaction=config.Interaction(heads=4),
                               maps=config.FeatureMaps(merge_after=(0, 1, 2)))  # fmt: skip
    counted = measured_counts(backbone, None, (128, 160))
    assert sum(counted.values(), Count()).macs == whole_forward(backbone, (128, 160))


def test_deformable_attention_is_counted() -> None:
    """Offsets, weights, value and output projections, and five multiply-adds per sampled channel."""
    backbone = config.Backbone(
        branches=tuple(config.Branch.model_validate(small(size=size, groups=1, windows=None)) for size in (64, 32)),
        interaction=config.Interaction(heads=4, points=4, value_ratio=0.5, ffn_ratio=None, projection=False),
    )
    cells, width, points = (16, 4), 32, 4 * 4
    expected = 0
    for queries, sources in (cells, cells[::-1]):
        expected += queries * width * 3 * points + sources * width * 16 + queries * 16 * width
        expected += 5 * queries * 4 * 16
    assert measured_counts(backbone, None, (64, 64))["interactions"].macs == expected


@pytest.mark.parametrize(
    "name",
    [
        "piip_tsb_1120_896_448_mask_rcnn",
        "piip_sbl_1792_1120_672_dino",
        "piip_sbl_1568_1120_672_mask_rcnn_beitv2",
        "piip_sbl_1568_1120_672_mask_rcnn_uni_perceiver",
        "piip_tsbl_1344_896_672_448_mask_rcnn",
        "piip_lh6b_1536_1024_512_mask_rcnn",
        "internvit_6b_1024_mask_rcnn",
    ],
)
def test_parameters_as_run_are_the_official_ones(name: str, counts: dict[str, Any]) -> None:
    entry = zoo.entry(name)
    with torch.device("meta"):
        built = PIIPBackbone(entry.backbone())
    expected = counts[str(entry.official_config)]["counted_full_backbone"]["params"]
    assert sum(parameter.numel() for parameter in built.parameters()) == expected


def officially_counted(backbone: config.Backbone) -> float:
    """What the official counter of whole detection backbones gives, with its peculiarities; see `docs/counting.md`."""
    side = backbone.branches[0].size
    images = [_image((side, side), branch.size / side) for branch in backbone.branches]
    cells, count = _cells(backbone, images, -1), len(backbone.branches)
    total = _interactions(backbone, images)
    for branch, own, image in zip(backbone.branches, cells, images, strict=True):
        total += _branch(branch, image, by_stage=True)
        if branch.family == "beit":  # its qkv projection is not seen, its output projection on padded windows
            padded = (
                prod(-(-side // window) * window for side in (image[0] // 16,) * 2)
                if (window := branch.windows[0])
                else own
            )
            total += Count(macs=branch.depth * branch.width**2 * (padded - own - 3 * padded))
    if count == 1:  # baselines are counted with their maps: three transposed convolutions
        up = 4 * cells[0] * backbone.width * (backbone.width + 1)
        return (total + Count(macs=2 * up + 4 * up)).macs / 1e9
    for branch, own in zip(backbone.branches, cells, strict=True):
        for width in (branch.width, backbone.width):
            total += _convolution(width, backbone.width, 3, own, bias=False) + _norm(backbone.width, own)
            total += Count(macs=own * backbone.width)  # ReLU
    if count != 3:  # deformable attention is counted on 14 x 14 tokens, whatever the branch's size
        for index, (branch, own) in enumerate(zip(backbone.branches, cells, strict=True)):
            pairs = 1 if index in (0, count - 1) else 2
            total += Count(macs=5 * 4 * (196 - own) * branch.width * pairs * backbone.groups)
    if count == 4:  # window attention of the finest branch is counted for the ViT-T of the config, not the ViT-S built
        finest = backbone.branches[0]
        total += Count(macs=-sum(2 * cells[0] * (window or 1) ** 2 * 192 for window in finest.windows))
    return total.macs / 1e9


def test_what_the_official_counter_leaves_out(counts: dict[str, Any]) -> None:
    """Its count of a whole pyramid stops before the upsampling to feature maps, so ours cannot be equal to it."""
    rows = {name: row["counted_full_backbone"] for name, row in counts.items() if "counted_full_backbone" in row}
    entries = [entry for entry in PUBLISHED if entry.official_config in rows]
    assert len(entries) == len(rows) == 25
    for entry in entries:
        expected = rows[entry.official_config]["gmacs"]
        assert officially_counted(entry.backbone()) == pytest.approx(expected, abs=0.06), entry.name


# -- info ------------------------------------------------------------------------------------------------------------


def test_info_has_both_conventions_and_all_parts(counts: dict[str, Any]) -> None:
    facts = piip.info("piip_tsb_1120_896_448_mask_rcnn")
    row = counts["mask_rcnn_deit_tsb_1120_896_448_fpn_1x_coco_bs16"]
    assert facts["published_convention"]["gmacs"] == row["counted_light_merge"]["gmacs"]
    assert facts["as_run"]["params"] == row["counted_full_backbone"]["params"]
    assert facts["as_run"]["gmacs"] == pytest.approx(375.7, abs=0.05)
    names = [part["part"] for part in facts["parts"]]
    assert names == ["branch 0", "branch 1", "branch 2", "interactions", "merge", "maps", "head"]
    for convention in ("published_convention", "as_run"):
        total = sum(part[convention]["params"] for part in facts["parts"])
        head = facts["parts"][-1][convention]["params"] if convention == "as_run" else 0
        assert total - head == facts[convention]["params"]
    assert facts["whole_model"]["params"] == facts["as_run"]["params"] + facts["parts"][-1]["as_run"]["params"]
    assert json.loads(json.dumps(facts)) == facts


def test_whole_model_has_the_models_parameters() -> None:
    model = zoo.entry("piip_nano_mask_rcnn").config()
    parameters = sum(parameter.numel() for parameter in piip.PIIPModel(model).parameters())
    assert model_info(model)["whole_model"]["params"] == parameters


def test_a_model_of_seven_billion_parameters_takes_seconds(counts: dict[str, Any]) -> None:
    facts = piip.info("piip_h6b_1024_512_mask_rcnn")
    assert facts["as_run"]["params"] > 7e9
    assert facts["published_convention"]["gmacs"] == pytest.approx(11079.8, rel=1e-3)


def test_info_at_another_size_and_without_a_head() -> None:
    square, wide = piip.info("piip_nano_mask_rcnn", 256), piip.info("piip_nano_mask_rcnn", (256, 512))
    assert wide["input"] == [256, 512]
    assert square["as_run"]["params"] == wide["as_run"]["params"]
    assert wide["as_run"]["gmacs"] > 2 * square["as_run"]["gmacs"]  # global attention grows faster than the image
    dino = piip.info("piip_h6b_1024_768_dino")
    if zoo.entry("piip_h6b_1024_768_dino").head is None:
        assert dino["whole_model"] is None
    assert dino["as_run"]["params"] == 7211711490


def test_a_size_without_a_grid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gives branch 2 .* no grid; use at least 40 x 40"):
        info("piip_tsb_1120_896_448_mask_rcnn", 30)
    with pytest.raises(ValueError, match="did you mean"):
        info("piip_tsb_1120_896_488_mask_rcnn")


def test_info_of_saved_weights(tmp_path: Path) -> None:
    named = zoo.entry("piip_nano_mask_rcnn").config()
    path = files.save_model(piip.PIIPModel(named.model_copy(update={"name": "mine"})), tmp_path / "mine.safetensors")
    facts = piip.info(str(path))
    assert facts["name"] == "mine"
    assert facts["as_run"] == piip.info("piip_nano_mask_rcnn")["as_run"]
    assert "published" not in facts


def test_meter_multiplies() -> None:
    meter = Meter()
    layer = torch.nn.Linear(3, 5)
    meter.count("x", layer, torch.zeros(2, 3), times=4)
    assert meter.macs["x"] == 4 * prod((2, 3, 5))
