"""Everything that is to be checked and measured on a GPU, in one run of about ten minutes.

    python benchmarks/gpu.py --json gpu.json [--reference shared/reference] [--data deeppcb] [--minutes 9]
    python benchmarks/gpu.py --table gpu.json          # the table of docs/speed.md from a run's results
    python benchmarks/gpu.py --device cpu --quick      # the same checks with small models, to try the script

Three parts, the most important first, and within each the most important rows first, because the run ends in time:

    exact   outputs of the official code (`--reference`), all heads' predictions and training steps against the CPU in
            float32 without TF32, half precision, folded copies, a run with EMA that is resumed (`gpu_exact.py`)
    speed   backbones and detectors, batch 1 and 8, float32, TF32 and bfloat16, eager, as CUDA graphs and compiled;
            training steps; what the host waits for (`gpu_speed.py`)
    train   a nano Mask R-CNN on real images (`--data`, a COCO folder), and its AP (`gpu_train.py`)

Every row is written to the JSON file as it comes. Exit code 1 if a check failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for tests.weights.golden

from gpu_exact import exact
from gpu_speed import speed
from gpu_train import train

from piip.benchmark.machine import describe
from piip.files import write_json

Row = dict[str, Any]
Part = Callable[[argparse.Namespace], Iterator[Row]]
PARTS: dict[str, Part] = {"exact": exact, "speed": speed, "train": train}
SHARES = {"exact": 0.35, "speed": 0.8, "train": 1.0}
"""of the whole time, when a part must have ended"""


def main() -> int:
    """Run the parts, or print the table of an earlier run."""
    arguments = parse()
    if arguments.table is not None:
        print("\n".join(table(json.loads(arguments.table.read_text(encoding="utf-8")))))
        return 0
    arguments.device = torch.device(arguments.device)
    results: dict[str, Any] = {"machine": describe(arguments.device), "quick": arguments.quick, "rows": []}
    began, failed = time.monotonic(), 0
    for part in arguments.part or PARTS:
        arguments.deadline = began + 60 * arguments.minutes * SHARES[part]
        for row in rows_of(part, arguments):
            row = {"part": part, "at": round(time.monotonic() - began, 1), **row}
            failed += row.get("ok") is False
            results["rows"].append(row)
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            if arguments.json is not None:
                write_json(arguments.json, results, indent=1)
    print(f"{failed} checks failed; {time.monotonic() - began:.0f} s")
    return int(failed > 0)


def rows_of(part: str, arguments: argparse.Namespace) -> Iterator[Row]:
    """The rows of a part until its time is over; an error is a failed row, not the end of the run."""
    try:
        for row in PARTS[part](arguments):
            yield row
            if time.monotonic() > arguments.deadline:
                yield {"what": "the rest", "note": "not run: out of time"}
                return
    except Exception:
        yield {"what": part, "ok": False, "error": traceback.format_exc()[-2000:]}


def table(results: dict[str, Any]) -> list[str]:
    """The speed rows as Markdown; failed and left out rows are said in full."""
    machine = results["machine"]
    lines = [f"{machine.get('gpu', machine['processor'])}, torch {machine['torch']}", ""]
    columns = ("model", "batch", "precision", "mode", "ms", "of_roof", "to_vit_b", "gb")
    lines += [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    rows = [row for row in results["rows"] if row["part"] == "speed" and "ms" in row]
    lines += [f"| {' | '.join(str(row.get(column, '')) for column in columns)} |" for row in rows]
    others = [row for row in results["rows"] if row not in rows]
    return [*lines, "", *("- " + ", ".join(f"{key} {value}" for key, value in row.items()) for row in others)]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated; usual: all")
    parser.add_argument("--minutes", type=float, default=9.0, help="of the whole run")
    parser.add_argument("--reference", type=Path, help="folder with goldens/ and weights.py")
    parser.add_argument("--data", type=Path, help="COCO folder for the training")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"), help="parent of the runs' folders")
    parser.add_argument("--quick", action="store_true", help="small models and few repeats")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="print the table of this file and end")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
