"""A model and data small enough to train for a few steps in a test.

As a script, `toy_training.py FOLDER WORKERS MODEL` is a run for tests that need processes of their own.
"""

from __future__ import annotations

import os
import sys
from itertools import chain
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from piip import config, processes
from piip.data.detection.dataset import Sample
from piip.model import PIIPModel
from piip.structures import Batch, Instances
from piip.training.folder import RunFolder
from piip.training.settings import Settings
from piip.training.shard import whole

SIDE = 64


def toy_branch(width: int, depth: int, size: int, drop_path: float) -> config.Branch:
    return config.Branch(
        size=size,
        width=width,
        depth=depth,
        heads=2,
        groups=config.even_groups(depth, 2),
        windows=None,
        position_grid=4,
        drop_path=drop_path,
    )


def toy_config(masks: bool = True, drop_path: float = 0.3) -> config.Model:
    """Two branches of different depth, with everything random that a real model has."""
    return config.Model(
        name="toy",
        backbone=config.Backbone(
            branches=(toy_branch(16, 2, 64, drop_path), toy_branch(32, 4, 32, drop_path)),
            interaction=config.Interaction(heads=4),
        ),
        head=config.MaskRCNN(
            masks=masks,
            channels=16,
            fc_channels=32,
            mask_convs=1,
            anchor_scale=4.0,
            proposals=32,
            proposals_per_level_train=64,
            proposals_per_level_test=64,
            rpn_batch=32,
            roi_batch=16,
        ),
        classes=("dark", "bright"),
        preprocess=config.Preprocess(long_side=SIDE, short_side=SIDE, pad_multiple=32),
    )


def toy_model(seed: int = 0, masks: bool = True) -> PIIPModel:
    torch.manual_seed(seed)
    return PIIPModel(toy_config(masks))


class ToyData(Dataset[Sample]):
    """Squares on a plain image. Image and objects follow from (epoch, index), as in the real data sets."""

    def __init__(self, length: int = 10, masks: bool = True, nan_at: int | None = None) -> None:
        self.length = length
        self.masks = masks
        self.nan_at = nan_at

    def __len__(self) -> int:
        return self.length

    def orientations(self) -> None:
        """All have one shape."""

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        generator = torch.Generator().manual_seed(1000 * epoch + index)
        image = 0.1 * torch.randn(3, SIDE, SIDE, generator=generator)
        corners = torch.randint(0, SIDE // 2, (2, 2), generator=generator)
        labels = torch.tensor([0, 1])
        masks = torch.zeros(2, SIDE, SIDE, dtype=torch.uint8)
        for (x, y), label, mask in zip(corners.tolist(), labels.tolist(), masks, strict=True):
            mask[y : y + 24, x : x + 24] = 1
            image[:, y : y + 24, x : x + 24] += 2.0 * label - 1.0
        if index == self.nan_at:
            image[0, 0, 0] = float("nan")
        boxes = torch.cat([corners, corners + 24], dim=1).float()
        target = Instances(boxes, labels, masks if self.masks else None)
        return Sample(image, target, (SIDE, SIDE), index)


def toy_metric(model: PIIPModel) -> dict[str, float]:
    """A deterministic number that changes with the weights; not in training mode, or the test would notice."""
    assert not model.training
    parameters = (parameter.detach() for parameter in model.parameters())
    weights: Tensor = torch.cat([whole(parameter).flatten() for parameter in parameters])
    return {"AP": 1.0 - float(weights.abs().mean()), "other": float(weights.std())}


class PlainModel(nn.Module):
    """Stands in for a PIIPModel where a test must know the gradient: the loss is a mean over images."""

    def __init__(self) -> None:
        super().__init__()
        self.config = toy_config()
        self.backbone = nn.Module()
        self.backbone.branches = nn.ModuleList()
        self.head = nn.Linear(3 * SIDE * SIDE, 2)
        nn.init.constant_(self.head.weight, 1e-3)
        nn.init.zeros_(self.head.bias)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        values = self.head(batch.images.flatten(1))
        return {"loss_a": (values[:, 0] - 1).square().mean(), "loss_b": (values[:, 1] + 1).square().mean()}


PARTS = {
    "frozen": {"freeze": ("branches.1.blocks.0-1", "branches.0")},
    "adapters": {"lora": {"rank": 4, "branches": (1,)}, "freeze": ("branches.0",)},
}
"""settings of runs that do not train all of the model"""


def train_parts(kind: str, folder: Path, batch_size: int, stop_at: int | None = None) -> None:
    """A run of two epochs with eight images a step, whatever the processes; stopped after a step and resumed."""
    from piip.training.callbacks import Callback, Moment
    from piip.training.loop import train

    class Stop(Callback):
        def on_step_end(self, moment: Moment) -> None:
            if moment.step == stop_at:
                moment.stop()

    settings = toy_settings(**PARTS[kind], batch_size=batch_size, grad_accumulation=2, epochs=2)
    for again in (False, True):
        torch.manual_seed(int(again))
        model = PIIPModel(toy_config(drop_path=0.0))
        if not again or stop_at is not None:
            train(model, ToyData(12), settings, folder, toy_metric, resume=again, callbacks=[] if again else [Stop()])


def train_by_hand(folder: Path, kind: str) -> None:
    """A run by `PIIP.train` in each process, after which each has the best weights, if it wants them."""
    import piip
    from piip.training.shard import shard

    def shard_of_main(model: PIIPModel, losses: nn.Module, device: torch.device) -> None:
        assert {tensor.is_meta for tensor in chain(model.parameters(), model.buffers())} == {processes.rank() > 0}
        shard(model, losses, device)

    settings = toy_settings(epochs=1, grad_accumulation=1, shard=kind == "sharded").model_dump(exclude={"data"})
    model = piip.PIIP(toy_config(), "cpu")
    with mock.patch("piip.training.shard.shard", shard_of_main):
        result = model.train(folder / "scenes", output=folder, name=kind, **settings)
    assert result.sharded is None
    assert isinstance(model._kept, Path) == (kind == "sharded")  # not read yet
    weights = load_file(RunFolder(folder / "detection" / kind).best)
    assert all(torch.equal(value, weights[name]) for name, value in model.model.state_dict().items())
    assert model.config == model.model.config
    assert model.config.thresholds is not None
    say(f"main {result.main_process} {result.folder}")


def toy_settings(**changes: object) -> Settings:
    """Four batches of two or three images in an epoch and, with the accumulation, two steps."""
    fields = {
        "epochs": 3,
        "batch_size": 3,
        "grad_accumulation": 3,
        "lr": 1e-3,
        "lr_batch_size": None,
        "ema": 0.9,
        "schedule": "cosine",
        "grad_clip": 1.0,
        "save_interval": 1,
        "workers": 0,
        "device": "cpu",
    }
    return Settings.model_validate(fields | changes)


def say(line: str) -> None:
    """A line in one piece, which another process on the same standard output does not cut: torchrun's are unbuffered,
    and `print` writes the end of a line by itself."""  # fmt: skip
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(folder: str, workers: str, kind: str) -> None:
    from piip.training.loop import train
    from piip.training.peers import watched

    torch.set_num_threads(1)
    if kind in ("whole", "sharded"):  # a script of a user's, on FOLDER/scenes
        train_by_hand(Path(folder), kind)
        return
    if kind in PARTS:
        train_parts(kind, Path(folder, "whole"), 2)
        train_parts(kind, Path(folder, "resumed"), 2, stop_at=3)
        return
    if kind == "piip":
        train(toy_model(), ToyData(11), toy_settings(workers=int(workers)), Path(folder), toy_metric)
        return
    if kind == "restarted":  # as the command does it; the first time it fails in its second epoch
        from piip.training.start import start_run

        settings = toy_settings(data=f"{folder}/scenes", epochs=2, grad_accumulation=1)
        first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        with mock.patch("piip.training.loop.evaluation_is_due", lambda run: 1 / (not first or run.at.epoch == 0) > 0):
            result, _ = start_run(toy_config(), None, settings, folder, "restarted")
        say(f"main {result.main_process} {result.folder} {[row['epoch'] for row in result.history]}")
        return
    if kind == "long":  # until it is stopped
        settings = toy_settings(batch_size=2, epochs=100000, peer_minutes=0.1)
        with watched("resume", settings.peer_minutes):
            result = train(PlainModel(), ToyData(12), settings, Path(folder), toy_metric)  # type: ignore[arg-type]
        sys.exit(128 + (result.signal or 0))
    data = ToyData(12, nan_at=3 if kind == "nan" else None)
    settings = toy_settings(batch_size=2, grad_accumulation=2, epochs=2)
    train(PlainModel(), data, settings, Path(folder), toy_metric)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
