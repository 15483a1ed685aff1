"""The documentation's tutorials do what they say: their commands and their Python run, on a few small pictures."""

import re
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from tests.docs.pages import blocks, run_command, run_python
from tests.docs.serving import look_at_answers, run_curl, serving
from tests.mask_sets import make_masks

from piip.data.synthetic import make_scenes

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*random weights")]

USUAL = {
    "--epochs 30": "--epochs 1 --image-size 64 --workers 0",
    "epochs=30": "epochs=1, image_size=64, workers=0",
    "pretrained=True": "pretrained=False",  # nothing is fetched
    "pretrained: true": "pretrained: false",
}


class Page(NamedTuple):
    """What of a page is run, in other words where it would take hours, and what is not."""

    words: Mapping[str, str] = MappingProxyType({})
    skipped: str = "piip serve"
    """a pattern: it does not end by itself"""
    least: int = 3
    """blocks and commands that are run"""


DATA = "--data path/to/data"
RUN = "runs/detection/piip_nano_mask_rcnn"
SMALL = f"{DATA} --epochs 1 --image-size 64 --workers 0"
PAGES = {
    "start.md": Page(least=6),
    "own_pyramid.md": Page(
        words={
            "vit_tiny_patch16_224@672 + vit_small_patch14_dinov2@448": "test_vit@64 + test_vit2@32",
            DATA: SMALL,
            "600, 800": "96, 128",
            "epochs: 24": "epochs: 1, workers: 0",
            "dinov2_small.safetensors": "timm.safetensors",
        },
        least=6,
    ),
    "large_images.md": Page(
        words={
            "RUN": RUN,
            "path/to/coco": "path/to/data",
            "piip_tsb_1568_1120_672_mask_rcnn": "piip_nano_mask_rcnn",
            "piip train": "piip train --epochs 1 --workers 0",
            "--data DATA": DATA,
            "-size 4000": "-size 96",
            "_size=4000": "_size=96",
            "-size 8000": "-size 96",
            "-size 1024": "-size 128",
            "4000/1120/448": "128/96/64",
            "2048/1024/512": "96/64/48",
        },
        least=9,
    ),
    "export.md": Page(words={"runs/detection/mine": RUN, "image_size=640": "image_size=64"}, least=4),
    "finetuning.md": Page(
        words={
            "NAME --data": "two.yaml --data",
            "1=timm:vit_base_patch14_dinov2": "1=timm.safetensors",
            "piip train ...": f"piip train --model piip_nano_mask_rcnn {DATA}",
            "piip train": "piip train --epochs 1 --image-size 64 --workers 0",
            "--data DATA": DATA,
            "blocks.0-8": "blocks.0-1",
            "runs/detection/cells": RUN,
            'train("masks"': 'train("masks", epochs=1, workers=0, batch_size=2',
            "mine.yaml": "two.yaml",
            "base.safetensors": "timm.safetensors",
        },
        least=7,
    ),
    "data.md": Page(
        words={
            "convert SOURCE OUT [--to coco|yolo] [--task detection]": "convert path/to/data yolo --to yolo",
            "tile SOURCE OUT": "tile path/to/data cut",
            "[--size 1024]": "--size 48",
            "size=1024": "size=48",
            "[": "",
            "]": "",
        },
        least=4,
    ),
    "serve.md": Page(
        words={"piip serve": "piip serve --port 0 --timeout 300", "runs/detection/NAME": RUN},
        skipped="(?!)",  # nothing
        least=3,
    ),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything is that the pages name, and a run."""
    folder = tmp_path_factory.mktemp("pages")
    make_scenes(folder / "path" / "to" / "data", train=4, val=2, size=(48, 64))
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    (folder / "photos").mkdir()
    for name in ("photo.jpg", "photos/1.jpg"):
        Image.fromarray(pixels).save(folder / name)
    Image.fromarray(np.zeros((1024, 3072, 3), np.uint8)).save(folder / "scan.tif")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_command(f"piip train --model piip_nano_mask_rcnn {SMALL}")
    return folder


@pytest.mark.parametrize("name", PAGES)
def test_a_page_does_what_it_says(name: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(trained, tmp_path / "here", dirs_exist_ok=True)
    if name == "start.md":
        shutil.rmtree(tmp_path / "here" / "runs")
    monkeypatch.chdir(tmp_path / "here")
    if name == "own_pyramid.md":
        save_timm("test_vit2", "timm.safetensors")
    if name == "finetuning.md":
        save_timm("test_vit", "small.safetensors")
        save_timm("test_vit2", "timm.safetensors")
        Path("two.yaml").write_text("name: two\npyramid: test_vit@64 + test_vit2@32\nhead: mask_rcnn\n")
        make_masks(Path("masks"))
    if name == "serve.md" and shutil.which("curl") is None:
        pytest.skip("the page's requests need curl")
    with ExitStack() as ending:
        run_page(name, ending)


def run_page(name: str, ending: ExitStack) -> None:
    """All of it, in the current folder."""
    page = PAGES[name]
    names: dict[str, Any] = {}
    address, run = "", 0
    printed: list[str] = []
    for block in blocks(name):
        text = block.text
        for old, new in ({**page.words, **USUAL}).items():
            text = text.replace(old, new)
        if re.search(page.skipped, text) is not None:
            continue
        if block.language == "python":
            run_python(block, text, names)
        elif block.language == "yaml" and (match := re.match(r"# (\S+\.yaml)\n", text)):
            Path(match[1]).write_text(text)
        elif text.startswith("piip serve"):
            address = ending.enter_context(serving(text))
        elif text.startswith("curl "):
            printed.append(run_curl(text, address))
        elif block.language == "commands":
            run_command(text)
        else:
            continue
        run += 1
    assert run >= page.least, f"{name}: {run} blocks were run"
    if name == "own_pyramid.md":
        look_at_others(names)
    if name == "finetuning.md":
        alone, merged = names["again"].model.state_dict(), names["model"].model.state_dict()
        assert all(torch.equal(alone[key], merged[key]) for key in merged)
    if name == "data.md":
        for folder in ("yolo", "converted", "cut", "tiles"):
            run_command(f"piip data check {folder}")
    if name == "serve.md":
        look_at_answers(address, printed)
        Image.open("found.jpg").verify()


def save_timm(name: str, path: str) -> None:
    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model(name).state_dict(), path)


def look_at_others(names: dict[str, Any]) -> None:
    """The detector of torchvision and the segmentor learn, and answer for the whole image."""
    image = torch.rand(3, 96, 128)
    target = {"boxes": torch.tensor([[8.0, 8, 60, 60]]), "labels": torch.tensor([1])}
    losses = names["detector"].train()([image, image], [target, target])
    sum(losses.values()).backward()
    assert next(names["detector"].backbone.backbone.backbone.branches[0].parameters()).grad is not None
    assert set(names["detector"].eval()([image])[0]) == {"boxes", "labels", "scores"}
    assert names["segmentor"](image[None]).shape == (1, 5, 96, 128)
