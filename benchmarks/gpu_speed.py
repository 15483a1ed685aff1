"""How fast models are on a GPU: backbones and detectors against ViT-B and the card's matrix rate. See `gpu.py`."""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import timm
import torch
from gpu_steps import steps
from torch import nn

from piip import zoo
from piip.backbone.piip import PIIPBackbone
from piip.benchmark.machine import now
from piip.benchmark.samples import noise
from piip.inference import Mode, choose, fuse
from piip.inference.gpu.graphs import SEEN, set_graphs
from piip.inference.half import with_half_backbone
from piip.model import PIIPModel
from piip.profile.measured import counts_of_parts
from piip.structures import Batch

Row = dict[str, Any]

MODELS = {
    "TSB 1120/896/448": ("piip_tsb_1120_896_448_mask_rcnn", 1120),
    "TSB 1568/1120/672": ("piip_tsb_1568_1120_672_mask_rcnn", 1568),
    "SBL 1120/672/448": ("piip_sbl_1120_672_448_mask_rcnn", 1120),
}
VITS = {"ViT-B 1024": ("vit_base_patch16_224", 1024), "ViT-L 1024": ("vit_large_patch16_224", 1024)}
QUICK = {"nano": ("piip_nano_mask_rcnn", 128)}
QUICK_VITS = {"ViT-B 1024": ("vit_tiny_patch16_224", 64)}
SECONDS = 0.6
"""of measuring each row, at most 30 repeats"""
COMPILED = ("TSB 1120/896/448", "ViT-B 1024", "nano")


class Case(NamedTuple):
    """What is measured."""

    model: str
    whole: bool
    """the detector, from images to predictions, or the backbone with its maps alone"""
    batch: int
    precision: str
    """"half": weights stored in bfloat16, as predictors run pyramids in it: folded, so that the maps are as narrow as
    the head's first layers, which they take over; "bf16" is autocast around what trains"""
    mode: str


def speed(arguments: argparse.Namespace) -> Iterator[Row]:
    """Rows of all cases, ViT-B before those that are compared with it."""
    device, quick = arguments.device, arguments.quick
    roofs = {precision: roof(precision, device, 512 if quick else 8192) for precision in ("bf16", "tf32", "fp32")}
    roofs["half"] = roofs["bf16"]
    rates = {precision: float(f"{rate / 1e12:.3g}") for precision, rate in roofs.items()}
    yield {"what": "matrix product, T multiply-adds/s", **rates}
    vit_b: dict[tuple[int, str, str], float] = {}
    looked_closely = False
    for case in cases(quick, device.type == "cuda"):
        if not looked_closely and case.batch == 1:
            yield from closely(device, quick)
            looked_closely = True
        row = measured(case, device, quick, roofs[case.precision])
        key = (case.batch, case.precision, case.mode)
        if "ms" in row:
            if case.model == "ViT-B 1024":
                vit_b[key] = row["ms"]
            elif key in vit_b:
                row["to_vit_b"] = round(row["ms"] / vit_b[key], 3)
        yield row


def closely(device: torch.device, quick: bool) -> Iterator[Row]:
    """What the host waits for, which kernels take the time, training steps."""
    yield from waits(device, quick)
    yield from kernels(device, quick)
    if device.type == "cuda":
        yield from steps(lambda run: median_ms(run, device, 0.05), device)
    yield from training(device, quick)


def cases(quick: bool, graphs: bool) -> Iterator[Case]:
    """The most telling first."""
    pyramids, vits = (QUICK, QUICK_VITS) if quick else (MODELS, VITS)
    modes = ("eager", "graph") if graphs else ("eager",)
    compiled = [name for name in (*vits, *pyramids) if name in COMPILED and graphs]
    kinds = (("half", 8), ("bf16", 8), ("half", 1), ("bf16", 1), ("fp32", 1), ("tf32", 1), ("tf32", 8), ("fp32", 8))
    for precision, batch in kinds:
        for mode in modes:
            for name in (*vits, *pyramids):
                yield Case(name, False, batch, precision, mode)
        if precision in ("half", "bf16"):
            for name, mode in itertools.product(pyramids, modes):
                yield Case(name, True, batch, precision, mode)
    for mode, name in itertools.product(("compiled", "compiled graph"), compiled):  # minutes each, so they come last
        yield Case(name, False, 8, "half", mode)


def measured(case: Case, device: torch.device, quick: bool, roof: float) -> Row:
    """Milliseconds, share of the roof, memory; or why not."""
    row: Row = {"what": "forward", "model": case.model + (" detector" if case.whole else "")}
    row |= {"batch": case.batch, "precision": case.precision, "mode": case.mode}
    try:
        module, size, macs = built(case.model, case.whole, case.precision == "half", quick)
        run = runner(module, case, size, device)
        milliseconds = median_ms(run, device)
    except torch.OutOfMemoryError:
        return row | {"note": "out of memory"}
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()
    row |= {"ms": round(milliseconds, 2), "of_roof": round(macs * case.batch / (milliseconds / 1e3) / roof, 3)}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run()
        row["gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return row


@cache
def built(name: str, whole: bool, half: bool, quick: bool) -> tuple[nn.Module, int, float]:
    """The model in eval mode on the CPU, folded as predictors do if `whole` or `half`; side; multiply-adds of one."""
    torch.manual_seed(0)
    if name in (VITS | QUICK_VITS):
        architecture, size = (QUICK_VITS if quick else VITS)[name]
        vit = timm.create_model(architecture, img_size=size, num_classes=0, global_pool="").eval()
        return vit.to(torch.bfloat16) if half else vit, size, vit_macs(architecture, size)
    entry, size = (QUICK if quick else MODELS)[name]
    described = zoo.entry(entry).config()
    counts = counts_of_parts(described, (size, size), folded=whole or half, winograd="nowhere")
    model = PIIPModel(described).eval()
    model.head.as_if_trained()
    if whole or half:
        model = fuse(model, winograd="nowhere")
    if half:
        model = with_half_backbone(model, torch.bfloat16)
    macs = sum(count.macs for part, count in counts.items() if whole or part not in ("neck", "head"))
    return model if whole else model.backbone, size, macs


def vit_macs(architecture: str, size: int) -> float:
    """Of one image, by torch's counter on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        timm.create_model(architecture, img_size=size, num_classes=0, global_pool="").eval()(
            torch.empty(1, 3, size, size)
        )
    return counter.get_total_flops() / 2


def runner(module: nn.Module, case: Case, size: int, device: torch.device) -> Callable[[], Any]:
    """What is called to run the case once."""
    module = on_device(module, device, "compile" if case.mode.startswith("compiled") else "predict")
    set_tf32(case.precision == "tf32")
    context = autocast(case.precision, device)
    if case.whole:
        assert isinstance(module, PIIPModel)
        set_graphs(module, on=False)
        set_graphs(module, on=case.mode == "graph")  # of the backbone, as predictors do it
        batch = as_predicted(noise(module, (size, size), case.batch, device, targets=False))
        if case.mode == "graph":
            for _ in range(SEEN):
                in_context(lambda: module.predict(batch), context)
        return lambda: in_context(lambda: module.predict(batch), context)
    dtype = torch.bfloat16 if case.precision == "half" else torch.float32
    images = torch.randn(case.batch, 3, size, size, device=device).to(dtype)
    if case.precision == "half":
        context = nullcontext
    function: Callable[..., Any] = module
    if case.mode.startswith("compiled"):
        in_context(lambda: module(images), context)  # makes what is the same for all images
        function = compiled_of(module)

    def run() -> Any:
        return in_context(lambda: function(images), context)

    return graphed(run) if case.mode.endswith("graph") else run


def as_predicted(batch: Batch) -> Batch:
    """As predictors ask: masks inside boxes, which are pasted one by one where somebody wants them."""
    return replace(batch, paste_masks=False)


@cache
def compiled_of(module: nn.Module) -> Callable[..., Any]:
    """The same for both of its modes."""
    compiled: Callable[..., Any] = torch.compile(module, dynamic=False)
    return compiled


def on_device(module: nn.Module, device: torch.device, mode: Mode) -> nn.Module:
    """A model as predictors run it on `device`; timm's as they are."""
    module = module.to(device)
    if isinstance(module, PIIPModel | PIIPBackbone):
        choose(module, mode)
    return module


def in_context(work: Callable[[], Any], context: Callable[[], AbstractContextManager[Any]]) -> Any:
    """Without gradients, in a precision."""
    with torch.inference_mode(), context():
        return work()


def autocast(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """A factory, because an autocast context keeps casted weights for one use only."""
    if precision in ("half", "bf16"):
        return lambda: torch.autocast(device.type, torch.bfloat16)
    return nullcontext


def set_tf32(on: bool) -> None:
    """For matrix products and convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on


def graphed(work: Callable[[], Any]) -> Callable[[], Any]:
    """A CUDA graph of it: one launch for all kernels."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = work()

    def replay() -> Any:
        graph.replay()
        return kept, work  # what the graph reads and writes lives as long as it does

    return replay


def median_ms(run: Callable[[], Any], device: torch.device, seconds: float = SECONDS) -> float:
    """Of single runs, each waited for; two before them do not count."""
    for _ in range(2):
        run()
    times: list[float] = []
    until = time.monotonic() + seconds
    while len(times) < 3 or (time.monotonic() < until and len(times) < 30):
        began = now(device)
        run()
        times.append((now(device) - began) * 1e3)
    return statistics.median(times)


def roof(precision: str, device: torch.device, side: int) -> float:
    """Multiply-adds per second of a square matrix product."""
    set_tf32(precision == "tf32")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return side**3 / (median_ms(lambda: a @ b, device) / 1e3)


def waits(device: torch.device, quick: bool) -> Iterator[Row]:
    """How often the host waits for the device in one prediction, by the profiler."""
    if device.type != "cuda":
        return
    name = next(iter(QUICK if quick else MODELS))
    module, size, _ = built(name, True, False, quick)
    assert isinstance(module, PIIPModel)
    on_device(module, device, "predict")
    batch = as_predicted(noise(module, (size, size), 1, device, targets=False))
    with torch.inference_mode():
        module.predict(batch)
    with torch.inference_mode(), torch.profiler.profile() as profile:
        module.predict(batch)
    counts = {event.key: event.count for event in profile.key_averages()}
    waiting = {key: count for key, count in counts.items() if "Synchronize" in key or "Memcpy DtoH" in key}
    launches = sum(count for key, count in counts.items() if "LaunchKernel" in key)
    yield {"what": "host waits of one prediction", "model": name, "waits": waiting, "launches": launches}


def kernels(device: torch.device, quick: bool, most: int = 14) -> Iterator[Row]:
    """The kernels that take most of a backbone's time at batch 8 with weights in bfloat16."""
    if device.type != "cuda":
        return
    name = next(iter(QUICK if quick else MODELS))
    module, size, _ = built(name, False, True, quick)
    run = runner(module, Case(name, False, 8, "half", "eager"), size, device)
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    events = sorted(profile.key_averages(), key=lambda event: event.self_device_time_total, reverse=True)
    total = sum(event.self_device_time_total for event in events)
    yield {"what": "kernels of a backbone", "model": name, "device_ms": round(total / 1e3, 2)}
    for event in events[:most]:
        share = round(event.self_device_time_total / total, 3)
        yield {"what": "kernel", "name": event.key[:110], "calls": event.count, "share": share}


def training(device: torch.device, quick: bool) -> Iterator[Row]:
    """Forward and backward in bfloat16, with and without recomputing the backbone."""
    name, (entry, size) = next(iter((QUICK if quick else MODELS).items()))
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = PIIPModel(zoo.entry(entry).config()).to(device).train()
        choose(model, "train")
        model.backbone.set_checkpointing(checkpointing)
        batch = noise(model, (size, size), 2, device, targets=True)

        def step(model: PIIPModel = model, batch: Any = batch) -> None:
            model.zero_grad()
            with torch.autocast(device.type, torch.bfloat16):
                total = torch.stack(list(model.loss(batch).values())).sum()
            total.backward()

        milliseconds = median_ms(step, device)
        row: Row = {"what": "training step", "model": name, "batch": 2, "precision": "bf16"}
        row |= {"checkpointing": checkpointing, "step_ms": round(milliseconds, 1)}
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            step()
            row["gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        yield row
