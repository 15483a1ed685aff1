"""The contract of a head: what the model, the counts of its cost and the copy for inference ask of it.

A new head is a folder with a class of this kind, a config (`config/heads.py`) and a line in `heads/__init__.py`;
nothing else asks which head it has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

from torch import Tensor, nn

from piip.config import Head as HeadConfig
from piip.config import Model as ModelConfig
from piip.structures import Batch, BranchState, Prediction, Size

Feature = TypeVar("Feature", Tensor, BranchState)
"""of what a head reads a list, finest first"""


@dataclass(frozen=True)
class Folding:
    """Which of a head's modules a copy for inference can do without, because others can take over what they do.

    Declared only: `piip.inference` knows what to make of it.
    """

    map_readers: tuple[nn.Module, ...] = ()
    """the 1x1 convolution that alone reads each map, in the order of the maps; empty if others read them too"""
    affine: tuple[tuple[nn.Module, tuple[nn.Module, ...]], ...] = ()
    """norms, each with all the linear layers that read it, none of which sees anything else"""
    batch_norms: tuple[tuple[nn.Module, nn.Module], ...] = ()
    """convolutions, each with the BatchNorm that alone reads it"""
    training_only: tuple[nn.Module, ...] = ()
    """what `predict` never calls; attributes of the head that may be None"""


class Head(nn.Module, ABC, Generic[Feature]):
    """Features of images -> named losses, or a prediction for each image. What is returned depends on no mode."""

    config: HeadConfig
    reads: ClassVar[Literal["maps", "states"]] = "maps"
    """feature maps [B, C, h, w], or the final states of the branches; finest first"""

    @classmethod
    @abstractmethod
    def of(cls, model: ModelConfig) -> Head[Any]:
        """The head that `model` describes, with fresh weights."""

    def check(self, batch: Batch) -> None:
        """Refuse targets that make no sense, before anything is computed: ValueError says which and why."""

    @abstractmethod
    def loss(self, features: list[Feature], batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses of `batch.targets`, weights included: their sum is what training minimises."""

    @abstractmethod
    def predict(self, features_of: Callable[[Tensor], list[Feature]], batch: Batch) -> list[Prediction]:
        """The prediction for each image of `batch`, one at least, at its original size.

        `features_of` are those of images [B, 3, H, W]; asked once for all, or for one window after the other.
        """

    @property
    def neck(self) -> nn.Module | None:
        """The module that turns all that is read into what the rest of the head reads; None without such a part."""
        return None

    @abstractmethod
    def dry_run(self, features: Any, image: Size) -> None:
        """Compute on the meta device whatever a prediction of one image of that size costs beyond the neck.

        As much as it can be, where that depends on the image's content. `features` are the neck's outputs, or without
        a neck what the head reads.
        """

    def folding(self) -> Folding:
        """What a copy for inference can fold."""
        return Folding()

    def as_if_trained(self) -> None:
        """Change fresh weights, where they find nothing, so that a prediction is as much work as with trained ones."""
