"""From a recipe and what the user gives to the settings of a run."""

import json
from typing import Any

import pytest
import torch
from tests import tiny
from tests.heads.dino_models import tiny_model

import piip
from piip import config, zoo
from piip.cli.key_values import key_values
from piip.data.augmentation import Augmentation, CropAugmentation, multi_scale
from piip.data.report import DataError
from piip.data.synthetic import make_scenes
from piip.tasks import detection
from piip.training.settings import Settings, write_run_config
from piip.training.start import build_settings, image_scale, resume_run, start_run, with_head, with_image_size


def test_the_kind_of_augmentation_follows_from_the_recipe():
    recipe = {"augmentation": {"kind": "segmentation", "crop": 192}}
    assert build_settings(recipe, {}).augmentation == CropAugmentation(crop=192)
    assert build_settings(recipe, {"augmentation": {"flip": 0.0}}).augmentation == CropAugmentation(crop=192, flip=0.0)
    assert build_settings({}, {"augmentation": {"flip": 0.0}}).augmentation == Augmentation(flip=0.0)
    with pytest.raises(ValueError, match="scales"):
        build_settings(recipe, {"augmentation": {"scales": [300]}})


def test_parts_of_a_multi_scale_recipe_can_be_changed():
    recipe = {"augmentation": multi_scale()}
    assert build_settings(recipe, {}).augmentation == multi_scale()
    changed = build_settings(recipe, {"augmentation": {"flip": 0.0}}).augmentation
    assert changed == multi_scale().model_copy(update={"flip": 0.0})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"augmentation": {"flp": 1}}, r"augmentation.flp: there is no such setting; did you mean augmentation.flip"),
        ({"augmentation": {"flip": 3}}, "augmentation.flip: Input should be less than or equal to 1"),
        ({"augmentation": 5}, "augmentation: Input should be"),
    ],
)
def test_wrong_parts_of_the_augmentation_are_named_as_they_were_written(given, message):
    with pytest.raises(ValueError, match=message):
        build_settings({}, given)


@pytest.mark.parametrize(("pair", "message"), [("lr=", "null is none"), ("lr=[1", "not readable as YAML")])
def test_values_that_are_none(pair, message):
    with pytest.raises(ValueError, match=message):
        key_values([pair])


def test_none_switches_a_part_of_a_recipe_off():
    recipe = {"ema": 0.99, "grad_clip": 5.0, "lr_batch_size": 32}
    settings = build_settings(recipe, {"ema": None, "lr_batch_size": None})
    assert (settings.ema, settings.grad_clip, settings.lr_batch_size) == (None, 5.0, None)


def test_the_scale_of_a_recipe_is_that_of_its_own_size():
    fresh = piip.PIIP("piip_nano_upernet")
    assert (image_scale(fresh.config, None), image_scale(fresh.config, 192)) == (1.0, 0.5)
    again = piip.PIIP(with_image_size(fresh.config, 192))
    assert (image_scale(again.config, None), image_scale(again.config, 384)) == (0.5, 1.0)
    assert image_scale(piip.PIIP(tiny.model()).config, 64) == 1.0


def test_windows_follow_the_size_of_images_too():
    segmentor = zoo.entry("piip_h6b_512_192_upernet").config()
    changed = with_image_size(segmentor, segmentor.preprocess.long_side // 2)
    assert (changed.preprocess.short_side, changed.head.window) == (256, 256)


def test_a_resumed_run_refuses_what_would_make_it_another(tmp_path):
    with pytest.raises(ValueError, match="keeps its lr, seed; only .*device.*workers"):
        piip.PIIP.resume(tmp_path, epochs=3, lr=1.0, seed=2)


@pytest.mark.parametrize("key", ["epochs", "data", "device", "image-size", "name", "output"])
def test_settings_with_an_option_of_their_own_say_so(key):
    with pytest.raises(ValueError, match=f"use the option --{key}"):
        key_values([f"{key}=1"])


def test_a_recipe_follows_the_size_of_the_images():
    recipe = {"augmentation": multi_scale()}
    half = build_settings(recipe, {}, 0.5).augmentation
    assert half.scales == tuple(range(240, 401, 16))
    assert (half.long_side, half.largest) == (666, 512)
    assert (half.crop.scales, half.crop.sides) == ((200, 250, 300), (192, 300))
    assert half.crop.probability == 0.5
    given = build_settings(recipe, {"augmentation": {"scales": [600], "long_side": 700}}, 0.5).augmentation
    assert (given.scales, given.long_side, given.largest) == ((600,), 700, 512)
    assert build_settings({}, {}, 0.5).augmentation == Augmentation()
    assert build_settings({"augmentation": {"kind": "segmentation", "crop": 192}}, {}, 2.0).augmentation.crop == 384
    assert build_settings({"augmentation": {"kind": "segmentation"}}, {}, 2.0).augmentation.crop is None
    assert build_settings(recipe, {}, 1e-6).augmentation.largest == 1


def test_parts_of_the_augmentation_from_the_command_line():
    assert key_values(["grad-clip=0.1", "augmentation.flip=0", "augmentation.resize=[1, 2]"]) == {
        "grad_clip": 0.1,
        "augmentation": {"flip": 0, "resize": [1, 2]},
    }
    with pytest.raises(ValueError, match="KEY=VALUE"):
        key_values(["augmentation"])
    with pytest.raises(ValueError, match="has no parts"):
        key_values(["lr=1", "lr.first=2"])


def test_settings_of_the_head() -> None:
    model = tiny.model()
    changed = with_head(model, {"detections": 7, "anchor_ratios": [1]})
    assert isinstance(changed.head, config.MaskRCNN)
    assert (changed.head.detections, changed.head.anchor_ratios) == (7, (1.0,))
    assert changed.head.channels == model.head.channels
    assert with_head(model, {}) == model


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"detection": 7}, "mask_rcnn head: detection: there is no such setting; did you mean detections"),
        ({"detections": 0}, "detections: Input should be greater than 0"),
        ({"kind": "dino"}, "kind"),
        ({"class_weights": [1, 2]}, "a setting of the training"),
        (5, "give settings of the head by name"),
    ],
)
def test_wrong_settings_of_the_head_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_head(tiny.model(), settings)


def test_a_head_must_fit_its_backbone() -> None:
    with pytest.raises(ValueError, match="dino head: a DINO head of 1 levels; the backbone has 3 maps"):
        with_head(tiny_model().config, {"levels": 1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": "backbone,head"}, "leave something to train"),
        ({"lora": "rank=2,targets=gate"}, "lora targets gate: the blocks of branch 0 have"),
        ({"lora": "rank=2,branches=7"}, "lora on branch 7: the model has branches 0"),
        ({"branch_lr_factors": [1]}, "give one number per branch"),
        ({"layer_strides": [1]}, "layer_strides .* give one number"),
    ],
)
def test_what_does_not_fit_the_model_leaves_no_folder(tmp_path, settings: dict[str, Any], message: str) -> None:
    make_scenes(tmp_path / "set", train=2, val=1, size=(32, 32))
    with pytest.raises(ValueError, match=message):
        start_run(tiny.model(), None, Settings(data=str(tmp_path / "set"), **settings), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_resumed_run_whose_data_are_gone_names_the_option(tmp_path):
    write_run_config(tmp_path / "config.yaml", tiny.model(), Settings(data="gone"))
    with pytest.raises(DataError, match="^gone: there is no such file or folder here; .* with --data or data=$"):
        resume_run(tmp_path)


def test_nothing_is_downloaded_that_is_overwritten_at_once(tmp_path, monkeypatch):
    model = tiny.model()
    branches = tuple(branch.model_copy(update={"pretrained": True}) for branch in model.backbone.branches)
    described = model.model_copy(update={"backbone": model.backbone.model_copy(update={"branches": branches})})
    write_run_config(tmp_path / "config.yaml", described, Settings(data="x"))
    seen = []
    monkeypatch.setattr("piip.training.start.run", lambda model, *_, **__: seen.append(model))
    resume_run(tmp_path)
    assert seen[0].config == described
    assert not any(branch.config.pretrained for branch in seen[0].backbone.branches)


def test_the_training_split_is_read_once(tmp_path, monkeypatch):
    make_scenes(tmp_path / "set", train=2, val=1, size=(32, 32))
    opened = []
    real = detection.open_split
    monkeypatch.setattr(detection, "open_split", lambda path, split: opened.append(split) or real(path, split))
    settings = Settings(data=str(tmp_path / "set"), epochs=1, workers=0)
    start_run(tiny.model(), None, settings, tmp_path / "runs")
    assert opened.count("train") == 1


def test_another_default_of_torch_changes_no_training(tmp_path):
    data, losses = make_scenes(tmp_path / "data", train=2, val=1, size=(64, 64)), []
    for default in (torch.float32, torch.float64):
        torch.set_default_dtype(default)
        try:
            run = piip.PIIP(tiny.model()).train(data, epochs=1, output=tmp_path, workers=0, image_size=64)
        finally:
            torch.set_default_dtype(torch.float32)
        losses.append({name: value for name, value in run.history[0].items() if name != "seconds"})
    assert losses[0] == losses[1]


def test_images_that_cannot_be_decoded_are_found_before_the_first_step(tmp_path, capsys):
    data = make_scenes(tmp_path / "data", train=4, val=3, size=(64, 64))
    settings = {"epochs": 1, "workers": 0, "image_size": 64, "drop_empty": False}
    for file in (data / "train" / "00001.png", data / "val" / "00000.png"):
        file.write_bytes(file.read_bytes()[:-200])
    run = piip.PIIP(tiny.model()).train(data, output=tmp_path / "checked", **settings)
    said = "1 of 4 images are left out; left out: image file that cannot be decoded (1). val: 1 of 3"
    assert f"data: train: {said}" in capsys.readouterr().err
    findings = json.loads((run.folder / "data_findings.json").read_text())
    assert [part["findings"][0]["count"] for part in findings.values()] == [1, 1]
    assert "00001.png" in findings["train"]["findings"][0]["examples"][0]
    assert len(json.loads((run.folder / "skipped.json").read_text())["unreadable_images"]) == 1
    unchecked = piip.PIIP(tiny.model()).train(data, output=tmp_path / "unchecked", check_images=False, **settings)
    findings = json.loads((unchecked.folder / "data_findings.json").read_text())
    assert "00000.png" in json.dumps(findings["val"])  # found in the evaluation, which goes on without it
    assert piip.PIIP(run.last_weights).val(data).box.numbers["AP"] == run.history[0]["box_AP"]
