"""The objects of one training: built, saved and brought back."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from piip.data.batches import train_loader
from piip.files import write_json
from piip.inference import choose
from piip.model import PIIPModel
from piip.structures import Batch, Prediction
from piip.training.checkpoint import load_checkpoint, save_checkpoint
from piip.training.data_record import DataRecord, check_same_data, record_of
from piip.training.folder import RunFolder
from piip.training.freeze import freeze
from piip.training.lora import add_adapters, merged, write_adapter
from piip.training.nonfinite import FREE_AFTERWARDS, IN_A_ROW, statistics_of
from piip.training.optim import build_average, build_optimizer, restore_optimizer
from piip.training.peers import require_shared
from piip.training.position import Position
from piip.training.regrouped import at_now, check_same_epoch, check_same_step
from piip.training.settings import FREE_ON_RESUME, SAME_IN_ALL, Settings, check_resumable, write_run_config
from piip.training.shard_files import forget_others
from piip.training.unreadable import SkipUnreadable
from piip.weights.files import load_exactly, nonfinite_keys, save_model

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)
Features = Callable[[Tensor], Any]
"""what a head reads, of images"""


@dataclass
class Run:
    """The objects of one training."""

    settings: Settings
    folder: RunFolder
    accelerator: Accelerator
    model: PIIPModel
    losses: nn.Module
    """the model's losses as a module, wrapped for precision and several processes"""
    optimizer: Optimizer
    average: AveragedModel | None
    """of a sharded training a `ShardedAverage`"""
    images: int
    """per epoch"""
    batches: int
    """per epoch and process"""
    at: Position
    data_record: DataRecord | None = None
    """what is trained on, where the data says so"""
    shards: str = ""
    """which folder of shards belongs to the last checkpoint, if any"""
    saved: float = field(default_factory=time.monotonic)
    """when the last checkpoint was written"""

    @cached_property
    def statistics(self) -> list[Tensor]:
        """The model's, which a step that is left out must not change."""
        return statistics_of(self.model)

    @property
    def save_is_due(self) -> bool:
        """Whether the last checkpoint is older than `settings.save_minutes`."""
        minutes = self.settings.save_minutes
        return minutes is not None and time.monotonic() - self.saved > 60 * minutes

    @property
    def images_per_step(self) -> str:
        """What the processes do together, in a line."""
        settings, processes = self.settings, self.accelerator.num_processes
        batches = f" x {settings.grad_accumulation} batches" if settings.grad_accumulation > 1 else ""
        images = processes * settings.batch_size * settings.grad_accumulation
        return (f"{processes} processes x {settings.batch_size} images{batches} = {images} per step, "
                f"rate {settings.scaled_lr(processes):.3g}")  # fmt: skip

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps; the last of an epoch may have fewer batches."""
        return math.ceil(self.batches / self.settings.grad_accumulation)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.steps_per_epoch * self.settings.epochs

    @property
    def result_model(self) -> PIIPModel:
        """What is evaluated and given away: the running average, where there is one, with adapters merged."""
        return merged(self.model if self.average is None else cast(PIIPModel, self.average.module))

    @property
    def result_tensors(self) -> dict[str, Tensor]:
        """Its weights, of a sharded training: this process's parts."""
        average = {} if self.average is None else cast(Any, self.average).tensors
        return self.model.state_dict() | average


class Losses(nn.Module):
    """`model.loss` as a forward pass, which is all that mixed precision, DDP and shards wrap."""

    def __init__(self, model: PIIPModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, features: Features | None = None) -> dict[str, Tensor] | list[Prediction]:
        """The weighted losses of a batch; with `features`, which do the backbone's work, its predictions."""
        return self.model.loss(batch) if features is None else self.model.head.predict(features, batch)


def start(
    accelerator: Accelerator,
    model: PIIPModel,
    data: SkipUnreadable,
    settings: Settings,
    folder: RunFolder,
    resume: bool,
) -> Run:
    """Build the objects of the run; on `resume`, in the state of its checkpoint."""
    require_shared(folder.path)
    data_record = record_of(data.data)
    with accelerator.main_process_first():  # which repairs the folder if it has to
        shards = folder.shards if accelerator.is_main_process else None  # which looks at them once, for all
        state = load_checkpoint(folder.checkpoint, shards) if resume else None
    if state is not None:
        check_state(state, settings, data_record, folder, accelerator.num_processes)
    if accelerator.is_main_process:
        folder.prepare(resume)
        write_run_config(folder.config, model.config, settings)
    accelerator.wait_for_everyone()
    if not settings.shard:  # a device may be too small for all of it: `shard` takes there what stays there
        model.to(accelerator.device)
    freeze(model, settings.freeze, settings.lora is not None)
    add_adapters(model, settings.lora, settings.seed)
    choose(model, "train", accelerator.device)
    if settings.checkpointing:
        model.backbone.set_checkpointing(True)
    losses, optimizer, average = prepared(accelerator, model, settings)
    at = Position(together=settings.batch_size * accelerator.num_processes)
    run = Run(settings, folder, accelerator, model, losses, optimizer, average, len(data), 0, at, data_record)
    run.batches = len(epoch_loader(run, data))
    if run.batches == 0:
        raise ValueError(
            f"{len(data)} training images give no batch of {settings.batch_size} on each of "
            f"{accelerator.num_processes} processes; use a smaller batch_size"
        )
    if state is not None:
        restore(run, state)
    return run


def prepared(accelerator: Accelerator, model: PIIPModel, settings: Settings) -> tuple[nn.Module, Optimizer, Any]:
    """The model's losses, the optimizer and the running average, ready for precision and processes."""
    processes, losses = accelerator.num_processes, Losses(model)
    if settings.shard:
        from piip.training.shard import ShardedAverage, shard

        shard(model, losses, accelerator.device)
        optimizer = accelerator.prepare_optimizer(build_optimizer(model, settings, processes))
        mean = None if settings.ema is None else ShardedAverage(model, settings.ema)
        return accelerator.prepare_model(losses, device_placement=False, evaluation_mode=True), optimizer, mean
    # With fp16 the scaler decides about steps: it must see whether they are taken, which a fused one decides by itself.
    fused = True if accelerator.device.type == "cuda" and accelerator.scaler is None else None
    plain = build_optimizer(model, settings, processes, fused)
    average = build_average(model, settings.ema) if settings.ema is not None else None
    wrapped, optimizer = accelerator.prepare(losses, plain)
    return wrapped, optimizer, average


def check_state(
    state: dict[str, Any], settings: Settings, data_record: DataRecord | None, folder: RunFolder, processes: int
) -> None:
    """ValueError where a checkpoint is that of another run than `settings`, the data and the `processes` make."""
    ended_so = state["position"].get("nonfinite_in_a_row", 0) >= IN_A_ROW
    free = FREE_ON_RESUME | SAME_IN_ALL | (FREE_AFTERWARDS if ended_so else frozenset())
    check_resumable(state["settings"], settings, folder.checkpoint, free)
    check_same_step(state, settings, processes, folder.checkpoint)
    if (done := state["position"]["epoch"]) > settings.epochs:
        raise ValueError(f"{settings.epochs} epochs: {folder.path} has done {done} already; give as many or more")
    if data_record is None:
        return
    if state.get("data") is None:
        logger.warning("%s does not say what it was trained on: make sure that the data is the same", folder.checkpoint)
    else:
        check_same_data(state["data"], data_record, folder.checkpoint)


def epoch_loader(run: Run, data: Any) -> DataLoader[Batch]:
    """The rest of the current epoch's batches, for this process."""
    return train_loader(
        data,
        batch_size=run.settings.batch_size,
        seed=run.settings.seed,
        epoch=run.at.epoch,
        start_batch=run.at.batch,
        workers=run.settings.workers,
        rank=run.accelerator.process_index,
        world=run.accelerator.num_processes,
        pad_multiple=run.model.config.preprocess.pad_multiple,
        smallest=run.model.config.backbone.smallest_image,
        groups=data.orientations() if run.settings.same_orientation else None,
        together=run.at.together,
    )


def save(run: Run) -> None:
    """Write the checkpoint and the last weights; if not finite, FloatingPointError and nothing written."""
    run.at.unreadable = of_all_processes(run, run.at.unreadable)
    if run.settings.shard:
        state = sharded_state_of(run)
    elif run.accelerator.is_main_process:
        state = state_of(run)
        check_finite(run, [key for name in ("model", "average") for key in nonfinite_keys(state[name] or {})])
    if run.accelerator.is_main_process:
        save_checkpoint(state, run.folder.checkpoint)
        write_skipped(run.at, run.folder.skipped)
        before, run.shards = run.shards, state["shards"]["folder"] if run.settings.shard else ""
        forget_others(run.folder.shards, {before, run.shards})
    give_away(run, run.folder.last)
    run.saved = time.monotonic()
    run.accelerator.wait_for_everyone()


def check_finite(run: Run, broken: list[str]) -> None:
    """FloatingPointError where there are broken weights."""
    if broken:
        raise FloatingPointError(f"NaN or infinite weights at step {run.at.step}, not saved: {broken[:5]}")


def give_away(run: Run, path: Path) -> None:
    """Write the result model and, where there are adapters, what was trained alone beside it. All processes call."""
    if run.settings.shard:
        from piip.training.whole import write_whole

        write_whole(run.model.config, run.result_tensors, path)
    elif run.accelerator.is_main_process:
        save_model(run.result_model, path)
        if run.settings.lora is not None:
            model = run.model if run.average is None else cast(PIIPModel, run.average.module)
            adapter = path.with_suffix(f".adapter{path.suffix}")
            write_adapter(model, run.model, run.settings.lora, run.settings.began_from, adapter)


def write_skipped(at: Position, path: Path) -> None:
    """What was left out so far, as JSON, if anything."""
    if at.skipped_steps or at.unreadable:
        content = {
            "unreadable_images": at.unreadable,
            "skipped_steps": at.skipped_steps,
            "nonfinite_in_a_row": at.nonfinite_in_a_row,
        }
        write_json(path, content, indent=2)


def of_all_processes(run: Run, mine: list[str]) -> list[str]:
    """Each once, in the order of the processes. All of them must ask."""
    if run.accelerator.num_processes == 1:
        return mine
    from accelerate.utils import gather_object

    return list(dict.fromkeys(gather_object(mine)))


def state_of(run: Run) -> dict[str, Any]:
    """All that a resume needs."""
    scaler = run.accelerator.scaler
    return without_weights(run) | {
        "model": run.model.state_dict(),
        "average": run.average.state_dict() if run.average is not None else None,
        "optimizer": run.optimizer.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else None,
    }


def without_weights(run: Run) -> dict[str, Any]:
    """What of it is small."""
    return {
        "settings": run.settings.model_dump(mode="json"),
        "batches": run.batches,
        "processes": run.accelerator.num_processes,
        "data": run.data_record.to_dict() if run.data_record is not None else None,
        "position": asdict(run.at),
    }


def sharded_state_of(run: Run) -> dict[str, Any]:
    """The same with the names of the files that hold the weights, which are written. All processes call."""
    from piip.training.shard import local
    from piip.training.sharded_checkpoint import named_tensors, write_shards

    tensors, updates = named_tensors(run.model, run.average, run.optimizer)
    check_finite(run, of_all_processes(run, nonfinite_keys({name: local(value) for name, value in tensors.items()})))
    shards = write_shards(tensors, run.folder.shards)
    return without_weights(run) | {"shards": shards | {"updates": updates}, "scaler": None}


def restore(run: Run, state: dict[str, Any]) -> None:
    """Put the run into the state of a checkpoint. ValueError if it is another model's or other data's."""
    check_same_epoch(state, run.batches, run.settings, run.accelerator.num_processes, run.folder.checkpoint)
    if "shards" in state:
        from piip.training.sharded_checkpoint import restore_shards

        restore_shards(run.model, run.average, run.optimizer, state["shards"], run.folder.shards)
        run.shards = state["shards"]["folder"]
    elif run.settings.shard:
        raise ValueError(f"{run.folder.checkpoint}: was written without shards; go on with --no-shard")
    else:
        restore_whole(run, state)
    if run.accelerator.scaler is not None and state["scaler"] is not None:
        run.accelerator.scaler.load_state_dict(state["scaler"])
    run.at = at_now(state, Position(**state["position"]), run.batches, run.settings)
    if run.at.nonfinite_in_a_row >= IN_A_ROW:
        run.at.nonfinite_in_a_row = 0  # another try


def restore_whole(run: Run, state: dict[str, Any]) -> None:
    """The weights, the average and the optimizer of a checkpoint that holds them."""
    load_exactly(run.model, state["model"], str(run.folder.checkpoint))
    if run.average is not None:
        run.average.load_state_dict(state["average"])
    restore_optimizer(run.optimizer, state["optimizer"])
