"""Every published recipe against the resolved official config: what a training would do, part by part.

The official groups of parameters are made here again from what the official code does with names (facts in the
reference's SPEC.md), and compared name by name on the meta device.
"""

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from math import ceil, cos, floor, isclose, pi
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from piip import config, tasks, zoo
from piip.model import PIIPModel
from piip.training.optim import build_optimizer, schedule_factor
from piip.training.settings import Settings
from piip.training.start import build_settings
from piip.weights.files import without_downloads
from piip.weights.official.keys import official_keys
from piip.zoo import Entry

PUBLISHED = [entry for entry in zoo.MODELS.values() if entry.official_config is not None]
WITH_PIPELINE = [entry for entry in PUBLISHED if entry.task != "classification"]
DETECTORS = [entry for entry in PUBLISHED if entry.task == "detection"]
SEGMENTORS = [entry for entry in PUBLISHED if entry.task == "segmentation"]
CLASSIFIERS = [entry for entry in PUBLISHED if entry.task == "classification"]

COCO_TRAINING_IMAGES, ADE20K_TRAINING_IMAGES, IMAGENET_TRAINING_IMAGES = 117_266, 20_210, 1_281_167

CLASSIFICATION: dict[str, Any] = {"processes": 8, "batch_size": 128, "lr": 3e-5, "epochs": 20, "weight_decay": 0.1,
                                  "new": 10, "warmup_epochs": 5, "warmup_lr": 1e-6, "min_lr": 1e-5}  # fmt: skip
"""the official configs of classifiers hold the model alone; this is their command line and its program's defaults"""

DIFFERENT = {
    "epochs of segmentation": "63 epochs are 79,632 steps of 16 images; the official 80,000 end within one",
    "frozen": "what takes no part in the forward (a ConvNeXt's last norm, an unused stride-4 level) is not trained",
    "grad_clip": "the DINOs' 0.1 had no effect: under DeepSpeed the engine alone steps, and its file has no clipping",
    "ema": "the classifiers' average was stored but never used: neither evaluated nor released",
}
"""where a recipe is not what the config says, and why; each is held below"""


@pytest.fixture
def reference(goldens: Path) -> Path:
    return goldens.parent


def official(reference: Path, entry: Entry) -> dict[str, Any]:
    (path,) = reference.glob(f"configs/*/{entry.official_config}.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def settings_of(entry: Entry) -> Settings:
    """What `piip train --model NAME` trains with."""
    return build_settings(dict(tasks.of(entry.config()).defaults(entry.config())) | dict(entry.recipe), {})


def named(entries: list[Entry]) -> Any:
    return pytest.mark.parametrize("entry", entries, ids=lambda entry: entry.name)


# -- groups of parameters --------------------------------------------------------------------------------------------


Group = tuple[float, float]
"""learning rate and weight decay"""


class NoInitialValues(TorchFunctionMode):
    """Leaves out what works in place, which on the meta device is most of the time that building a model takes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__
        if name.endswith("_") and not name.endswith("__") and name != "requires_grad_":
            return next(iter((*args, *(kwargs or {}).values())))  # torch.nn.init gives its tensor by name
        return func(*args, **(kwargs or {}))


@lru_cache(maxsize=1)
def meta_model(name: str) -> PIIPModel:
    with torch.device("meta"), NoInitialValues():
        return PIIPModel(without_downloads(zoo.entry(name).config()))


def our_groups(model: PIIPModel, settings: Settings) -> dict[str, Group]:
    """Of every parameter that is trained, by our name, at the published number of images."""
    images = settings.lr_batch_size or settings.batch_size
    published = settings.model_copy(update={"batch_size": images, "grad_accumulation": 1})
    optimizer = build_optimizer(model, published)
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    assert optimizer.defaults["eps"] == 1e-8
    groups = {
        id(parameter): (group["peak_lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    return {name: groups[id(parameter)] for name, parameter in model.named_parameters() if id(parameter) in groups}


def official_layer(name: str, strides: list[float], depth: int) -> int:
    """The layer of a parameter in a detector or segmentor; `strides`: of branches 1 (the coarsest), 2, ..."""
    if re.match(r"backbone\.(branch\d\.)?(patch_embed|visual_embed)", name):
        return 0
    if re.fullmatch(r"backbone\.(branch\d\.)?(cls_token|mask_token|pos_embed)", name):
        return 0
    if match := re.match(r"backbone\.(?:branch(\d)\.)?(?:blocks|layers)\.(\d+)\.", name):
        branch = int(match[1] or 1)
        return floor((int(match[2]) + 1) * strides[branch - 1])
    return depth + 1


def official_groups(content: dict[str, Any], dimensions: dict[str, int]) -> dict[str, Group]:
    """Of every parameter by official name, from its number of dimensions."""
    if "optimizer" not in content:
        lr, decay = CLASSIFICATION["lr"], CLASSIFICATION["weight_decay"]
        old = re.compile(r"branch\d\.")
        return {name: (lr if old.match(name) else lr * CLASSIFICATION["new"], decay) for name in dimensions}
    optimizer = content["optimizer"]
    lr, decay = optimizer["lr"], optimizer["weight_decay"]
    if "constructor" not in optimizer:
        return dict.fromkeys(dimensions, (lr, decay))
    layers = optimizer["paramwise_cfg"]
    skip = layers.get("skip_stride", [])
    strides, depth = [1.0, *(skip if isinstance(skip, list) else [skip])], layers["num_layers"]
    return {
        name: (
            lr * layers["layer_decay_rate"] ** (depth + 1 - official_layer(name, strides, depth)),
            0.0 if ndim == 1 or name.endswith(".bias") else decay,
        )
        for name, ndim in dimensions.items()
    }


@named(PUBLISHED)
def test_every_parameter_is_in_the_official_group(reference: Path, entry: Entry) -> None:
    model, settings, content = meta_model(entry.name), settings_of(entry), official(reference, entry)
    names, dimensions = official_keys(model), {name: value.ndim for name, value in model.named_parameters()}
    theirs = official_groups(content, {names[name]: ndim for name, ndim in dimensions.items()})
    ours = our_groups(model, settings)
    wrong = {
        name: (group, theirs[names[name]])
        for name, group in ours.items()
        if not (isclose(group[0], theirs[names[name]][0]) and group[1] == theirs[names[name]][1])
    }
    assert not wrong, (len(wrong), list(wrong.items())[:5])
    frozen = {names[name] for name in dimensions.keys() - ours.keys()}
    unused = re.compile(r"backbone\.(branch\d\.)?(convnext_model\.layernorm|fpn1)\.")
    assert not [name for name in frozen if not unused.match(name)], DIFFERENT["frozen"]

    # Whole layers matter where 1.5 are skipped: half a layer in every other block of 32.
    exact = our_groups(model, settings.model_copy(update={"whole_layers": False}))
    skip = content.get("optimizer", {}).get("paramwise_cfg", {}).get("skip_stride")
    fractional = 1.5 in (skip if isinstance(skip, list) else [skip])
    assert sum(ours[name] != exact[name] for name in ours) == (224 if fractional else 0)


def test_nine_recipes_skip_one_and_a_half_layers(reference: Path) -> None:
    texts = [json.dumps(official(reference, entry).get("optimizer")) for entry in PUBLISHED]
    assert sum('"skip_stride": [1.5' in text or '"skip_stride": 1.5' in text for text in texts) == 9


# -- schedule --------------------------------------------------------------------------------------------------------


def official_step_lr(content: dict[str, Any], lr: float, step: int, epoch_steps: int) -> float:
    """mmcv's: the schedule's rate times a linear warm-up."""
    schedule = content["lr_config"]
    if schedule["policy"] == "step":
        lr *= 0.1 ** sum(step // epoch_steps >= epoch for epoch in schedule["step"])
    else:
        lr = (lr - schedule["min_lr"]) * (1 - step / content["runner"]["max_iters"]) ** schedule["power"]
        lr += schedule["min_lr"]
    if step < schedule["warmup_iters"]:
        lr *= 1 - (1 - step / schedule["warmup_iters"]) * (1 - schedule["warmup_ratio"])
    return lr


@named(DETECTORS)
def test_schedule_of_detectors(reference: Path, entry: Entry) -> None:
    content, settings = official(reference, entry), settings_of(entry)
    images = settings.lr_batch_size
    assert images == (32 if "bs32" in str(entry.official_config) else 16)
    assert settings.batch_size == content["data"]["samples_per_gpu"]
    assert settings.epochs == content["runner"]["max_epochs"]
    epoch_steps = ceil(COCO_TRAINING_IMAGES / images)
    total = epoch_steps * settings.epochs
    for step in (0, 1, 250, 499, 500, 501, *range(0, total, epoch_steps), *range(epoch_steps - 1, total, epoch_steps)):
        ours = settings.lr * schedule_factor(settings, step, total)
        assert ours == pytest.approx(official_step_lr(content, content["optimizer"]["lr"], step, epoch_steps)), step


@named(SEGMENTORS)
def test_schedule_of_segmentors(reference: Path, entry: Entry) -> None:
    content, settings = official(reference, entry), settings_of(entry)
    total = content["runner"]["max_iters"]
    assert settings.lr_batch_size == 8 * content["data"]["samples_per_gpu"]
    assert settings.batch_size == content["data"]["samples_per_gpu"]
    for step in (0, 1, 700, 1499, 1500, 1501, *range(0, total, 5000)):
        ours = settings.lr * schedule_factor(settings, step, total)
        assert ours == pytest.approx(official_step_lr(content, content["optimizer"]["lr"], step, 1)), step
    steps = settings.epochs * ceil(ADE20K_TRAINING_IMAGES / settings.lr_batch_size)
    assert steps == 79_632, DIFFERENT["epochs of segmentation"]
    assert total == 80_000


@named(CLASSIFIERS)
def test_schedule_of_classifiers(entry: Entry) -> None:
    """timm's cosine, stepped after epoch e with e, so that the second epoch still has the first one's rate."""
    settings, how = settings_of(entry), CLASSIFICATION
    assert (settings.epochs, settings.batch_size, settings.lr_batch_size) == (how["epochs"], how["batch_size"], None)
    epoch_steps = ceil(IMAGENET_TRAINING_IMAGES / (how["batch_size"] * how["processes"]))
    total = epoch_steps * settings.epochs
    for peak in (how["lr"], how["lr"] * how["new"]):
        for epoch in range(how["epochs"]):
            at = max(0, epoch - 1)
            expected = how["min_lr"] + (peak - how["min_lr"]) * (1 + cos(pi * at / how["epochs"])) / 2
            if at < how["warmup_epochs"]:
                expected = how["warmup_lr"] + (peak - how["warmup_lr"]) * at / how["warmup_epochs"]
            for step in (epoch * epoch_steps, (epoch + 1) * epoch_steps - 1):
                assert peak * schedule_factor(settings, step, total, peak) == pytest.approx(expected), epoch


@named(PUBLISHED)
def test_the_rest_of_the_optimizer(reference: Path, entry: Entry) -> None:
    content, settings = official(reference, entry), settings_of(entry)
    assert (settings.grad_clip, settings.ema, settings.class_weights) == (None, None, None)
    if entry.task == "classification":
        return
    assert tuple(content["optimizer"].get("betas", (0.9, 0.999))) == (0.9, 0.999)
    clip = content["optimizer_config"].get("grad_clip")
    assert clip is None or content["deepspeed"] is True, DIFFERENT["grad_clip"]
    assert settings.checkpointing is False  # the branches' own, as in the configs


def test_other_dinos_are_clipped() -> None:
    model = zoo.entry("piip_nano_dino").config().model_copy(update={"name": "my own"})
    assert tasks.of(model).defaults(model)["grad_clip"] == 0.1


# -- images ----------------------------------------------------------------------------------------------------------


def steps_of(pipeline: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {step["type"]: step for step in flattened(pipeline)}


def flattened(pipeline: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for step in pipeline:
        yield step
        yield from flattened(step.get("transforms", []))


@named(WITH_PIPELINE)
def test_test_images(reference: Path, entry: Entry) -> None:
    steps, preprocess = steps_of(official(reference, entry)["data"]["test"]["pipeline"]), entry.preprocess
    assert [preprocess.long_side, preprocess.short_side] == steps["MultiScaleFlipAug"]["img_scale"]
    assert preprocess.pad_multiple == steps.get("Pad", {"size_divisor": 1})["size_divisor"]
    assert list(preprocess.mean) == steps["Normalize"]["mean"]
    assert list(preprocess.std) == steps["Normalize"]["std"]
    assert steps["Normalize"]["to_rgb"] is True


@named(DETECTORS)
def test_training_images_of_detectors(reference: Path, entry: Entry) -> None:
    data = official(reference, entry)["data"]["train"]
    steps, settings = steps_of(data["pipeline"]), settings_of(entry)
    augmentation, preprocess = settings.augmentation, entry.preprocess
    assert settings.drop_empty is data.get("filter_empty_gt", True) is True
    assert settings.same_orientation
    assert settings.drop_smaller == 32  # mmdetection's default, which is in no config
    assert isinstance(augmentation.flip, float)
    assert augmentation.flip == steps["RandomFlip"]["flip_ratio"]
    assert (augmentation.zoom, augmentation.colour) == (None, 0.0)
    assert preprocess.pad_multiple == steps["Pad"]["size_divisor"]
    assert [list(preprocess.mean), list(preprocess.std)] == [steps["Normalize"][key] for key in ("mean", "std")]
    if "AutoAugment" not in steps:
        assert augmentation.scales is augmentation.crop is augmentation.largest is None
        assert [preprocess.long_side, preprocess.short_side] == list(steps["Resize"]["img_scale"])
        return
    (resize,), (before, crop, again) = steps["AutoAugment"]["policies"]
    assert [[side, augmentation.long_side] for side in augmentation.scales] == resize["img_scale"] == again["img_scale"]
    assert [[side, augmentation.long_side] for side in augmentation.crop.scales] == before["img_scale"]
    assert list(augmentation.crop.sides) == crop["crop_size"]
    assert augmentation.crop.probability == 1 / len(steps["AutoAugment"]["policies"])
    assert [augmentation.largest] * 2 == steps["RandomCrop"]["crop_size"]


@named(SEGMENTORS)
def test_training_images_of_segmentors(reference: Path, entry: Entry) -> None:
    steps = steps_of(official(reference, entry)["data"]["train"]["pipeline"])
    augmentation, preprocess = settings_of(entry).augmentation, entry.preprocess
    assert list(steps["Resize"]["img_scale"]) == [preprocess.long_side, preprocess.short_side]
    assert list(augmentation.resize) == steps["Resize"]["ratio_range"]
    assert [augmentation.crop or preprocess.short_side] * 2 == steps["RandomCrop"]["crop_size"] == steps["Pad"]["size"]
    assert augmentation.largest_share == steps["RandomCrop"]["cat_max_ratio"]
    assert augmentation.flip == steps["RandomFlip"]["prob"]
    assert augmentation.distortion == 1.0
    assert "PhotoMetricDistortion" in steps


@named(CLASSIFIERS)
def test_training_images_of_classifiers(reference: Path, entry: Entry) -> None:
    """At the side of the finest branch; the policy is described in `ClassAugmentation`."""
    backbone = official(reference, entry)["backbone"]
    assert entry.preprocess.long_side == entry.preprocess.short_side == backbone["branch3"]["img_size"]
    augmentation = settings_of(entry).augmentation
    assert augmentation.kind == "classification"
    values = (augmentation.mixup, augmentation.cutmix, augmentation.mix, augmentation.label_smoothing)
    assert values == (0.8, 1.0, 1.0, 0.1)
    assert (augmentation.area, augmentation.flip, augmentation.erase) == ((0.08, 1.0), 0.5, 0.0)
    assert isinstance(entry.head, config.Classifier)


def test_the_table_in_the_docs_has_every_recipe() -> None:
    text = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
    rows = {
        line.split("`")[1]: [cell.strip() for cell in line.split("|")] for line in text.splitlines() if "| `" in line
    }
    for entry in PUBLISHED:
        settings, cells = settings_of(entry), rows[entry.name]
        assert cells[2].split(" / ")[0] == f"{settings.lr:g}"
        assert cells[3] == f"{settings.weight_decay:g}" + (" of all" if settings.decay_all else "")
        assert cells[4] == ("-" if settings.layer_decay == 1 else f"{settings.layer_decay:g}")
        assert cells[6] == str(settings.epochs)
        marks = {"segmentation": "1", "classification": "3"}
        assert cells[9] == marks.get(entry.task, "2" if isinstance(entry.head, config.DINO) else "equal")
