"""The page in a real browser: needs Playwright's Python package and Chromium (`CHROMIUM=/path/to/it`)."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests import tiny

import piip
from piip.model import PIIPModel

pytestmark = pytest.mark.slow
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 150, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    torch.manual_seed(0)
    model = piip.PIIP(PIIPModel(tiny.model())).with_thresholds({"disc": 0.99, "square": 0.0, "star": 0.99})
    weights = model.save(tmp_path_factory.mktemp("serve") / "tiny.safetensors")
    command = [sys.executable, "-m", "piip", "serve", "--weights", str(weights), "--port", "0", "--timeout", "300"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "500"})
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split("answers at ")[1].split()[0]
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address: str) -> Iterator:
    from playwright.sync_api import expect

    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: None if "422" in message.text else said.append(message.text))  # a refused file
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    expect(page.locator("#status")).to_have_text("Ready.", timeout=60_000)
    yield page
    assert said == []
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)
    context.close()


def found(page) -> int:
    return int(page.text_content("#status").split()[0].replace("No", "0"))


def looked_at(page, photo: Path) -> None:
    from playwright.sync_api import expect

    page.set_input_files("#file", str(photo))
    expect(page.locator("#status")).to_have_text(re.compile(r"ms$"), timeout=120_000)


def test_the_threshold_and_the_classes_act_at_once(page, photo: Path) -> None:
    looked_at(page, photo)
    page.fill("#threshold", "0.05")
    everything = found(page)
    assert everything > 0
    counts = [int(text) for text in page.locator("#classes .count").all_text_contents()]
    assert sum(counts) == everything
    page.locator("#classes input").first.uncheck()
    assert found(page) == everything - counts[0]
    page.locator("#classes input").first.check()
    page.fill("#threshold", "0.95")
    assert found(page) < everything
    page.locator("#auto").check()
    shown = {int(number.get_attribute("data-label")): int(number.text_content()) for number in
             page.locator("#classes .count").all()}  # fmt: skip
    assert sum(shown.values()) == shown[1] > 0
    before = page.locator("#threshold").input_value()
    page.keyboard.press("[")
    assert float(page.locator("#threshold").input_value()) < float(before)
    assert not page.locator("#auto").is_checked()


def test_what_is_drawn_changes_with_zoom_and_ticks(page, photo: Path) -> None:
    looked_at(page, photo)
    page.fill("#threshold", "0.05")
    pictures = [page.locator("#canvas").screenshot()]
    changes = (lambda: page.uncheck("#show-boxes"), lambda: page.keyboard.press("+"), lambda: page.mouse.wheel(0, 300))
    for change in changes:
        page.locator("#canvas").hover()
        change()
        page.wait_for_timeout(200)
        pictures.append(page.locator("#canvas").screenshot())
    assert len(set(pictures)) == len(pictures)
    page.keyboard.press("0")


LABELS = """async () => {
  const { draw, View } = await import("/view.js");
  const context = new OffscreenCanvas(200, 100).getContext("2d");
  const drawn = [], usual = context.fillRect.bind(context);
  context.fillRect = (x, y, wide, high) => { drawn.push([x, x + wide]); usual(x, y, wide, high); };
  const object = (box) => ({ box, name: "watermelon", score: 0.5, colour: [0, 0, 255] });
  const objects = [[150, 40, 190, 60], [-60, 70, 10, 90], [300, 30, 340, 60]].map(object);
  draw(context, { image: context.canvas, width: 200, height: 100, objects, show: { labels: true } }, new View());
  return drawn;
}"""


def test_names_are_whole_where_the_object_is_seen(page) -> None:
    at_the_right, at_the_left, outside = page.evaluate(LABELS)
    assert at_the_right[0] < 150
    assert at_the_right[1] == pytest.approx(200)
    assert at_the_left[0] == 0
    assert outside[0] == 300


def test_what_was_found_can_be_kept(page, photo: Path, tmp_path: Path) -> None:
    looked_at(page, photo)
    page.fill("#threshold", "0.05")
    with page.expect_download() as download:
        page.click("#save-json")
    download.value.save_as(tmp_path / "found.json")
    content = json.loads((tmp_path / "found.json").read_text())
    assert len(content["objects"]) == found(page)
    assert set(content["objects"][0]) == {"label", "name", "score", "box", "segmentation"}
    with page.expect_download() as download:
        page.click("#save-picture")
    assert download.value.suggested_filename == "noise-found.png"
    download.value.save_as(tmp_path / "found.png")
    assert Image.open(tmp_path / "found.png").size == (150, 100)


def test_a_file_that_is_no_image_says_so(page, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    (tmp_path / "notes.txt").write_text("hello")
    page.set_input_files("#file", str(tmp_path / "notes.txt"))
    expect(page.locator("#status")).to_have_text(re.compile("not an image"), timeout=60_000)
