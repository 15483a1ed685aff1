"""How a model is trained: one flat, typed, frozen record, written to `config.yaml` in the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from piip.config import Frozen, Model
from piip.config.errors import problems
from piip.data.augmentation import AnyAugmentation, Augmentation, RandomTile
from piip.data.text_files import read_typed_yaml
from piip.files import atomic_write
from piip.training.freeze import named_parts
from piip.training.lora import Lora, lora_of
from piip.training.time_limit import seconds_of
from piip.training.trackers import Logger, logger_names

DEVICE_NAMES = r"^(auto|cpu|mps|cuda(:\d+)?)$"
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]


class Settings(Frozen):
    """The defaults are the paper's Mask R-CNN recipe (1x: 12 epochs), at any batch size."""

    data: str | None = None
    """the data set that was trained on, as it was given"""
    augmentation: AnyAugmentation = Augmentation()
    """random changes of the training images, by the model's task"""
    class_weights: Literal["balanced"] | tuple[PositiveFloat, ...] | None = None
    """segmentation: weight of each class in the losses; "balanced": rare classes count more, see
    `tasks.segmentation.balanced_weights`"""

    drop_empty: bool = True
    """detection: leave out training images without annotations"""
    drop_smaller: NonNegativeInt = 32
    """detection: leave out training images with a side of fewer pixels, as mmdetection does; 0 keeps all"""
    same_orientation: bool = True
    """detection: images of a batch are all wider than high, or none is, so that little is padded"""

    epochs: PositiveInt = 12
    """times that every training image is seen"""
    batch_size: PositiveInt = 2
    """images per process and forward pass"""
    grad_accumulation: PositiveInt = 1
    """forward passes per optimizer step; a step never reaches into the next epoch"""

    lr: PositiveFloat = 1e-4
    """learning rate for `lr_batch_size` images per optimizer step; the run's own is in proportion to its
    images per step (batch_size * grad_accumulation * processes)"""
    lr_batch_size: PositiveInt | None = 16
    """None: take `lr` as it is, whatever the batch size"""
    weight_decay: NonNegativeFloat = 0.05
    """of all but biases and parameters with one dimension"""
    decay_all: bool = False
    """weight decay of biases and parameters with one dimension, too"""
    layer_decay: Fraction = 0.85
    """factor on the learning rate from one layer to the layer before it; 1 for training from scratch"""
    layer_strides: tuple[PositiveFloat | None, ...] | None = None
    """layers that one block counts for in the layer decay, of each branch, finest first (the official `skip_stride`,
    which is coarsest first and leaves out the coarsest); None for a branch that learns at the full rate. Without it,
    the blocks of every branch span the layers of the deepest ViT"""
    whole_layers: bool = True
    """round down a layer that is no whole number, where a block counts for 1.5, say (as the official code does)"""
    new_lr_factor: PositiveFloat = 1.0
    """factor on the learning rate of all that no pretraining covers: interactions, merge, maps, head"""
    branch_lr_factors: tuple[PositiveFloat, ...] | None = None
    """factor on the learning rate of each branch, finest first; None: 1 for all"""
    branch_head_lr_factor: PositiveFloat | None = None
    """the same for the norm and linear head that each branch of some classifiers has; None: as all that is new"""
    warmup_iters: NonNegativeInt = 500
    """optimizer steps of linear warm-up; at most a tenth of the run"""
    warmup_part: Fraction | None = None
    """part of the run that the warm-up takes, in place of `warmup_iters`"""
    warmup_ratio: Fraction = 0.001
    """where the warm-up begins, as a part of the learning rate"""
    warmup_lr: PositiveFloat | None = None
    """where the warm-up begins, as a learning rate, the same for all parameters; it then ends at the full rate, and the
    schedule plays no part before that"""
    schedule: Literal["step", "cosine", "poly", "constant"] = "step"
    """how the learning rate falls after the warm-up"""
    milestones: tuple[Fraction, ...] = (8 / 12, 11 / 12)
    """schedule "step": a tenth of the learning rate after each of these parts of the run"""
    min_lr_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """schedules "cosine" and "poly": where it ends, as a part of the learning rate"""
    min_lr: NonNegativeFloat | None = None
    """the same as a learning rate, the same for all parameters"""
    power: PositiveFloat = 1.0
    """schedule "poly": the learning rate falls like the remaining part of the run to this power; 1 is a line"""
    lr_by_epoch: bool = False
    """change the learning rate only from epoch to epoch, and an epoch late: the second still has that of the first (as
    the official classification code does)"""
    grad_clip: PositiveFloat | None = None
    """largest norm of the gradient"""
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """decay per step of a running average of the weights, which then is what is evaluated and given away"""

    freeze: Annotated[tuple[str, ...], BeforeValidator(named_parts)] = ()
    """parts that keep their weights, see `training.freeze`: branches ("2", "branches.2"), their blocks
    ("branches.2.blocks.0-8"), "backbone", "interactions", "head" and others"""
    lora: Annotated[Lora | None, BeforeValidator(lora_of)] = None
    """low-rank adapters in frozen branches: a rank, or "rank=8,alpha=16,targets=qkv,proj,branches=2"; what a run gives
    away has them merged, and beside it lies the adapter alone"""
    began_from: dict[str, str] = Field(default_factory=dict)
    """the weights that the model began with, as they were given: "weights", or "0", "1", ... for branches"""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """of the backbone, by autocast; heads are trained in float32 in any case"""
    checkpointing: bool = False
    """recompute the backbone's activations in the backward pass: less memory for about a third more time"""
    shard: bool = False
    """several processes: each holds an equal part of parameters, gradients, optimizer and running average, and gathers
    a block's weights while it runs"""
    device: Annotated[str, Field(pattern=DEVICE_NAMES)] = "auto"
    """"auto", "cpu", "cuda", "cuda:1" or "mps"; several processes take a GPU each, of those in CUDA_VISIBLE_DEVICES"""
    seed: NonNegativeInt = 0
    """everything random follows from it"""
    draws_by_image: bool = True
    """detection: which candidates of an image are trained on, and DINO's noise, follow from the image; else from the
    batch, as in earlier versions"""
    workers: NonNegativeInt = 2
    """processes that read and transform images, for each training process; the results do not depend on it"""

    check_images: bool = True
    """decode all images before the first step, to name those that are broken and evaluate without them. Files that were
    looked at before, by whichever run, are not decoded again; in training broken ones are passed over in any case"""

    peer_minutes: PositiveFloat = 30.0
    """of several processes: how long one waits for the others before the run ends; more than an evaluation's scores or
    a checkpoint take"""

    eval_interval: PositiveInt = 1
    """epochs between evaluations; the last epoch is always evaluated"""
    save_interval: PositiveInt | None = None
    """optimizer steps between checkpoints within an epoch; the end of an epoch writes one in any case"""
    save_minutes: PositiveFloat | None = 10.0
    """minutes between checkpoints, also within an epoch; None: only those of `save_interval` and the ends of epochs"""
    patience: PositiveInt | None = None
    """stop after so many evaluations without a better result; None: never"""
    best_metric: str | None = None
    """what decides which weights are the best, and when patience ends: a column of results.csv, or "val_loss"; None:
    box AP, mIoU, or top-1 accuracy"""
    val_tiles: NonNegativeInt | None = None
    """side, in pixels of the image file, of the tiles in which images are evaluated, with the usual overlap, as by
    `piip val --tiles`; 0: whole images; None: as they are trained on, in tiles of `augmentation.tiles` or whole"""
    val_loss: bool = False
    """measure the losses on the validation data, too, without random changes; that takes about as long as the
    evaluation itself"""
    time_limit: Annotated[PositiveFloat | None, BeforeValidator(seconds_of)] = None
    """seconds, or "2h", "1h30m", "90m": stop so early that the checkpoint is written by then, counted anew on resume"""
    log: Annotated[tuple[Logger, ...], BeforeValidator(logger_names)] = ("tensorboard",)
    """where numbers go besides results.csv: "tensorboard", "wandb", "mlflow", "trackio"; "none": nowhere"""

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones {self.milestones} must grow, for example (0.66, 0.9)")
        return self

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """`freeze`, and the branches with adapters."""
        if self.lora is None:
            return self.freeze
        return self.freeze + (("branches",) if self.lora.branches is None else tuple(map(str, self.lora.branches)))

    @property
    def evaluated_in_tiles(self) -> int | None:
        """The side of the tiles of evaluations; None: whole images."""
        if self.val_tiles is not None:
            return self.val_tiles or None
        tiles = getattr(self.augmentation, "tiles", None)  # a classifier has none
        return tiles.side if isinstance(tiles, RandomTile) else tiles

    def scaled_lr(self, processes: int = 1) -> float:
        """The learning rate of a run on so many processes, before schedule and layer decay."""
        if self.lr_batch_size is None:
            return self.lr
        return self.lr * self.batch_size * self.grad_accumulation * processes / self.lr_batch_size


FREE_ON_RESUME = frozenset(
    {
        "check_images",
        "data",
        "epochs",
        "checkpointing",
        "device",
        "workers",
        "eval_interval",
        "save_interval",
        "save_minutes",
        "patience",
        "time_limit",
        "log",
        "peer_minutes",
        "shard",
    }
)
"""what may differ when a run is resumed; anything else would make it another run"""
SAME_IN_ALL = frozenset({"batch_size", "grad_accumulation"})
"""what may differ on another number of processes, if an optimizer step has as many images as before"""


BEFORE: dict[str, Any] = {
    "whole_layers": False,
    "drop_empty": False,
    "drop_smaller": 0,
    "same_orientation": False,
    "draws_by_image": False,
    "val_tiles": 0,
}
"""what runs did that were begun before there was such a setting, where it is not the default"""


def check_resumable(
    saved: dict[str, Any], settings: Settings, source: Path, free: frozenset[str] = FREE_ON_RESUME
) -> None:
    """Raise ValueError where `settings` differ from `saved`, a checkpoint's, in more than what is `free` to."""
    was, now = _of_this_version(saved, source), settings.model_dump(mode="json")
    changed = [key for key in sorted(now) if now[key] != was[key] and key not in free]
    changed = [f"{key} (was {was[key]}, now {now[key]})" for key in changed]
    if changed:
        raise ValueError(
            f"{source}: cannot resume with other settings: {', '.join(changed)}; only "
            f"{', '.join(sorted(free))} may change. Start a new run instead"
        )


def _of_this_version(saved: dict[str, Any], source: Path) -> dict[str, Any]:
    """A checkpoint's settings and, of those that did not exist when it was written, `BEFORE` or the defaults.

    ValueError for settings that exist no longer, and for values that are none now.
    """
    if gone := sorted(saved.keys() - Settings.model_fields.keys()):
        listed = ", ".join(f"{key} ({saved[key]})" for key in gone)
        raise ValueError(f"{source}: was written with settings that this version does not have: {listed}; "
                         "resume it with the version that wrote it, or start a new run from its weights")  # fmt: skip
    try:
        return Settings.model_validate(BEFORE | saved).model_dump(mode="json")
    except pydantic.ValidationError as error:
        raise ValueError(f"{source}: its settings are not valid here: {problems(error)}") from error


def write_run_config(path: Path, model: Model, settings: Settings) -> None:
    """Write `config.yaml`: the `model` and the `training` that a run consists of."""
    content = {"model": model.model_dump(mode="json"), "training": settings.model_dump(mode="json")}
    with atomic_write(path) as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def read_settings(path: str | Path) -> Settings:
    """Settings from a YAML file: a run's `config.yaml`, or just the fields that differ from the defaults.

    A run that was begun before there was some setting goes on without it, see `BEFORE`.

    Raises ValueError naming the file for unreadable YAML, unknown fields and invalid values.
    """
    content = read_typed_yaml(Path(path))
    if isinstance(content, dict) and isinstance(content.get("training"), dict):
        content = BEFORE | content["training"]
    try:
        return Settings.model_validate({} if content is None else content)
    except pydantic.ValidationError as error:
        raise ValueError(f"{path}: {problems(error, Settings.model_fields)}") from error


def read_model(path: Path) -> Model:
    """The model of a run, from its `config.yaml`; ValueError naming the file where it describes none."""
    content = read_typed_yaml(path)
    if not isinstance(content, dict) or "model" not in content:
        raise ValueError(f"{path}: not the config of a run, which describes its `model`; was it written by a training?")
    try:
        return Model.model_validate(content["model"])
    except pydantic.ValidationError as error:
        raise ValueError(f"{path}: its model is not valid: {problems(error)}") from error
