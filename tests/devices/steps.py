"""Training steps and predictions on the pretended device, in a process of their own.

    python -m tests.devices.steps HEAD BACKBONE...

For each backbone: losses, gradients and predictions equal those on the CPU. Prints what the host waited for in one
training step and one prediction of the last backbone, as JSON.
"""

from __future__ import annotations

import copy
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest import mock

import numpy as np
import torch
from tests.devices import pretend
from tests.inference.test_fold import BACKBONES, HEADS, build
from torch import Tensor

from piip import config
from piip.inference import choose
from piip.model import PIIPModel
from piip.prediction.predictor import Predictor
from piip.structures import Batch, Instances

SIZE = 128
LIMIT = 1e-3
BOXES = torch.tensor([[5.0, 6.0, 70.0, 90.0], [20.0, 10.0, 60.0, 30.0]])


def main(head: str, names: list[str]) -> None:
    keep = pretend.register()
    torch.manual_seed(0)
    for name in names:
        on_cpu = build(BACKBONES[name], HEADS[head])
        waits = compare(on_cpu, batch_for(on_cpu.config))
    print(json.dumps(waits))
    del keep


def compare(on_cpu: PIIPModel, batch: Batch) -> dict[str, dict[str, int]]:
    """What the host waited for, after everything was found to be equal."""
    on_device = copy.deepcopy(on_cpu)
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    # Plain on both: the CPU's own modules round otherwise, which can put a sampling point on the other side of a cell's
    # middle, where the gradient jumps; they are compared with the plain ones elsewhere.
    losses, gradients = step(on_cpu, batch)
    predicted = plainly(Predictor(on_cpu, "cpu")).predict([image], 0.0).results[0]
    # Views of tensors that only pretend cannot be made in inference mode.
    with pretend.pretend_device() as device, mock.patch("torch.inference_mode", without_inference_mode):
        on_device.to(device)
        moved = batch.to(device)
        pretend.waits.clear()
        losses_there, gradients_there = step(on_device, moved)
        waits = {"training": dict(pretend.waits)}
        predictor = Predictor(on_device, device)
        predictor.predict([image], 0.0)
        pretend.waits.clear()
        predictor.predict([image], 0.0)
        waits["prediction"] = dict(pretend.waits)
        predicted_there = plainly(predictor).predict([image], 0.0).results[0]
    assert_close("loss", losses, losses_there)
    assert_close("gradient", gradients, gradients_there)
    assert_close("prediction", values_of(predicted), values_of(predicted_there))
    return waits


def plainly(predictor: Predictor) -> Predictor:
    """The same with a folded copy of plain modules."""
    choose(predictor.inference.get(), "export")
    return predictor


def without_inference_mode(mode: bool = True) -> AbstractContextManager[Any]:
    return torch.no_grad() if mode else nullcontext()


def step(model: PIIPModel, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses and gradients of one training step; what is random is the same on every device."""
    model.train()
    torch.manual_seed(0)
    losses = model.loss(batch)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {name: loss.detach() for name, loss in losses.items()}, gradients


def batch_for(model: config.Model) -> Batch:
    """Two images, one of them padded, with what their task has to find."""
    sizes = [(SIZE, SIZE), (SIZE - 20, SIZE - 8)]
    classes = len(model.classes)
    targets: list[Any]
    if model.task == "detection":
        masks = torch.ones(2, SIZE, SIZE, dtype=torch.uint8)
        targets = [Instances(BOXES, torch.tensor([0, 1]), masks), Instances(BOXES[:0], torch.arange(0), masks[:0])]
    elif model.task == "segmentation":
        targets = [torch.randint(0, classes, size) for size in sizes]
    else:
        sizes = [(SIZE, SIZE)] * 2
        targets = [torch.full((classes,), 1 / classes)] * 2
    return Batch(torch.randn(2, 3, SIZE, SIZE), sizes, sizes, targets, [0, 1])


def values_of(result: Any) -> dict[str, Tensor]:
    """All tensors of a result."""
    return {name: value for name, value in vars(result).items() if isinstance(value, Tensor)}


def assert_close(what: str, expected: dict[str, Tensor], actual: dict[str, Tensor]) -> None:
    if expected.keys() != actual.keys():
        raise AssertionError(f"{what}: {sorted(expected.keys() ^ actual.keys())} on one device only")
    for name, value in expected.items():
        there = held(actual[name])
        if value.shape != there.shape:
            raise AssertionError(f"{what} {name} has another shape on the device")
        if value.numel() and difference(value, there) > LIMIT:
            raise AssertionError(f"{what} {name} differs between the devices by {difference(value, there):.1e}")


def difference(value: Tensor, there: Tensor) -> float:
    """The largest one over the largest value; of masks the share of their pixels, where rounding decides some."""
    distance = (value.float() - there.float()).abs()
    if value.dtype == torch.bool:
        return float(distance.flatten(1).mean(dim=1).max())
    return float(distance.max() / value.float().abs().max().clamp(min=1.0))


def held(value: Tensor) -> Tensor:
    return value.held if isinstance(value, pretend.OnDevice) else value


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or list(BACKBONES))
