"""How fast exported files are beside the package's own predictor, on this machine's CPU.

    python benchmarks/export.py [piip_nano_mask_rcnn ...] [--size N] [--rounds 5] [--formats onnx openvino] [--int8]
        [--cpu-time]    (then on one core: OMP_NUM_THREADS=1 taskset -c 0 python ...)

Random weights (which find as much as trained ones, see `as_if_trained`), one image at a time, from the network's input
to raw outputs, for the package's own folded copy to predictions. All run in turn, so that a machine that drifts drifts
for all; medians, and the ratio to the package's own in the same round. Prints a line per runtime.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import piip
from piip.export import Exported, export
from piip.inference import fuse
from piip.structures import Batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["piip_nano_mask_rcnn"])
    parser.add_argument("--size", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--formats", nargs="+", default=["onnx", "openvino"])
    parser.add_argument("--cpu-time", action="store_true", help="seconds of CPU, where other programs take their share")
    parser.add_argument("--int8", action="store_true", help="also ONNX Runtime with dynamically quantised products")
    options = parser.parse_args()
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            compare(name, Path(folder), options)


def compare(name: str, folder: Path, options: argparse.Namespace) -> None:
    torch.manual_seed(0)
    model = piip.create_model(name).eval()
    model.head.as_if_trained()
    files = {kind: export(model, folder / name, kind, options.size) for kind in options.formats}
    steps: dict[str, Callable[[], object]] = {}
    described = next(iter(files.values())).exported.description
    images = torch.randn(1, 3, *described.size)
    folded = fuse(model)
    steps["piip"] = lambda: folded.predict(Batch(images))
    for done in files.values():
        steps[done.exported.runtime.version] = running(done.exported, images)
    if options.int8:
        steps["onnxruntime int8"] = quantised(files["onnx"].path, images)
    print(f"{name} at {described.height} x {described.width}, {torch.get_num_threads()} threads")
    for kind, done in files.items():
        print(f"  {kind}: {done.check.summary}")
    report(steps, options.rounds, time.process_time if options.cpu_time else time.perf_counter)


def running(exported: Exported, images: torch.Tensor) -> Callable[[], object]:
    return lambda: exported.model.outputs(images)


def quantised(path: Path, images: torch.Tensor) -> Callable[[], object]:
    import onnxruntime
    from onnxruntime.quantization import quantize_dynamic

    smaller = path.with_name("int8.onnx")
    quantize_dynamic(path, smaller, op_types_to_quantize=["MatMul", "Gemm"])
    session = onnxruntime.InferenceSession(str(smaller), providers=["CPUExecutionProvider"])
    height, width = images.shape[-2:]
    given = {"images": images.numpy(), "sizes": torch.tensor([[height, width]], dtype=torch.float32).numpy()}
    known = {one.name for one in session.get_inputs()}
    return lambda: session.run(None, {key: value for key, value in given.items() if key in known})


def report(steps: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    with torch.inference_mode():
        for step in steps.values():
            step()
        for _ in range(rounds):
            for name, step in steps.items():
                began = clock()
                step()
                seconds[name].append(clock() - began)
    for name, each in seconds.items():
        ratio = statistics.median(own / one for own, one in zip(seconds["piip"], each, strict=True))
        print(f"  {name}: {statistics.median(each):.3f} s, {ratio:.2f} times the speed of piip's own")


if __name__ == "__main__":
    main()
