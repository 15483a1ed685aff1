"""What accelerate may decide about a training, and what not."""

import pytest
import torch
from toy_training import toy_settings

from piip.training.accelerator import build_accelerator


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR"),
        ("ACCELERATE_USE_FSDP", "true"),
        ("ACCELERATE_USE_DEEPSPEED", "true"),
        ("ACCELERATE_MIXED_PRECISION", "bf16"),
    ],
)
def test_variables_that_would_change_the_run_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name}={value} in the environment.*unset it"):
        build_accelerator(toy_settings())


def test_what_accelerate_launch_sets_by_itself_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
        "ACCELERATE_DYNAMO_BACKEND": "NO",
        "ACCELERATE_MIXED_PRECISION": "no",
        "ACCELERATE_USE_CPU": "False",
    }.items():
        monkeypatch.setenv(name, value)
    accelerator = build_accelerator(toy_settings())
    loss = torch.tensor(3.0, requires_grad=True)
    accelerator.backward(loss * 1)
    assert loss.grad == 1.0
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert build_accelerator(toy_settings(precision="bf16")).mixed_precision == "bf16"


def test_the_device_is_the_one_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = []
    monkeypatch.setattr("piip.training.accelerator.devices.find", torch.device)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "meta")
    assert build_accelerator(toy_settings(device="cuda:1")).device == torch.device("cuda:1")
    assert chosen == [torch.device("cuda:1")]
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="cuda:1.* for several processes: each takes a GPU of its own"):
        build_accelerator(toy_settings(device="cuda:1"))
