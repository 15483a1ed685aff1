"""Is a GPU's result the CPU's? Goldens, all heads, half precision, folded copies, a resumed run. See `gpu.py`."""

from __future__ import annotations

import argparse
import copy
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import piip
from piip import config
from piip.backbone.interaction import DeformableCrossAttention
from piip.benchmark.samples import noise
from piip.data.synthetic import make_scenes
from piip.inference import fuse
from piip.inference.gpu.exchange import KernelCrossAttention
from piip.inference.half import with_half_backbone
from piip.lean.gpu import sampling
from piip.lean.gpu.sampling import KernelSampling
from piip.model import PIIPModel
from piip.ops.deformable_attention import DeformableSampling
from piip.structures import BranchState, Size
from piip.weights import opengvlab
from piip.weights.files import read_tensors

Row = dict[str, Any]

NANO = ("piip_nano_mask_rcnn", "piip_nano_dino", "piip_nano_upernet", "piip_nano_classifier")
GOLDENS = ("det_tsb_deit", "det_sbl_beit", "det_sbl_uniperceiver", "det_internvit_mini", "det_cnx_tsb", "det_vit_b")
FP32_LIMIT = 1e-3
"""largest difference over the standard deviation of what is compared"""
GOLDEN_LIMIT = 3e-4
"""as on the CPU, for maps whose standard deviation is about 1"""
HALF_LIMITS = {"bf16": 3e-2, "fp16": 5e-3}
"""root mean square difference over the standard deviation; 8 and 11 bits of mantissa through some 30 layers"""
KERNEL_LIMITS = {torch.float32: 1e-4, torch.bfloat16: 6e-2, torch.float16: 8e-3}
"""largest difference over the standard deviation; half precision rounds once, numbers of up to some 15 deviations"""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
SIDE = 192


def exact(arguments: argparse.Namespace) -> Iterator[Row]:
    """All checks, TF32 off."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield from kernel_rows(arguments.device)
    yield from exchange_rows(arguments.device)
    for name in NANO:
        yield from head_rows(name, arguments.device)
    if arguments.reference is None:
        yield {"what": "goldens", "note": "not run: no --reference"}
    else:
        for name in GOLDENS[3:5] if arguments.quick else GOLDENS:
            yield golden_row(name, arguments.reference / "goldens", arguments.device)
    yield resume_row(arguments.device, arguments.output)


# -- the kernel of deformable attention ------------------------------------------------------------------------------


def kernel_rows(device: torch.device) -> Iterator[Row]:
    """Result and gradients of the Triton kernels against the plain path in float32 on the same device."""
    for channels, dtype in itertools.product((6, 12, 24, 32), (torch.float32, torch.bfloat16, torch.float16)):
        torch.manual_seed(0)
        size = (56, 40)
        value = torch.randn(2, size[0] * size[1], 16, channels).to(device, dtype)
        cells = torch.rand(2, 1000, 16, 1, 4, 2) * 60 - 2  # some of them outside
        cells += ((cells - cells.round()).abs() < 1e-3) * 2e-3  # there gradients jump
        points = ((cells + 0.5) / torch.tensor([size[1], size[0]])).to(device)
        weights = torch.randn(2, 1000, 16, 4).softmax(-1)[:, :, :, None].to(device)
        towards = torch.randn(2, 1000, 16 * channels).to(device, dtype)
        found = sampled(KernelSampling(), value, size, points, weights, towards)
        expected = sampled(DeformableSampling(), value.float(), size, points, weights, towards.float())
        limit = KERNEL_LIMITS[dtype]
        what = f"Triton deformable attention, {channels} channels, {str(dtype).removeprefix('torch.')}"
        if not used(device, channels, dtype):
            yield {"what": what, "note": "the kernel did not run", "ok": device.type != "cuda"}
        for part, one, other in zip(("result", "value", "points", "weights"), found, expected, strict=True):
            kind = part if part == "result" else f"gradient of {part}"
            yield {"what": f"{what}, {kind}", **compared([other.cpu()], [one], limit)}


def exchange_rows(device: torch.device) -> Iterator[Row]:
    """Places, softmax and sampling in one kernel against the plain module in float32 on the same device."""
    size, source = (70, 70), (56, 40)
    for channels, dtype in itertools.product((6, 12, 24, 32), (torch.float32, torch.bfloat16, torch.float16)):
        torch.manual_seed(0)
        module: Any = DeformableCrossAttention(32, 32, config.Interaction(heads=16, points=4))
        value = torch.randn(2, source[0] * source[1], 16 * channels).to(device, dtype)
        offsets = torch.randn(2, size[0] * size[1], 16 * 4 * 2).mul(3).to(device, dtype)
        logits = torch.randn(2, size[0] * size[1], 16 * 4).to(device, dtype)
        expected = module.mix(value.float(), offsets.float(), logits.float(), size, source)
        module.__class__ = KernelCrossAttention
        found = module.mix(value, offsets, logits, size, source)
        what = f"exchange in one kernel, {channels} channels, {str(dtype).removeprefix('torch.')}"
        yield {"what": what, **compared([expected.cpu()], [found], KERNEL_LIMITS[dtype])}
    failed = [asked for asked, works in sampling._TRIED.items() if not works]
    if failed or (device.type == "cuda" and not sampling._TRIED):
        yield {"what": "kernels that do not work here", "which": str(failed), "ok": False}


def sampled(
    path: DeformableSampling, value: Tensor, size: Size, points: Tensor, weights: Tensor, towards: Tensor
) -> list[Tensor]:
    """The result and the gradients of value, points and weights."""
    leaves = [tensor.detach().requires_grad_() for tensor in (value, points, weights)]
    out = path(leaves[0], [size], *leaves[1:])
    return [out.detach(), *torch.autograd.grad(out, leaves, towards)]


def used(device: torch.device, channels: int, dtype: torch.dtype) -> bool:
    """Whether the kernels ran."""
    tried = sampling._TRIED.items()
    return any(asked.channels == channels and asked.value == dtype and works for asked, works in tried)


# -- heads -----------------------------------------------------------------------------------------------------------


def head_rows(name: str, device: torch.device) -> Iterator[Row]:
    """A prediction and a training step on both devices, a folded copy, and half precision."""
    torch.manual_seed(0)
    on_cpu = piip.create_model(name)
    if hasattr(on_cpu.head, "sampler"):
        on_cpu.head.sampler = lambda candidates, count: candidates[:count]  # what is random differs between devices
    on_cpu.head.as_if_trained()
    there = copy.deepcopy(on_cpu).to(device)
    batch = noise(on_cpu, (SIDE, SIDE), 2, torch.device("cpu"), targets=True)
    with torch.no_grad():
        features = tensors_of(on_cpu.eval().features(batch.images))
        features_there = tensors_of(there.eval().features(batch.images.to(device)))
        yield {"what": f"{name} features", **compared(features, features_there, FP32_LIMIT)}
        yield {"what": f"{name} prediction", **predictions_compared(on_cpu, there, batch, device)}
        folded = tensors_of(fuse(there).features(batch.images.to(device)))
        if [one.shape for one in folded] == [one.shape for one in features]:  # laterals may be folded into the maps
            yield {"what": f"{name} folded features", **compared(features, folded, FP32_LIMIT)}
        yield {"what": f"{name} folded prediction", **predictions_compared(on_cpu, fuse(there), batch, device)}
    losses, gradient = step(on_cpu, batch)
    losses_there, gradient_there = step(there, batch.to(device))
    _, exact_gradient = step(copy.deepcopy(on_cpu).double(), replace(batch, images=batch.images.double()))
    yield {"what": f"{name} losses", **compared(losses, losses_there, FP32_LIMIT, relative=True)}
    yield {"what": f"{name} gradient", **gradient_compared(exact_gradient, gradient, gradient_there.cpu())}
    for precision, limit in HALF_LIMITS.items():
        with torch.no_grad(), torch.autocast(device.type, DTYPES[precision]):
            half = tensors_of(there.features(batch.images.to(device)))
        yield {"what": f"{name} features in {precision}", **rms_compared(features, half, limit)}
        with torch.no_grad():
            usual = tensors_of(fuse(on_cpu, winograd="nowhere").features(batch.images))
            stored = with_half_backbone(fuse(there, winograd="nowhere"), DTYPES[precision])
            found = tensors_of(stored.features(batch.images.to(device)))
        yield {"what": f"{name} features of weights stored in {precision}", **rms_compared(usual, found, limit)}


def tensors_of(features: list[Any]) -> list[Tensor]:
    """Maps, or the tokens of branches."""
    return [one.tokens if isinstance(one, BranchState) else one for one in features]


def step(model: PIIPModel, batch: Any) -> tuple[list[Tensor], Tensor]:
    """Losses and the whole gradient, without stochastic depth and dropout, which differ between devices."""
    model.eval().zero_grad()
    losses = list(model.loss(batch).values())
    torch.stack(losses).sum().backward()
    gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return [loss.detach() for loss in losses], torch.cat(gradients)


def compared(expected: list[Tensor], actual: list[Tensor], limit: float, relative: bool = False) -> Row:
    """The largest difference over the standard deviation (or the value)."""
    worst = 0.0
    for one, other in zip(expected, actual, strict=True):
        scale = one.abs().max() if relative else one.float().std()
        worst = max(worst, float((one.float() - other.float().cpu()).abs().max() / scale.clamp(min=1e-6)))
    return {"difference": f"{worst:.1e}", "limit": limit, "ok": worst <= limit}


def rms_compared(expected: list[Tensor], actual: list[Tensor], limit: float) -> Row:
    """The root mean square difference over the standard deviation."""
    pairs = zip(expected, actual, strict=True)
    worst = max(float((one - other.float().cpu()).square().mean().sqrt() / one.std()) for one, other in pairs)
    return {"difference": f"{worst:.1e}", "limit": limit, "ok": worst <= limit}


def gradient_compared(exact: Tensor, on_cpu: Tensor, there: Tensor) -> Row:
    """By norm, from float64's gradient, and no further from it than twice what the CPU's float32 is.

    The gradient of bilinear sampling jumps where rounding moves a point over the middle of a cell, on any device.
    """
    usual, difference = (float((one.double() - exact).norm() / exact.norm()) for one in (on_cpu, there))
    limit = 2 * usual + 1e-4
    return {"difference": f"{difference:.1e}", "limit": f"{limit:.1e}", "ok": difference <= limit}


def predictions_compared(model: PIIPModel, other: PIIPModel, batch: Any, device: torch.device) -> Row:
    """Scores in order, or the probabilities of pixels and classes: near ties may change places, their values do not."""
    worst = 0.0
    for one, there in zip(model.predict(batch), other.predict(batch.to(device)), strict=True):
        key = "probs" if "probs" in one else "scores"
        mine, theirs = one[key].flatten(), there[key].cpu().flatten()
        if len(mine) != len(theirs):
            return {"difference": f"{len(mine)} and {len(theirs)} detections", "ok": False}
        if len(mine):
            worst = max(worst, float((mine - theirs).abs().max()))
    return {"difference": f"{worst:.1e}", "limit": FP32_LIMIT, "ok": worst <= FP32_LIMIT}


# -- goldens ---------------------------------------------------------------------------------------------------------


def golden_row(name: str, folder: Path, device: torch.device) -> Row:
    """A backbone's maps against the official code's."""
    from tests.weights.golden import Golden

    golden = Golden(folder, name)
    backbone = opengvlab.load(golden.spec["backbone"], golden.state_dict()).to(device)
    with torch.no_grad():
        maps = backbone(golden.image().to(device))
    worst = 0.0
    for index, level in enumerate(maps):
        sample = golden.expected[f"out{index}.sample"]
        worst = max(worst, float((golden.recipe.digest(level.cpu(), len(sample)) - sample).abs().max()))
    return {"what": f"golden {name}", "difference": f"{worst:.1e}", "limit": GOLDEN_LIMIT, "ok": worst <= GOLDEN_LIMIT}


# -- a run -----------------------------------------------------------------------------------------------------------


def resume_row(device: torch.device, output: Path) -> Row:
    """Final averages of a run that was interrupted and resumed, against runs that were not.

    On a GPU sums are not always added in the same order; so two equal runs differ, and that is the yardstick.
    """
    data = make_scenes(output / f"scenes-{os.getpid()}", train=16, val=2, size=(96, 96))
    weights = [trained(data, output, device, interrupt) for interrupt in (False, False, True)]
    repeated, resumed = distance(weights[0], weights[1]), distance(weights[0], weights[2])
    limit = 3 * repeated + 1e-6 if device.type == "cuda" else 0.0
    return {"what": "resumed run with EMA", "difference": f"{resumed:.1e}", "limit": limit, "ok": resumed <= limit}


def trained(data: Path, output: Path, device: torch.device, interrupt: bool) -> dict[str, Tensor]:
    """The weights that a short run gives away."""
    model, over = piip.PIIP("piip_nano_mask_rcnn", str(device)), threading.Event()
    if interrupt:
        threading.Thread(target=interrupt_after_an_epoch, args=(output, over), daemon=True).start()
    name = f"resume-{os.getpid()}-{time.monotonic_ns()}"
    result = model.train(
        data, 3, output=output, name=name, image_size=96, batch_size=2, ema=0.9, workers=0, eval_interval=9
    )
    over.set()
    if result.end == "stopped":
        _, result = piip.PIIP.resume(result.folder)
    return read_tensors(result.last_weights)


def interrupt_after_an_epoch(output: Path, over: threading.Event) -> None:
    """As Ctrl-C would, in the second epoch of the run that begins now."""
    before = set(output.glob("detection/resume-*/results.csv"))
    while not over.wait(0.05):
        if set(output.glob("detection/resume-*/results.csv")) - before:
            os.kill(os.getpid(), signal.SIGINT)
            return


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Norm of the difference over the norm."""
    first, second = (torch.cat([value.float().flatten() for value in tensors.values()]) for tensors in (one, other))
    return float((first - second).norm() / first.norm())
