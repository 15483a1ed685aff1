"""All paths of deformable attention at the shapes of the released detectors: grid_sample, rows, planes of rows.

    python benchmarks/deformable_attention.py [--rounds 7] [--threads 1] [--cpu-time]
    python benchmarks/deformable_attention.py --device cuda [--batch 8] [--blocks]    # grid_sample and Triton's kernels

Medians of alternate calls in one run, fp32, batch 1, 16 heads, 4 points. "training" is forward and backward. The
choice in `piip.lean.sampling` rests on this table. Planes (`piip.inference.cpu.bags`) are what the
interactions use in inference; their time includes the softmax, which the other two are given.

On a GPU: TSB 1120's shapes, bf16 and fp32 values; "inference" is the replay of a CUDA graph, "training" is called from
Python. `--blocks` tries sizes of the kernels' programs instead (about 2 s to compile each).
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from piip import config
from piip.backbone.interaction import DeformableCrossAttention
from piip.benchmark.machine import describe, now
from piip.inference.cpu import bags
from piip.inference.gpu.exchange import KernelCrossAttention
from piip.lean.gpu import sampling
from piip.lean.gpu.sampling import KernelSampling
from piip.lean.sampling import sample_rows
from piip.ops.deformable_attention import DeformableSampling, cell_centres, deformable_attention

HEADS, POINTS = 16, 4
SHAPES = (  # receiver's grid, source's grid, channels per head
    ("TSB 1120/896/448: T from S", 70, 56, 6),
    ("TSB 1120/896/448: S from T", 56, 70, 12),
    ("TSB 1120/896/448: S from B", 56, 28, 12),
    ("TSB 1120/896/448: B from S", 28, 56, 24),
    ("SBL 1568/1120/672: S from B", 98, 70, 12),
    ("SBL 1568/1120/672: B from S", 70, 98, 24),
    ("SBL 1568/1120/672: B from L", 70, 42, 24),
    ("SBL 1568/1120/672: L from B", 42, 70, 32),
    ("nano at 192 pixels", 12, 8, 4),
)
Path = Callable[..., Tensor]
Clock = Callable[[], float]


def inputs(grid: int, source: int, channels: int) -> tuple[Tensor, list[tuple[int, int]], Tensor, Tensor]:
    """As in the models: around the receiver's cells, a few source cells away."""
    value = torch.randn(1, source**2, HEADS, channels)
    offsets = torch.randn(1, grid**2, HEADS, 1, POINTS, 2) * 2 / source
    points = cell_centres((grid, grid), value.device)[:, None, None, None] + offsets
    weights = torch.randn(1, grid**2, HEADS, 1, POINTS).softmax(-1)
    return value, [(source, source)], points, weights


def infer(path: Path, value: Tensor, sizes: list[tuple[int, int]], points: Tensor, weights: Tensor) -> None:
    with torch.inference_mode():
        path(value, sizes, points, weights)


def train(path: Path, value: Tensor, sizes: list[tuple[int, int]], points: Tensor, weights: Tensor) -> None:
    leaves = [tensor.detach().requires_grad_() for tensor in (value, points, weights)]
    out = path(leaves[0], sizes, leaves[1], leaves[2])
    out.backward(torch.ones_like(out))


def by_planes(value: Tensor, sizes: list[tuple[int, int]], points: Tensor, weights: Tensor) -> Tensor:
    """As the interactions call it; the copies stand for the matrix product's result, which is overwritten."""
    height, width = sizes[0]
    x, y = (points[0, :, :, 0].permute(1, 2, 3, 0) * torch.tensor([width, height]).view(1, 1, 2, 1)).unbind(2)
    logits = weights[0, :, :, 0].permute(1, 2, 0).log()
    table = bags.table(value[0].flatten(1), sizes[0], HEADS, lambda tokens: tokens)
    return bags.sample(table, sizes[0], x.contiguous(), y.contiguous(), logits.contiguous())


def milliseconds(step: Callable[..., None], shape: Sequence[int], rounds: int, clock: Clock) -> list[float]:
    """Medians of the paths, called in turn."""
    paths: tuple[Path, ...] = (deformable_attention, sample_rows)
    if step is infer:
        paths += (by_planes,)
    arguments = inputs(*shape)
    times: list[list[float]] = [[] for _ in paths]
    for _ in range(rounds + 1):
        for path, taken in zip(paths, times, strict=True):
            began = clock()
            step(path, *arguments)
            taken.append(clock() - began)
    return [statistics.median(taken[1:]) * 1e3 for taken in times]


def on_gpu(device: torch.device, batch: int, blocks: bool) -> None:
    """The table of a GPU."""
    print(describe(device)["gpu"], f"batch {batch}")
    print(f"{'milliseconds':34} {'inference':^31} {'training':^31}")
    print(f"{'':34} " + f"{'plain':>10} {'Triton':>10} {'ratio':>8}  " * 2)
    for (name, *shape), dtype in itertools.product(SHAPES[:4], (torch.bfloat16, torch.float32)):
        value, sizes, points, weights = inputs(*shape)
        given = (
            value.repeat(batch, 1, 1, 1).to(device, dtype), sizes, points.repeat(batch, 1, 1, 1, 1, 1).to(device),
            weights.repeat(batch, 1, 1, 1, 1).to(device),
        )  # fmt: skip
        label = f"{name} {str(dtype).removeprefix('torch.')}"
        if not blocks:
            print(f"{label:34} {columns_on_gpu(given)}", flush=True)
        elif shape[2] != 12:
            try_blocks(label, given)
    if not blocks:
        for (name, *shape), dtype in itertools.product(SHAPES[:4], (torch.bfloat16, torch.float32)):
            exchange_on_gpu(f"{name} {str(dtype).removeprefix('torch.')}", shape, batch, dtype, device)


def exchange_on_gpu(label: str, shape: list[int], batch: int, dtype: torch.dtype, device: torch.device) -> None:
    """Offsets and logits in, mixed values out, in inference: plain, with the sampling kernel, in one kernel."""
    grid, source, channels = shape
    module = DeformableCrossAttention(16, 16, config.Interaction(heads=HEADS, points=POINTS))
    value = torch.randn(batch, source**2, HEADS * channels, device=device, dtype=dtype)
    offsets, logits = (
        torch.randn(batch, grid**2, HEADS * POINTS * n, device=device, dtype=dtype) for n in (2, 1)
    )  # fmt: skip
    times: list[float] = []
    for kind, sampler in (
        (DeformableCrossAttention, DeformableSampling), (DeformableCrossAttention, KernelSampling),
        (KernelCrossAttention, KernelSampling),
    ):  # fmt: skip
        module.__class__, module.sampling.__class__ = kind, sampler

        def mix(*given: Any) -> Tensor:
            return module.mix(value, offsets, logits, (grid, grid), (source, source))

        times.append(ms_on_gpu(mix, (value, [], value, value), True))
    plain, one, fused = times
    print(
        f"{label:34} whole: {plain:8.3f} {one:8.3f} {plain / one:5.1f}x {fused:8.3f} {plain / fused:5.1f}x", flush=True
    )


def columns_on_gpu(given: tuple[Tensor, list[tuple[int, int]], Tensor, Tensor]) -> str:
    """Plain and Triton, inference and training."""
    columns = ""
    for inference in (True, False):
        plain, triton = (ms_on_gpu(path, given, inference) for path in (deformable_attention, KernelSampling()))
        columns += f"{plain:10.3f} {triton:10.3f} {plain / triton:7.1f}x  "
    if not (sampling._TRIED and all(sampling._TRIED.values())):
        columns += " (the kernel did not run)"
    return columns


def try_blocks(label: str, given: tuple[Tensor, list[tuple[int, int]], Tensor, Tensor]) -> None:
    """Sizes of programs, for inference and training."""
    from piip.lean.gpu import sampling_kernels

    for rows, numbers, warps in ((64, 1024, 4), (32, 512, 2), (16, 256, 1), (16, 128, 1), (64, 512, 4)):
        sampling_kernels.ROWS, sampling_kernels.NUMBERS, sampling_kernels.WARPS = rows, numbers, warps
        sampling_kernels.BACKWARD_ROWS, sampling_kernels.BACKWARD_NUMBERS = rows, numbers
        sampling_kernels.BACKWARD_WARPS = warps
        times = [ms_on_gpu(KernelSampling(), given, inference) for inference in (True, False)]
        print(f"{label:34} rows {rows:4} numbers {numbers:5} warps {warps}: {times[0]:.3f} {times[1]:.3f}", flush=True)


def ms_on_gpu(path: Path, given: tuple[Tensor, list[tuple[int, int]], Tensor, Tensor], inference: bool) -> float:
    """Median of five series of ten calls."""
    work: Callable[[], None] = lambda: (infer if inference else train)(path, *given)  # noqa: E731
    for _ in range(3):
        work()
    if inference:
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        work = graph.replay
    times: list[float] = []
    for _ in range(5):
        began = now(given[0].device)
        for _ in range(10):
            work()
        times.append((now(given[0].device) - began) / 10 * 1e3)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="on a busy machine: CPU seconds of one thread")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8, help="on a GPU")
    parser.add_argument("--blocks", action="store_true", help="on a GPU: other sizes of programs")
    arguments = parser.parse_args()
    if torch.device(arguments.device).type == "cuda":
        on_gpu(torch.device(arguments.device), arguments.batch, arguments.blocks)
        return
    torch.set_num_threads(1 if arguments.cpu_time else arguments.threads)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    print(f"{'milliseconds':28} {'inference':^41} {'training':^30}")
    names = ("reference", "rows", "planes", "ratio", "reference", "rows", "ratio")
    print(f"{'':28} " + " ".join(f"{name:>{8 if name == 'ratio' else 10}}" for name in names))
    for name, *shape in SHAPES:
        figures = [milliseconds(step, shape, arguments.rounds, clock) for step in (infer, train)]
        columns = " ".join(
            " ".join(f"{taken:10.2f}" for taken in path_times) + f" {path_times[0] / path_times[-1]:7.1f}x"
            for path_times in figures
        )
        print(f"{name:28} {columns}", flush=True)


if __name__ == "__main__":
    main()
