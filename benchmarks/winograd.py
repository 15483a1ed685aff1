"""3x3 convolutions with transformed weights against direct ones: time and error, at the shapes of the detectors.

    python benchmarks/winograd.py [--rounds 5] [--threads 2]

Both in turn, medians; fp32, batch 1, channels last. The error is the largest difference from a convolution in float64,
over the standard deviation of that. "whole" is with the points 0, 1, -1, 2, -2 and infinity.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from piip.inference.cpu import winograd

SHAPES = (  # images, channels in, out, side
    ("merge of TSB 1120, finest", 1, 768, 768, 70),
    ("merge of TSB 1120, coarsest", 1, 768, 768, 28),
    ("merge of SBL 1120, finest", 1, 1024, 1024, 70),
    ("neck and proposals, stride 4", 1, 256, 256, 280),
    ("neck and proposals, stride 32", 1, 256, 256, 35),
    ("masks of 100 regions", 100, 256, 256, 14),
    ("128 channels", 1, 128, 128, 80),
    ("64 channels", 1, 64, 64, 80),
)
WHOLE_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0)


def seconds(work: Callable[[], Tensor]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def largest_error(found: Tensor, exact: Tensor) -> float:
    return ((found - exact).abs().max() / exact.std()).item()


def with_points(points: tuple[float, ...], x: Tensor, weight: Tensor) -> Tensor:
    usual = winograd.POINTS
    winograd.POINTS = points
    winograd._matrices.cache_clear()
    try:
        return winograd.convolve(x, winograd.transform_weight(weight), None)
    finally:
        winograd.POINTS = usual
        winograd._matrices.cache_clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{'':30} {'direct':>9} {'winograd':>9} {'ratio':>6}   error: {'direct':>8} {'winograd':>8} {'whole':>9}")
    with torch.inference_mode():
        for name, images, channels, out, side in SHAPES:
            x = torch.randn(images, channels, side, side).relu_().contiguous(memory_format=torch.channels_last)
            weight = torch.randn(out, channels, 3, 3) / (9 * channels) ** 0.5
            transformed = winograd.transform_weight(weight)
            paths = (
                lambda x=x, weight=weight: F.conv2d(x, weight, padding=1),
                lambda x=x, transformed=transformed: winograd.convolve(x, transformed, None),
            )
            exact = F.conv2d(x[:1].double(), weight.double(), padding=1)
            errors = [largest_error(path()[:1], exact) for path in paths]
            errors.append(largest_error(with_points(WHOLE_POINTS, x[:1], weight), exact))
            times: list[list[float]] = [[], []]
            for _ in range(arguments.rounds):
                for path, taken in zip(paths, times, strict=True):
                    taken.append(seconds(path))
            direct, fewer = (1e3 * statistics.median(taken) for taken in times)
            print(f"{name:30} {direct:6.1f} ms {fewer:6.1f} ms {fewer / direct:6.2f}          "
                  f"{errors[0]:8.1e} {errors[1]:8.1e} {errors[2]:9.1e}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
