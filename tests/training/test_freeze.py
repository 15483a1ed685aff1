"""Frozen parts: no gradient, no state, no randomness, no memory where nothing below is trained; the rest as ever."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import Crash, assert_same, at_step, crash, outcome
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from toy_training import ToyData, toy_config, toy_metric, toy_model, toy_settings

from piip.data.batches import collate
from piip.inference import choose
from piip.training.checkpoint import load_checkpoint
from piip.training.folder import RunFolder
from piip.training.freeze import check_parts, freeze, note_frozen_at_random, train_mode
from piip.training.loop import RunResult, train
from piip.training.optim import parameter_groups

BRANCH = "backbone.branches.1."


def frozen(*parts: str) -> set[str]:
    model = toy_model()
    freeze(model, parts)
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def names(*prefixes: str) -> set[str]:
    return {name for name, _ in toy_model().named_parameters() if name.startswith(prefixes)}


@pytest.mark.parametrize(
    ("parts", "prefixes"),
    [
        (("1",), (BRANCH,)),
        (("branches.1",), (BRANCH,)),
        (("backbone.branches.1.blocks.1-2",), (f"{BRANCH}vit.blocks.1.", f"{BRANCH}vit.blocks.2.")),
        (("1.blocks.3",), (f"{BRANCH}vit.blocks.3.",)),
        (("1.embed",), (f"{BRANCH}vit.patch_embed.", f"{BRANCH}vit.pos_embed")),
        (("1.blocks.0",), (f"{BRANCH}vit.blocks.0.", f"{BRANCH}vit.patch_embed.", f"{BRANCH}vit.pos_embed")),
        (("backbone",), ("backbone.",)),
        (("interactions", "head"), ("backbone.interactions.", "head.")),
        (("merge", "maps", "branches"), ("backbone.merge.", "backbone.maps.", "backbone.branches.")),
    ],
)
def test_which_parameters(parts: tuple[str, ...], prefixes: tuple[str, ...]) -> None:
    assert names(*prefixes)
    assert frozen(*parts) == names(*prefixes)


@pytest.mark.parametrize("given", [1, "1", "1, branches.0.blocks.0-1", ["1", "head,maps"]])
def test_the_forms_of_the_setting(given: Any) -> None:
    parts = toy_settings(freeze=given).freeze
    assert parts[0] == "1"
    assert all(part == part.strip() and "," not in part for part in parts)
    assert len(parts) == (1 if given in (1, "1") else 2 if isinstance(given, str) else 3)


def test_what_is_no_part() -> None:
    with pytest.raises(ValueError, match=r"'neck' is no part .* these are: 2 \(a branch\), branches\.2\.blocks\.0-8"):
        toy_settings(freeze="neck")
    for part, told in (("2", "has branches 0 .* to 1"), ("0.blocks.0-2", "blocks 0 to 1"), ("1.blocks.2-1", "FIRST")):
        with pytest.raises(ValueError, match=told):
            check_parts(toy_config().backbone, (part,))
    with pytest.raises(ValueError, match="leave something to train"):
        freeze(toy_model(), ("backbone", "head"))


def test_a_random_branch_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    note_frozen_at_random(toy_config(), ("1.blocks.0-1",))
    assert "branch 1 is frozen with random weights" in " ".join(capsys.readouterr().err.split())
    note_frozen_at_random(toy_config(), ("backbone",))
    assert "branches 0, 1 are frozen with random weights" in " ".join(capsys.readouterr().err.split())
    note_frozen_at_random(toy_config(), ("head",))
    assert not capsys.readouterr().err


def test_no_dropping_in_frozen_blocks_only() -> None:
    model = toy_model()
    train_mode(model, ("1.blocks.0-1",))
    blocks = model.backbone.branches[1].vit.blocks
    assert [block.drop_path1.training for block in blocks] == [False, False, True, True]
    assert blocks.training  # where they ask whether to compute activations again
    assert model.backbone.branches[0].vit.blocks[1].drop_path1.training
    assert model.head.training
    train_mode(model, ())
    assert all(module.training for module in model.modules() if type(module).__name__ == "DropPath")


class Kept:
    """Bytes that autograd keeps for the backward pass, but for parameters, which are there in any case."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.bytes, self.own = 0, {parameter.data_ptr() for parameter in model.parameters()}

    def pack(self, tensor: Tensor) -> Tensor:
        self.bytes += 0 if tensor.data_ptr() in self.own else tensor.numel() * tensor.element_size()
        return tensor


def test_the_leading_part_keeps_nothing() -> None:
    """The first group of a frozen branch, also where the rest of the model is trained."""
    kept = []
    for parts in ((), ("1",)):
        model = toy_model()
        freeze(model, parts)
        choose(model, "train")
        train_mode(model, parts)
        count = Kept(model)
        with torch.autograd.graph.saved_tensors_hooks(count.pack, lambda tensor: tensor):
            branch = model.backbone.branches[1]
            state = branch(branch.embed(torch.randn(2, 3, 32, 32)), 0, 1)
        kept.append(count.bytes)
        assert state.tokens.requires_grad is (not parts)
    assert kept[0] > 0
    assert kept[1] == 0


class Products(TorchDispatchMode):
    """How many products of matrices."""

    number = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += function.overloadpacket.__name__ in ("mm", "addmm", "addmm_")
        return function(*args, **(kwargs or {}))


def backward_products(parts: tuple[str, ...]) -> int:
    model = toy_model()
    freeze(model, parts)
    choose(model, "train")
    train_mode(model, parts)
    branch = model.backbone.branches[1]
    tokens = torch.randn(2, 4, 32, requires_grad=True)
    out = branch.vit.blocks(tokens, (2, 2), 1, 1).sum()
    with Products() as products:
        out.backward()
    assert tokens.grad is not None
    return products.number


def test_frozen_blocks_in_the_middle_compute_no_gradients_of_weights() -> None:
    """Of qkv, proj, fc1 and fc2 each has one product in the backward pass, not two."""
    assert (backward_products(("1.blocks.1",)), backward_products(())) == (4, 8)


def test_gradients_of_the_others_are_the_same() -> None:
    gradients = []
    for parts in ((), ("1", "0.blocks.1")):
        model = toy_model()
        freeze(model, parts)
        choose(model, "train")
        model.eval()  # no drop path in either
        data = ToyData(2)
        torch.manual_seed(1)
        sum(model.loss(collate([data[0, 0], data[0, 1]], 32)).values()).backward()  # type: ignore[union-attr]
        gradients.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
    usual, partly = gradients
    assert partly.keys() == usual.keys() - frozen("1", "0.blocks.1")
    for name, gradient in partly.items():
        torch.testing.assert_close(gradient, usual[name], rtol=1e-4, atol=1e-7, msg=name)


def test_rates_of_branches() -> None:
    model = toy_model()
    usual, changed = (
        {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
        for groups in (
            parameter_groups(model, 1.0, 0.05, 0.85),
            parameter_groups(model, 1.0, 0.05, 0.85, branch_lr_factors=(3.0, 0.5)),
        )
    )
    for name, parameter in model.named_parameters():
        factor = 3.0 if name.startswith("backbone.branches.0.") else 0.5 if name.startswith(BRANCH) else 1.0
        assert changed[id(parameter)] == pytest.approx(factor * usual[id(parameter)]), name
    with pytest.raises(ValueError, match="one number per branch"):
        parameter_groups(model, 1.0, 0.05, 0.85, branch_lr_factors=(1.0,))


PARTS = "1,0.blocks.0,maps"


def run(folder: Path, resume: bool = False) -> RunResult:
    settings = toy_settings(freeze=PARTS, epochs=2)
    return train(toy_model(seed=99 if resume else 0), ToyData(11), settings, folder, toy_metric, resume=resume)


def test_a_run_and_its_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "straight")
    state, before = load_checkpoint(RunFolder(tmp_path / "straight").checkpoint), toy_model().state_dict()
    kept = frozen(*PARTS.split(","))
    assert len(state["optimizer"]["state"]) == len(names("")) - len(kept)
    for name in kept:
        assert torch.equal(state["model"][name], before[name]), name
        assert torch.equal(state["average"][f"module.{name}"], before[name]), name
    moved = [name for name in names("") - kept if not torch.equal(state["model"][name], before[name])]
    assert len(moved) > 0.9 * (len(names("")) - len(kept))
    statistics = [name for name in before if name.startswith("backbone.maps.") and "running_mean" in name]
    assert all(torch.equal(state["model"][name], before[name]) for name in statistics)

    at_step(monkeypatch, 3, crash)
    with pytest.raises(Crash):
        run(tmp_path / "resumed")
    monkeypatch.undo()
    run(tmp_path / "resumed", resume=True)
    assert_same(outcome(tmp_path / "resumed"), outcome(tmp_path / "straight"))
