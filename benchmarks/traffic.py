"""What a backbone reads from and writes to memory at batch 8 in bfloat16, by operation: no GPU is needed.

    python benchmarks/traffic.py [--model piip_tsb_1120_896_448_mask_rcnn] [--side 1120] [--precision bf16]

The operations are those that PyTorch would launch one by one on a GPU (nothing is computed, tensors are fake), each
with the bytes of its inputs and outputs. The bound is the time that a card with so many bytes and multiply-adds per
second needs at least, where nothing but the larger of the two counts for each operation; an H200 moves 4.3 TB/s.
What stays in its cache (50 MB) is not known here.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from piip import zoo
from piip.inference import fuse
from piip.inference.gpu import gelu, group_norm, rows
from piip.inference.gpu.exchange import KernelCrossAttention
from piip.inference.half import with_half_backbone
from piip.model import PIIPModel

ATTENTION = "attention"
PRODUCTS = ("addmm_.default", "_addmm_activation.default")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class Traffic(TorchDispatchMode):
    """Counts, bytes and multiply-adds by operation."""

    def __init__(self, bandwidth: float, rate: float) -> None:
        super().__init__()
        self.bandwidth, self.rate = bandwidth, rate
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.macs: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.namespace == "aten" and not is_view(func):
            moved = sum(map(bytes_of, tensors_in((args, kwargs)))) + sum(map(bytes_of, tensors_in(out)))
            if func is torch.ops.aten.addmm.default and args[0].ndim == 2:
                moved += bytes_of(args[0]) + bytes_of(out)  # copied first
            packet = torch.ops.aten.addmm if func.__name__ in PRODUCTS else func.overloadpacket
            count = flop_registry.get(packet)
            flops = 0 if count is None else count(*args, **(kwargs or {}), out_val=out)
            self.add(str(func.overloadpacket).removeprefix("aten."), moved, flops / 2)
        return out

    def add(self, name: str, moved: float, macs: float) -> None:
        """One call more."""
        self.calls[name] += 1
        self.bytes[name] += int(moved)
        self.macs[name] += int(macs)
        self.seconds[name] += max(moved / self.bandwidth, macs / self.rate)  # type: ignore[assignment]


class OneAttention(TorchFunctionMode):
    """Attention as the one kernel that it is on a GPU."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self.traffic = traffic

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = args[:3]
        windows, heads, queries, channels = query.shape
        out = value.new_empty(0).new_empty_strided(
            (windows, heads, queries, channels), (queries * heads * channels, channels, heads * channels, 1)
        )
        macs = 2 * windows * heads * queries * key.shape[2] * channels
        self.traffic.add(ATTENTION, sum(map(bytes_of, (query, key, value, out))), macs)
        return out


class CountedKernels:
    """The project's own kernels, each as the one operation that it is on a GPU."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic

    def mix(self, value: Tensor, offsets: Tensor, logits: Tensor, *_: Any) -> Tensor:
        """Places, softmax and sampling of an exchange."""
        out = value.new_empty(*offsets.shape[:2], value.shape[2])
        return self.counted("sampling kernel", (value, offsets, logits), out)

    def normalise(self, x: Tensor, *_: Any) -> Tensor:
        """See `row_kernels`."""
        return self.counted("norm kernel", (x,), x.new_empty(x.shape))

    def add_and_normalise(self, x: Tensor, added: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        """See `row_kernels`."""
        return self.counted("add and norm kernel", (x, added), x.new_empty(x.shape), x.new_empty(x.shape))

    def divide(self, both: Tensor, _: Tensor, shift: Tensor) -> Tensor:
        """See `row_kernels`."""
        return self.counted("norm kernel", (both,), both.new_empty(*both.shape[:-1], len(shift)))

    def sums(self, x: Tensor) -> Tensor:
        """See `map_kernels`."""
        return self.counted("sums kernel", (x,), x.new_empty(len(x), 2, x.shape[-1], dtype=torch.float32))

    def scaled(self, x: Tensor, *_: Any) -> Tensor:
        """See `map_kernels`."""
        return self.counted("scale kernel", (x,), x.new_empty(x.shape))

    def counted(self, name: str, inputs: tuple[Tensor, ...], *outputs: Tensor) -> Any:
        """The outputs."""
        self.traffic.add(name, sum(map(bytes_of, (*inputs, *outputs))), 0)
        return outputs[0] if len(outputs) == 1 else outputs

    def in_place(self) -> ExitStack:
        """In their places, until that is left."""
        stack = ExitStack()
        stack.enter_context(patch.object(KernelCrossAttention, "mix", lambda _, *inputs: self.mix(*inputs)))
        stack.enter_context(patch.object(rows, "works", lambda *_: True))
        stack.enter_context(patch.object(group_norm, "works", lambda *_: True))
        stack.enter_context(patch.object(group_norm, "_kernels", lambda: self))
        stack.enter_context(patch.object(gelu, "works", lambda *_: True))
        stack.enter_context(patch.object(rows, "_kernels", lambda: self))
        return stack


def is_view(func: Any) -> bool:
    """Whether an operation only looks at its input's memory, or takes memory without writing to it."""
    returns = func._schema.returns
    views = bool(returns) and all(one.alias_info is not None and not one.alias_info.is_write for one in returns)
    return (
        views
        or "empty" in func.__name__
        or func.overloadpacket
        in (
            torch.ops.aten._unsafe_view,
            torch.ops.aten.detach,
        )
    )


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors of arguments or results."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def bytes_of(tensor: Tensor) -> int:
    """What of it lies in memory once, however often it is repeated."""
    count = 1
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= length if stride else 1
    return count * tensor.element_size()


def main() -> int:
    """Print the table."""
    arguments = parse()
    with torch.device("meta"):
        model = PIIPModel(zoo.entry(arguments.model).config()).eval()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        model.to_empty(device="cuda")
        dtype = DTYPES[arguments.precision]
        folded = fuse(model)
        if dtype != torch.float32:
            folded = with_half_backbone(folded, dtype)
        images = torch.empty(arguments.batch, 3, arguments.side, arguments.side, device="cuda", dtype=dtype)
        for _ in range(2):  # what is made once per size is there the second time
            traffic = Traffic(1e12 * arguments.bandwidth, 1e12 * arguments.rate)
            with traffic, OneAttention(traffic), CountedKernels(traffic).in_place():
                folded.backbone(images)
    print("\n".join(table(traffic, arguments.least)))
    return 0


def table(traffic: Traffic, least: float) -> list[str]:
    """Operations by the time that they need at least."""
    lines = ["| operation | calls | GB | T multiply-adds | ms at least |", "| --- | --- | --- | --- | --- |"]
    names = [name for name, _ in traffic.seconds.most_common() if traffic.seconds[name] * 1e3 >= least]
    for name in names:
        seconds = 1e3 * traffic.seconds[name]
        lines.append(
            f"| {name} | {traffic.calls[name]} | {traffic.bytes[name] / 1e9:.2f} | {traffic.macs[name] / 1e12:.2f} "
            f"| {seconds:.2f} |"
        )
    totals = [sum(counter.values()) for counter in (traffic.calls, traffic.bytes, traffic.macs, traffic.seconds)]
    lines.append(f"| all | {totals[0]} | {totals[1] / 1e9:.2f} | {totals[2] / 1e12:.2f} | {1e3 * totals[3]:.2f} |")
    return lines


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="piip_tsb_1120_896_448_mask_rcnn")
    parser.add_argument("--side", type=int, default=1120)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", choices=DTYPES, default="bf16")
    parser.add_argument("--bandwidth", type=float, default=4.3, help="TB/s")
    parser.add_argument("--rate", type=float, default=385, help="T multiply-adds/s that a large product reaches")
    parser.add_argument("--least", type=float, default=0.1, help="ms; operations below it are not listed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
