"""Conversion finds the model's config, its class names and its second set of weights where they are."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.weights import strangers
from tests.weights.test_convert import classifier, detector, run_cli, same_bits, segmentor, state_dict

import piip
from piip.data.names.coco import COCO_CLASSES
from piip.weights.files import WeightsError, read_config, read_tensors
from piip.weights.official.convert import to_ours

NAMES = tuple(f"thing {i}" for i in range(80))


def as_python(official: dict[str, Any]) -> str:
    """A config's text as mmcv's `pretty_text` has it."""
    return "".join(f"{name} = {value!r}\n" for name, value in official.items())


def test_python_configs_convert_as_their_json(goldens: Path, tmp_path: Path) -> None:
    for kind in (detector, segmentor, classifier):
        official = kind(goldens)
        state = state_dict(official)
        torch.save({"model" if kind is classifier else "state_dict": state}, tmp_path / "theirs.pth")
        (tmp_path / "official.json").write_text(json.dumps(official))
        python = {"model": official} if kind is classifier else official
        (tmp_path / "official.py").write_text(as_python(python))
        done = [to_ours(tmp_path / "theirs.pth", tmp_path / kind.__name__ / suffix, tmp_path / f"official.{suffix}")
                for suffix in ("json", "py")]  # fmt: skip
        assert done[0].model == done[1].model
        same_bits(*(read_tensors(one.path) for one in done))


def test_released_names_follow_from_python_files_too(goldens: Path, tmp_path: Path) -> None:
    official = detector(goldens)
    torch.save({"state_dict": state_dict(official)}, tmp_path / "theirs.pth")
    path = tmp_path / "mask_rcnn_deit_tsb_1120_896_448_fpn_1x_coco_bs16.py"
    path.write_text(as_python(official))
    assert to_ours(tmp_path / "theirs.pth", tmp_path / "ours", path).model.name == "piip_tsb_1120_896_448_mask_rcnn"


def test_the_config_inside_is_enough(goldens: Path, tmp_path: Path) -> None:
    official = detector(goldens)
    with strangers.pretended("mmcv.utils.config", strangers.ConfigDict) as kind:
        saved = strangers.of_mmdet_2(state_dict(official), CLASSES=NAMES, config=as_python(official), cfg=kind(a=1))
        torch.save(saved, tmp_path / "mine.pth")
    done = to_ours(tmp_path / "mine.pth", tmp_path / "ours")
    assert (done.model.name, done.model.classes, done.model.category_ids, done.notes) == ("mine", NAMES, None, ())
    assert piip.PIIP(tmp_path / "ours", device="cpu").config.classes == NAMES
    for text, said in (("import os\n", r"the config in it, line 1: an import"), ("a = 1\n", "'model'|backbone")):
        torch.save({**saved, "meta": {"config": text}}, tmp_path / "bad.pth")
        with pytest.raises(ValueError, match=said):
            to_ours(tmp_path / "bad.pth", tmp_path / "bad")
        assert not (tmp_path / "bad").exists()


def test_names_of_classes(goldens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    official = detector(goldens)
    (tmp_path / "official.json").write_text(json.dumps(official))
    coco = tuple(COCO_CLASSES.values())
    metas: list[tuple[dict[str, Any], tuple[str, ...], bool, str]] = [
        ({"CLASSES": NAMES}, NAMES, False, ""),
        ({"dataset_meta": {"classes": list(NAMES)}}, NAMES, False, ""),
        ({"CLASSES": coco}, coco, True, ""),
        ({}, coco, True, "note: the file names no classes; there are 80, so they are taken to be COCO's"),
        ({"CLASSES": ("a", "b")}, tuple(f"class {i}" for i in range(80)), False,
         "note: the file names 2 classes, but its head has 80: they are numbered"),
    ]  # fmt: skip
    for index, (meta, names, ids, note) in enumerate(metas):
        torch.save({"state_dict": state_dict(official), "meta": meta}, tmp_path / "theirs.pth")
        target = tmp_path / f"ours{index}"
        assert run_cli("convert", str(tmp_path / "theirs.pth"), str(target), "--config",
                       str(tmp_path / "official.json")) == 0  # fmt: skip
        found = read_config(target)
        assert found.classes == names
        assert (found.category_ids is not None) == ids
        said = capsys.readouterr().out.replace("\n", " ")
        assert note in said if note else "note" not in said


def test_public_names_of_the_other_tasks_are_noted(goldens: Path, tmp_path: Path) -> None:
    for kind, name in ((segmentor, "ADE20K"), (classifier, "ImageNet")):
        official = kind(goldens)
        (tmp_path / "official.json").write_text(json.dumps(official))
        torch.save({"model": state_dict(official), "args": argparse.Namespace(lr=1.0)}, tmp_path / "theirs.pth")
        done = to_ours(tmp_path / "theirs.pth", tmp_path / name, tmp_path / "official.json")
        assert [f"taken to be {name}'s" in note for note in done.notes] == [True]


def test_ema_buffers_are_left_out_or_taken(goldens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    official = detector(goldens)
    (tmp_path / "official.json").write_text(json.dumps(official))
    state, mean = state_dict(official), {k: torch.full_like(v, 2) for k, v in state_dict(official).items()}
    buffers = {"ema_" + name.replace(".", "_"): value for name, value in mean.items()}
    meta = {"CLASSES": NAMES}
    torch.save({"state_dict": state, "meta": meta}, tmp_path / "raw.pth")
    torch.save({"state_dict": mean, "meta": meta}, tmp_path / "mean.pth")
    torch.save({"state_dict": {**state, **buffers}, "meta": meta}, tmp_path / "both.pth")

    def converted(name: str, *options: str) -> dict[str, torch.Tensor]:
        target = tmp_path / f"{name}{len(options)}"
        arguments = ("convert", str(tmp_path / f"{name}.pth"), str(target), "--config", str(tmp_path / "official.json"))
        assert run_cli(*arguments, *options) == 0
        return read_tensors(target)

    same_bits(converted("both"), converted("raw"))
    assert f"a second set of {len(mean)} weights (of an EMA) was left out; --ema takes it" in (
        capsys.readouterr().out.replace("\n", " ")
    )
    same_bits(converted("both", "--ema"), converted("mean"))
    with pytest.raises(WeightsError, match="holds no second set of weights"):
        to_ours(tmp_path / "raw.pth", tmp_path / "none", tmp_path / "official.json", average=True)
    assert run_cli("convert", str(tmp_path / "raw0"), str(tmp_path / "x.pth"), "--to-official", "--ema") == 2


def test_folders_of_deepspeed_convert(goldens: Path, tmp_path: Path) -> None:
    official = detector(goldens)
    (tmp_path / "official.json").write_text(json.dumps(official))
    folder = tmp_path / "mine" / "global_step7"
    folder.mkdir(parents=True)
    torch.save({"module": state_dict(official, torch.bfloat16)}, folder / "mp_rank_00_model_states.pt")
    done = to_ours(folder, tmp_path / "a", tmp_path / "official.json")
    again = to_ours(folder.parent, tmp_path / "b", tmp_path / "official.json")
    same_bits(*(read_tensors(one.path) for one in (done, again)))
