"""`piip serve` as users run it: one server with a small model, asked over its port."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from tests import tiny

import piip
from piip.model import PIIPModel


@dataclass
class Served:
    client: httpx.Client
    process: subprocess.Popen
    model: piip.PIIP
    photo: bytes

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def model_process(self) -> psutil.Process:
        """The one with torch in it."""
        return max(self.children(), key=lambda child: child.memory_info().rss)


def photo(size: tuple[int, int] = (150, 100), kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("serve")
    piip.PIIP(PIIPModel(tiny.model())).save(folder / "tiny.safetensors")
    command = [sys.executable, "-m", "piip", "serve", "--weights", str(folder / "tiny.safetensors"), "--port", "0",
               "--max-pixels", "1000000", "--max-bytes", "2000000", "--grace", "20", "--timeout", "300"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "500"})
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = line.split("answers at ")[1].split()[0]
        with httpx.Client(base_url=address, timeout=400) as client:
            yield Served(client, process, piip.PIIP(folder / "tiny.safetensors", "cpu"), photo())
    finally:
        process.kill()
        process.wait()


def ask(served: Served, statuses: list[int]) -> None:
    statuses.append(httpx.post(f"{served.client.base_url}/predict", content=served.photo, timeout=400).status_code)


def alike(some: list[dict], others: list[dict], box: str) -> bool:
    """Whether these are the same objects, but for the order of sums in another process."""
    pairs = zip(some, others, strict=True)
    return all(
        a["score"] == pytest.approx(b["score"], abs=2e-4) and a[box] == pytest.approx(b[box], abs=0.05)
        for a, b in pairs
    )


def test_answers_are_those_of_predict(served: Served) -> None:
    found = served.model.predict(served.photo, conf=0.02)
    answer = served.client.post("/predict?conf=0.02", content=served.photo).json()
    assert len(found) > 0
    assert (answer["width"], answer["height"]) == (150, 100)
    assert alike(answer["objects"], found.to_dict()["objects"], "box")
    assert len(answer["objects"][0]["segmentation"]["counts"]) > 1
    assert answer["milliseconds"]["model"] > 0
    coco = served.client.post("/predict?conf=0.02&format=coco", content=served.photo).json()
    assert alike(coco, found.to_coco(1), "bbox")
    discs = served.client.post("/predict?conf=0.02&classes=disc", content=served.photo).json()["objects"]
    assert discs == [entry for entry in answer["objects"] if entry["name"] == "disc"]
    picture = served.client.post("/predict?format=picture", content=served.photo)
    assert picture.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(picture.content)).format == "JPEG"


def test_broken_and_too_large_images_are_refused_with_the_reason(served: Served) -> None:
    truncated = photo(kind="JPEG")[:-2000]
    for upload, said in (
        (b"GIF89a", "not an image"),
        (truncated, "truncated"),
        (photo((1100, 1000), "JPEG"), "1 megapixels"),
    ):
        answer = served.client.post("/predict", content=upload)
        assert answer.status_code == 422
        assert said in answer.json()["detail"]


def test_a_killed_model_costs_no_request(served: Served) -> None:
    answers: list[int] = []
    threads = [threading.Thread(target=ask, args=(served, answers)) for _ in range(4)]
    served.model_process().kill()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 4
    assert 'piip_processes_replaced_total{kind="model"} 1.0' in served.client.get("/metrics").text


def test_a_stop_finishes_what_runs_and_leaves_nothing(served: Served) -> None:
    children = served.children()
    answers: list[int] = []
    thread = threading.Thread(target=ask, args=(served, answers))
    thread.start()
    deadline = time.monotonic() + 30
    while (
        "piip_under_way 1.0" not in served.client.get("/metrics").text and not answers and time.monotonic() < deadline
    ):
        pass
    served.process.send_signal(signal.SIGTERM)
    thread.join()
    assert answers == [200]
    assert served.process.wait(60) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    assert not psutil.wait_procs(children, timeout=30)[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--weights", "x", "--host", "192.0.2.1"], "give a token"),
        (["--weights", "x", "--queue", "0"], "queue 0"),
    ],
)
def test_what_cannot_be_served_is_one_line(options: list[str], said: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "piip", "serve", "--port", "0", *options],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert run.returncode == 2
    assert said in run.stderr
    assert "Traceback" not in run.stderr
