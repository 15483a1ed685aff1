"""How much of the bare model's throughput `piip predict --no-pictures` has, in one run, by turns.

    python benchmarks/bulk.py --weights RUN --images FOLDER... [--batch-size 1] [--workers 2] [--rounds 3] [--cpu-time]

The bare model gets batches that are ready; bulk reads files, makes results and writes them. Prints images per second
(medians) and their ratios as JSON. `--cpu-time`: on a busy machine, by the CPU seconds of the process that runs the
model, which is what counts where there are other cores for the workers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import piip
from piip.prediction.bulk import Keeping, write_all
from piip.prediction.listing import Paths, paths_of
from piip.prediction.options import Options
from piip.prediction.predictor import Newest, Predictor
from piip.prediction.reading import Prepared, Reader
from piip.structures import Batch, size_of

Clock = Callable[[], float]


def ready_batches(predictor: Predictor, files: Paths, options: Options) -> list[Batch]:
    by_size: dict[tuple[int, int], list[Prepared]] = {}
    for found in map(Reader(predictor.transform, pixels=False), files):
        assert isinstance(found, Prepared), found
        by_size.setdefault(size_of(found.network_input), []).append(found)
    step = options.batch_size
    parts = [images[start : start + step] for images in by_size.values() for start in range(0, len(images), step)]
    return [predictor._batch(part, options) for part in parts]


def bare(predictor: Predictor, batches: list[Batch], clock: Clock) -> float:
    begun, newest = clock(), Newest(predictor.inference, predictor.model)
    for batch in batches:
        predictor._run(batch, newest.get())
    return clock() - begun


def bulk(predictor: Predictor, files: Paths, options: Options, clock: Clock) -> float:
    with tempfile.TemporaryDirectory() as folder:
        begun = clock()
        write_all(predictor, files, Path(folder) / "out", options, Keeping(pictures=False))
        return clock() - begun


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", required=True)
    parser.add_argument("--images", required=True, nargs="+")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--conf", type=float, default=0.25)
    parser.add_argument("--device")
    parser.add_argument("--cpu-time", action="store_true")
    told = parser.parse_args()
    clock = time.process_time if told.cpu_time else time.perf_counter
    predictor = piip.PIIP(told.weights, told.device).predictor()
    files = paths_of(told.images)
    here = Options(conf=told.conf, batch_size=told.batch_size)
    beside = Options(conf=told.conf, batch_size=told.batch_size, workers=told.workers)
    batches = ready_batches(predictor, files, here)
    bare(predictor, batches[:1], clock)
    seconds: dict[str, list[float]] = {"bare": [], "bulk": [], "bulk_with_workers": []}
    for _ in range(told.rounds):
        seconds["bare"].append(bare(predictor, batches, clock))
        seconds["bulk"].append(bulk(predictor, files, here, clock))
        seconds["bulk_with_workers"].append(bulk(predictor, files, beside, clock))
    rates = {name: round(len(files) / statistics.median(times), 2) for name, times in seconds.items()}
    ratios = {name: round(rate / rates["bare"], 3) for name, rate in rates.items()}
    print(json.dumps({"images": len(files), "images_per_second": rates, "of_the_bare_model": ratios}, indent=1))


if __name__ == "__main__":
    main()
