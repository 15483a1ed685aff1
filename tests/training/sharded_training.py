"""Two processes that train with shards and without: as a script under torchrun, `sharded_training.py FOLDER HEAD...`.

For each head it prints how far losses, norms of gradients and weights of both are apart after some steps; for the head
"run" it makes whole runs in FOLDER.
"""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path
from typing import cast

import torch
from one_batch import CLASSES, cases, part
from torch.distributed.tensor import DTensor
from toy_training import PARTS, ToyData, say, toy_metric, toy_model, toy_settings

from piip import processes, zoo
from piip.model import PIIPModel
from piip.prediction.predictor import Predictor
from piip.structures import Batch, Prediction
from piip.training.accelerator import build_accelerator
from piip.training.callbacks import Callback, Moment
from piip.training.freeze import freeze
from piip.training.gradients import clip, total_norm
from piip.training.loop import train
from piip.training.lora import add_adapters
from piip.training.on_shards import OnShards, on_shards
from piip.training.optim import schedule_factor, set_learning_rate
from piip.training.run import prepared
from piip.training.shard import ShardedAverage, whole

STEPS = 3


def small_h6b() -> PIIPModel:
    """PIIP-H6B with few and narrow blocks; all else is as published."""
    published = zoo.entry("piip_h6b_1024_512_mask_rcnn").config()
    small = ({"size": 128, "width": 64, "heads": 2}, {"size": 64, "width": 160, "heads": 5})
    common = {"depth": 4, "groups": ((0, 1), (2, 3)), "windows": (None,) * 4}
    branches = tuple(
        branch.model_copy(update=common | own) for branch, own in zip(published.backbone.branches, small, strict=True)
    )
    heads = published.backbone.interaction.model_copy(update={"heads": 4})
    backbone = published.backbone.model_copy(update={"branches": branches, "interaction": heads})
    few = {"channels": 16, "fc_channels": 32, "rpn_batch": 32, "roi_batch": 16, "proposals": 60}
    head = published.head.model_copy(update=few)
    torch.manual_seed(0)
    return PIIPModel(published.model_copy(update={"backbone": backbone, "head": head, "classes": CLASSES}))


def steps(model: PIIPModel, batch: Batch, shard: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Losses and norms of some steps with two batches each, and then all weights and averages."""
    settings = toy_settings(shard=shard, lr=1e-4, checkpointing=shard)
    accelerator = build_accelerator(settings)
    model.train()
    model.backbone.set_checkpointing(shard)  # changes nothing, and must work with shards
    losses, optimizer, average = prepared(accelerator, model, settings)
    parameters, seen = list(model.parameters()), []
    for step in range(STEPS):
        for last in (False, True):
            with torch.enable_grad() if last or shard else losses.no_sync():
                torch.manual_seed(step)  # of drop paths
                total = torch.stack(list(losses(batch).values())).sum()
                accelerator.backward(total / 2)
        norm = total_norm(parameters, shard)
        clip(parameters, 1.0, norm, shard)
        set_learning_rate(optimizer, partial(schedule_factor, settings, step, STEPS))
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(model)
        seen += [total.detach(), norm]
    means = average.tensors if isinstance(average, ShardedAverage) else average.module.state_dict()
    after = {f"model.{name}": whole(value).clone() for name, value in model.state_dict().items()}
    return torch.stack(seen), after | {name: whole(value).clone() for name, value in means.items()}


def compare(name: str) -> None:
    """Print a line of the largest differences."""
    values, weights = [], []
    for shard in (False, True):
        with processes.without_values(shard and name != "mask_rcnn"):  # as a run builds it, or in all processes
            model, kind = (small_h6b(), "objects") if name == "h6b" else cases()[name]
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if "gamma" in parameter_name:
                    parameter.fill_(0.5)  # else nothing passes between branches at first
        if shard and processes.rank() == 1:
            with torch.no_grad():
                next(model.parameters()).add_(1)  # the main process's count
        seen, after = steps(model, part(5, kind, processes.rank(), 2), shard)
        values.append(seen)
        weights.append(after)
    apart = max((weights[0][key].float() - value.float()).abs().max().item() for key, value in weights[1].items())
    same = weights[0].keys() >= weights[1].keys()
    difference = ((values[0] - values[1]) / values[0]).abs().max().item()
    if processes.rank() == 0:
        say(f"{name} {difference:.1e} {apart:.1e} {same}")


def deal_out() -> None:
    """Print whether parts of a model that only the main process has are those of its whole, tied and frozen as it."""
    wanted = toy_model()
    with processes.without_values(True):
        model = toy_model()
    assert {parameter.is_meta for parameter in model.parameters()} == {processes.rank() > 0}
    for one in (wanted, model):
        one.head.fpn.outputs[1].weight = one.head.fpn.outputs[0].weight
        counts = torch.arange(3)
        one.register_buffer("counts", counts if processes.is_main() else counts.to("meta"))
        freeze(one, ("branches.1",))
    settings = toy_settings(shard=True)
    prepared(build_accelerator(settings), model, settings)
    assert model.head.fpn.outputs[1].weight is model.head.fpn.outputs[0].weight
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in wanted.parameters()]
    same = torch.equal(model.get_buffer("counts"), torch.arange(3))
    for (name, mine), (other, value) in zip(model.named_parameters(), wanted.named_parameters(), strict=True):
        assert isinstance(mine, DTensor) == (mine.ndim > 0)
        same = same and name == other and torch.equal(whole(mine), value)
    say(f"dealt {processes.rank()} {same}")


def evaluate(name: str) -> None:
    """Print how far predictions on shards are from the whole model's, and whether a training goes on as without them.

    The processes have two batches and one.
    """
    seen, apart = [], 0.0
    for look in (False, True):
        model, kind = cases()[name]
        batch = part(5, kind, processes.rank(), 2)
        settings = toy_settings(shard=True, lr=1e-3)
        accelerator = build_accelerator(settings)
        model.train()
        losses, optimizer, average = prepared(accelerator, model, settings)
        assert isinstance(average, ShardedAverage)
        for step in range(STEPS):
            if look and step != 1:  # also before anything was trained
                whole_model = copy_of(model, average)
                with on_shards(model, losses, average) as ready:
                    predictor = Predictor(cast(PIIPModel, ready))
                    for _ in range(2 - processes.rank()):
                        found = predictor.run(batch)
                        wanted = Predictor(whole_model, fuse=False).run(batch)
                        apart = max(apart, *(difference(*pair) for pair in zip(found, wanted, strict=True)))
                    processes.found_by_all(None)
                    for _ in range(2 - processes.rank()):
                        with processes.apart(), torch.no_grad():
                            values = [loss_of(one, batch) for one in (ready, whole_model)]
                        apart = max(apart, ((values[0] - values[1]) / values[1]).abs().max().item())
                    processes.found_by_all(None)
            torch.manual_seed(step)
            accelerator.backward(torch.stack(list(losses(batch).values())).sum())
            optimizer.step()
            optimizer.zero_grad()
            average.update_parameters(model)
        assert model.training
        seen.append([whole(value).clone() for value in (*model.state_dict().values(), *average.tensors.values())])
    same = all(torch.equal(one, other) for one, other in zip(*seen, strict=True))
    say(f"{name} {apart:.1e} {same}")


def loss_of(model: OnShards | PIIPModel, batch: Batch) -> torch.Tensor:
    """Every loss, with the same draws each time."""
    torch.manual_seed(0)
    return torch.stack(list(model.loss(batch).values()))


def copy_of(model: PIIPModel, average: ShardedAverage) -> PIIPModel:
    """A model of the averages in one piece."""
    copied = PIIPModel(model.config)
    copied.load_state_dict({name: whole(value) for name, value in (model.state_dict() | average.tensors).items()})
    return copied.eval()


def difference(one: Prediction, other: Prediction) -> float:
    """The largest, relative to the largest number."""
    assert one.keys() == other.keys()
    pairs = [(one[name].double(), other[name].double()) for name in one if isinstance(one[name], torch.Tensor)]
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1)).item() for a, b in pairs if a.numel())


def learn_parts(name: str) -> None:
    """Print how far the gradients of a run that does not train all are from those of one batch, by each process."""
    model, kind = cases()["mask_rcnn"]
    settings = toy_settings(**PARTS[name])
    accelerator = build_accelerator(settings)
    freeze(model, settings.freeze, settings.lora is not None)
    add_adapters(model, settings.lora, settings.seed)
    trained = {key: value for key, value in model.named_parameters() if value.requires_grad}
    assert len(trained) < sum(1 for _ in model.parameters())
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, value in trained.items():
            if ".lora_" in key or "gamma" in key:
                value.copy_(0.1 * torch.randn(value.shape, generator=draw))  # zeros pass nothing on
    model.train()
    torch.stack(list(model.loss(part(5, kind, 0, 1)).values())).sum().backward()
    one = {key: torch.zeros(()) if value.grad is None else value.grad.clone() for key, value in trained.items()}
    model.zero_grad()
    losses, _, _ = prepared(accelerator, model, settings)
    accelerator.backward(torch.stack(list(losses(part(5, kind, processes.rank(), 2)).values())).sum())
    assert all((value.grad is not None) == value.requires_grad for value in model.parameters())
    apart, size = (
        torch.stack([tensor.norm() for tensor in tensors]).norm()
        for tensors in ([trained[key].grad - one[key] for key in trained], list(one.values()))
    )
    say(f"{name} {(apart / size).item():.1e} {len(trained)}")


class Stop(Callback):
    """After the third step."""

    def on_step_end(self, moment: Moment) -> None:
        if moment.step == 2:
            moment.stop()


def runs(folder: Path) -> None:
    """`plain` without shards, `sharded` with, `resumed` after a stop, at which `stopped` is its copy."""
    common = {"batch_size": 2, "grad_accumulation": 2, "epochs": 2}
    for name, shard in (("plain", False), ("sharded", True)):
        train(toy_model(), ToyData(10), toy_settings(**common, shard=shard), folder / name, toy_metric)
    begin = partial(train, toy_model(), ToyData(10), toy_settings(**common, shard=True), folder / "resumed")
    assert begin(toy_metric, callbacks=[Stop()]).end == "stopped"
    if processes.rank() == 0:
        shutil.copytree(folder / "resumed", folder / "stopped")
    torch.distributed.barrier()
    with processes.without_values(True):
        again = toy_model(1)
    train(again, ToyData(10), toy_settings(**common, shard=True), folder / "resumed", toy_metric, resume=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    processes.join(cpu=True)
    for head in sys.argv[2:]:
        if head == "run":
            runs(Path(sys.argv[1]))
        elif head == "dealt":
            deal_out()
        elif head in PARTS:
            learn_parts(head)
        elif head.startswith("evaluate-"):
            evaluate(head.removeprefix("evaluate-"))
        else:
            compare(head)
    processes.leave()
