"""A server under load: throughput against the bare model, waiting times, ten times the load, broken uploads.

    python benchmarks/serve.py --weights runs/detection/NAME --image photo.jpg [--rounds 60] [--json out.json]

Everything runs on this machine and on its loopback address; each part ends by itself. Ratios are of this one run.
"""  # fmt: skip

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

CLIENTS = (1, 4, 16)
QUEUE = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=60, help="requests of each measurement")
    parser.add_argument("--broken", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    photo = given.image.read_bytes()
    figures: dict[str, Any] = {"bare_images_per_second": bare(given.weights, photo, given.rounds)}
    command = [sys.executable, "-m", "piip", "serve", "--weights", given.weights, "--port", "0", "--queue", str(QUEUE)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "500"})
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split("answers at ")[1].split()[0]
        load(address, photo, 1, 5)
        for clients in CLIENTS:
            figures[f"clients_{clients}"] = load(address, photo, clients, given.rounds)
            show(figures, f"clients_{clients}")
        figures["ten_times_the_load"] = load(address, photo, 10 * QUEUE, 10 * QUEUE)
        show(figures, "ten_times_the_load")
        figures["broken"] = broken(address, photo, given.broken, server.pid)
        show(figures, "broken")
        figures["after"] = load(address, photo, 1, given.rounds)
        show(figures, "after")
    finally:
        server.terminate()
        server.wait()
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


def bare(weights: str, photo: bytes, rounds: int) -> float:
    """Images per second of `predict` in a process of its own, one after the other."""
    code = (
        "import sys, time, piip\n"
        "model, photo = piip.PIIP(sys.argv[1]), sys.stdin.buffer.read()\n"
        "model.predict(photo)\n"
        "began = time.perf_counter()\n"
        f"for _ in range({rounds}): model.predict(photo).to_json()\n"
        f"print({rounds} / (time.perf_counter() - began))\n"
    )
    run = subprocess.run([sys.executable, "-c", code, weights], input=photo, capture_output=True, check=True)
    rate = float(run.stdout)
    print(f"bare model: {rate:.2f} images/s")
    return rate


def load(address: str, photo: bytes, clients: int, requests: int) -> dict[str, Any]:
    """`requests` by `clients` that each ask again as soon as they were answered; those sent away do not come again."""
    seconds: list[float] = []
    statuses: list[int] = []
    left = iter(range(requests))
    lock = threading.Lock()

    def client() -> None:
        with httpx.Client(base_url=address, timeout=300) as connection:
            while True:
                with lock:
                    if next(left, None) is None:
                        return
                began = time.perf_counter()
                status = connection.post("/predict", content=photo).status_code
                with lock:
                    statuses.append(status)
                    if status == 200:
                        seconds.append(time.perf_counter() - began)

    began = time.perf_counter()
    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    seconds.sort()
    return {
        "images_per_second": len(seconds) / took,
        "p50_ms": 1000 * statistics.median(seconds),
        "p99_ms": 1000 * seconds[int(0.99 * (len(seconds) - 1))],
        "statuses": {str(status): statuses.count(status) for status in sorted(set(statuses))},
    }


def broken(address: str, photo: bytes, count: int, pid: int) -> dict[str, Any]:
    """Uploads that are cut off, changed or noise; memory of the server and its processes before and after."""
    draw = random.Random(0)  # noqa: S311 # to repeat it
    statuses: list[int] = []
    with httpx.Client(base_url=address, timeout=300) as client:
        for number in range(count):
            if number == count // 10:
                before = memory(pid)  # after what is kept from the first ones
            statuses.append(client.post("/predict", content=spoilt(photo, draw, number % 4)).status_code)
    return {
        "statuses": {str(status): statuses.count(status) for status in sorted(set(statuses))},
        "megabytes_before": before,
        "megabytes_after": memory(pid),
    }


def spoilt(photo: bytes, draw: random.Random, way: int) -> bytes:
    if way == 0:
        return photo[: draw.randrange(1, len(photo) // 2)]
    if way == 1:
        return draw.randbytes(draw.randrange(1, 5000))
    if way == 2:
        return photo[:20] + draw.randbytes(2000)
    return b"\x89PNG\r\n\x1a\n" + draw.randbytes(500)


def memory(pid: int) -> float:
    """Megabytes that the server and its processes hold."""
    process = psutil.Process(pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 1e6


def show(figures: dict[str, Any], name: str) -> None:
    found = figures[name]
    rate = found.get("images_per_second")
    against = "" if rate is None else f" ({rate / figures['bare_images_per_second']:.2f} of the bare model)"
    texts = [f"{key} {value:.1f}" if isinstance(value, float) else f"{key} {value}" for key, value in found.items()]
    print(f"{name}{against}: {', '.join(texts)}", flush=True)


if __name__ == "__main__":
    main()
