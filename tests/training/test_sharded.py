"""Two processes that each hold a part of everything train as two that hold all of it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from toy_training import PARTS, ToyData, toy_model, toy_settings

from piip.data.batches import collate
from piip.inference import choose
from piip.lean.blocks import LeanBlock
from piip.lean.gpu.sampling import KernelSampling
from piip.model import PIIPModel
from piip.training.accelerator import build_accelerator, check_shardable
from piip.training.checkpoint import load_checkpoint
from piip.training.folder import RunFolder
from piip.training.run import Losses, start
from piip.training.shard import shard, whole
from piip.training.unreadable import SkipUnreadable

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
MODELS = ("mask_rcnn", "dino", "upernet", "classifier", "h6b")
SECONDS = 1200
"""that a head may take where many processes share the processors; alone it is seconds"""


def in_two(folder: Path, *heads: str) -> list[str]:
    """The lines that `sharded_training.py` prints."""
    script = Path(__file__).with_name("sharded_training.py")
    paths = os.pathsep.join([str(script.parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d",
               "--rdzv-endpoint=localhost:0", "--local-addr=localhost", str(script), str(folder), *heads]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    limit = SECONDS * len(heads)
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stdout.splitlines()


def check(lines: list[str], heads: tuple[str, ...]) -> None:
    told = [line.split() for line in lines]
    assert sorted(line[0] for line in told) == sorted(heads)
    for name, values, weights, same in told:
        assert float(values) < 1e-4, (name, values)
        assert float(weights) < 1e-4, (name, weights)
        assert same == "True", name


@pytest.mark.slow
def test_every_head_trains_with_shards_as_without(tmp_path: Path) -> None:
    """With recomputed activations, accumulation, clipping and an average; and a small H6B."""
    check(in_two(tmp_path, *MODELS), MODELS)


@pytest.mark.slow
def test_only_the_main_process_needs_to_have_the_model(tmp_path: Path) -> None:
    assert sorted(in_two(tmp_path, "dealt")) == ["dealt 0 True", "dealt 1 True"]


@pytest.mark.slow
def test_every_head_is_evaluated_on_its_shards(tmp_path: Path) -> None:
    """As the whole model, by processes with other numbers of batches; the training goes on as if nothing had been."""
    heads = MODELS[:-1]
    told = [line.split() for line in in_two(tmp_path, *(f"evaluate-{head}" for head in heads))]
    assert sorted(line[0] for line in told) == sorted(heads * 2)
    for name, apart, same in told:
        assert float(apart) < 1e-4, (name, apart)
        assert same == "True", name


@pytest.mark.slow
def test_what_is_trained_of_a_model_gets_the_gradients_of_one_batch(tmp_path: Path) -> None:
    """Some parts frozen, or adapters, without shards."""
    told = [line.split() for line in in_two(tmp_path, *PARTS)]
    assert sorted(line[0] for line in told) == sorted([*PARTS, *PARTS])
    for name, apart, _ in told:
        assert float(apart) < 1e-5, (name, apart)


@pytest.mark.slow
def test_runs_with_shards(tmp_path: Path) -> None:
    """Equal to runs without; resumed in the middle of an epoch to the same bits; loaded by one process without."""
    in_two(tmp_path, "run")
    plain, sharded, resumed = (RunFolder(tmp_path / name) for name in ("plain", "sharded", "resumed"))
    one, two = ([float(value) for value in losses_of(folder)] for folder in (sharded, plain))
    assert one == pytest.approx(two, rel=1e-5)
    for mine, other in ((sharded.last, plain.last), (sharded.best, plain.best)):
        assert apart(load_file(mine), load_file(other)) < 1e-3
    assert resumed.last.read_bytes() == sharded.last.read_bytes()
    assert resumed.best.read_bytes() == sharded.best.read_bytes()
    assert len(list(resumed.shards.iterdir())) == 2  # of the last checkpoint and the one before
    loads_in_one_process(RunFolder(tmp_path / "stopped"))
    damaged_shards_are_seen(RunFolder(tmp_path / "stopped"))


def losses_of(folder: RunFolder) -> list[str]:
    header, *rows = (line.split(",") for line in folder.results.read_text().splitlines())
    return [row[header.index("loss")] for row in rows]


def apart(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    """The difference over what was learned; AdamW takes whole steps where a gradient is nothing but rounding."""
    began = toy_model().state_dict()
    assert one.keys() == two.keys() == began.keys()
    keys = [key for key in one if one[key].is_floating_point()]
    difference, learned = (
        torch.cat([(a[key] - b[key]).flatten() for key in keys]).norm() for a, b in ((one, two), (two, began))
    )
    return float(difference / learned)


def loads_in_one_process(folder: RunFolder) -> None:
    settings = toy_settings(batch_size=2, grad_accumulation=4, epochs=2)
    run = start(build_accelerator(settings), toy_model(3), SkipUnreadable(ToyData(10), 0), settings, folder, True)
    assert run.average is not None
    average, last = run.average.module.state_dict(), load_file(folder.last)
    assert average.keys() == last.keys()
    assert all(torch.equal(average[name], last[name]) for name in last)
    assert int(run.average.n_averaged) == run.at.step == 3
    assert {int(state["step"]) for state in run.optimizer.state.values()} == {3}
    trained = sum(parameter.requires_grad for parameter in run.model.parameters())
    assert len(run.optimizer.state) == trained


def damaged_shards_are_seen(folder: RunFolder) -> None:
    state = torch.load(folder.checkpoint, weights_only=True)
    file = folder.shards / state["shards"]["folder"] / next(iter(state["shards"]["sums"]))
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    assert load_checkpoint(folder.checkpoint, folder.shards)["position"]["step"] < state["position"]["step"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({}, "one process"), ({"precision": "fp16"}, "fp16"), ({"lora": 4}, "lora")],
)
def test_what_shards_cannot_do_is_said(changes: dict[str, object], message: str) -> None:
    several = 1 if message == "one process" else 2
    with pytest.raises(ValueError, match=message):
        check_shardable(toy_settings(shard=True, **changes), several)


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_a_model_goes_to_its_device_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole it may be larger than the device: what is sharded already counts no more."""
    whole_model, at_once = toy_model(), list[int]()
    total = sum(parameter.numel() for parameter in whole_model.parameters())

    def recorded(module: torch.nn.Module, **options: Any) -> Any:
        at_once.append(sum(p.numel() for p in module.parameters() if not isinstance(p, DTensor)))
        return fully_shard(module, **options)

    monkeypatch.setattr("piip.training.shard.fully_shard", recorded)
    monkeypatch.setattr(PIIPModel, "to", lambda *_: pytest.fail("the whole model is moved"))
    settings = toy_settings(shard=True)
    accelerator = build_accelerator(toy_settings())
    run = start(accelerator, whole_model, SkipUnreadable(ToyData(8), 0), settings, RunFolder(tmp_path / "run"), False)
    assert len(at_once) > 4
    assert max(at_once) < total / 2
    single = [parameter for parameter in run.model.parameters() if not isinstance(parameter, DTensor)]
    assert sum(at_once) == total
    assert {parameter.ndim for parameter in single} == {0}


@pytest.mark.usefixtures("alone")
def test_a_model_without_values_gets_its_memory_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is in all processes but the main one; what is tied stays tied."""
    with torch.device("meta"):
        model = toy_model()
    outputs, total = model.head.fpn.outputs, sum(parameter.numel() for parameter in model.parameters())
    outputs[1].weight = outputs[0].weight
    outputs[2].weight.requires_grad_(False)
    in_memory: list[int] = []

    def recorded(module: torch.nn.Module, **options: Any) -> Any:
        in_memory.append(sum(p.numel() for p in model.parameters() if not (p.is_meta or isinstance(p, DTensor))))
        return fully_shard(module, **options)

    monkeypatch.setattr("piip.training.shard.fully_shard", recorded)
    shard(model, Losses(model), torch.device("cpu"))
    assert max(in_memory) < total / 2
    assert {(isinstance(p, DTensor), p.is_meta, p.ndim > 0) for p in model.parameters()} == {
        (True, False, True),
        (False, False, False),
    }
    assert outputs[1].weight is outputs[0].weight
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["head.fpn.outputs.2.weight"]


def test_what_is_on_the_way_to_a_gpu_gets_its_twins() -> None:
    model = toy_model()
    choose(model, "train", torch.device("cuda"))
    there = {type(module) for module in model.modules()}
    choose(model, "train")
    assert KernelSampling in there
    assert KernelSampling not in {type(module) for module in model.modules()}


def test_a_sharded_model_keeps_its_twins_and_computes_the_same() -> None:
    """Classes are how both choose."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = toy_model()
        choose(model, "train")
        losses = Losses(model)
        shard(model, losses, torch.device("cpu"))
        block = model.backbone.branches[0].vit.blocks[0]
        assert isinstance(block, FSDPModule)
        choose(model, "predict")
        choose(model, "train")
        assert isinstance(block, FSDPModule)
        assert isinstance(block, LeanBlock)
        batch = collate([ToyData(2)[0, index] for index in range(2)], 32)
        plain = toy_model()
        for module, model_of in ((losses, model), (Losses(plain), plain)):
            model_of.train()
            torch.manual_seed(0)  # of drop paths
            torch.stack(list(module(batch).values())).sum().backward()
        unsharded = []
        for one, two in zip(model.parameters(), plain.parameters(), strict=True):
            if two.grad is not None:
                assert one.grad is not None
                torch.testing.assert_close(whole(one.grad), two.grad, rtol=1e-4, atol=1e-6)
                unsharded += [] if isinstance(one.grad, DTensor) else [one.ndim]
        assert unsharded == [0, 0]  # the weights of the merge
    finally:
        torch.distributed.destroy_process_group()
