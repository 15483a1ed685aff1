"""A sharded model that predicts where it is: no process ever has more of it than in a step of the training.

A block's weights are gathered by all processes together, so all must run their backbones equally often, whatever
images each has. Whoever has none left runs a small image along until all are done (`processes.settling`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from piip import config, processes
from piip.data.batches import padded_size
from piip.structures import Batch, Prediction, View
from piip.training.shard import forget_forward_passes

if TYPE_CHECKING:
    from piip.model import PIIPModel
    from piip.training.shard import ShardedAverage

SMALL = 128
"""pixels; norms of maps need more than one place, also on the coarsest map"""


class OnShards(nn.Module):
    """What of a `PIIPModel` evaluations use: its config, weights' device, predictions and losses."""

    def __init__(self, model: PIIPModel, losses: nn.Module) -> None:
        """`losses`: the module that was sharded, around the model."""
        super().__init__()
        self.model, self.losses = model, losses
        side, _ = padded_size(
            (SMALL, SMALL), model.config.preprocess.pad_multiple, model.config.backbone.smallest_image
        )
        self.device = next(model.parameters()).device
        self.small = torch.zeros(1, 3, side, side, device=self.device)

    @property
    def config(self) -> config.Model:
        """The model's."""
        return self.model.config

    def to(self, *args: Any, **kwargs: Any) -> OnShards:
        """Itself: it is where it is."""
        return self

    def predict(self, batch: Batch) -> list[Prediction]:
        """As `PIIPModel.predict`."""
        if not len(batch.images):
            return []
        features = partial(self._features, views=batch.views)
        with torch.inference_mode(False), torch.no_grad():  # what is gathered is used in training, too
            return cast(list[Prediction], self.losses(batch, features))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """As `PIIPModel.loss`, also in processes with other numbers of batches; within `processes.apart`."""
        self._any(True)
        with torch.inference_mode(False), torch.no_grad():
            return cast(dict[str, Tensor], self.losses(batch))

    def _features(self, images: Tensor, views: Sequence[View | None]) -> Any:
        self._any(True)
        return self.model.features(images, views)

    def settle(self) -> None:
        """Run along until no process has anything to predict."""
        with torch.inference_mode(False), torch.no_grad():
            while self._any(False):
                self.model.features(self.small)

    def _any(self, working: bool) -> bool:
        """Whether a process is about to run its backbone for an image of its own."""
        with processes.apart(False):
            return bool(processes.largest([int(working)], self.device)[0])


@contextmanager
def on_shards(model: PIIPModel, losses: nn.Module, average: ShardedAverage | None) -> Iterator[OnShards]:
    """The running average of a sharded training, or the model itself, ready to be evaluated by all processes.

    Inside, each process may predict as many batches as it likes. Afterwards everything is to the bit as it was.
    """
    modes = {module: module.training for module in losses.modules()}
    if average is not None:
        average.exchange(model)
    losses.eval()
    try:
        ready = OnShards(model, losses).eval()
        ready.predict(Batch(ready.small))  # gathers what no block has; it stays
        with processes.settling(ready.settle):
            yield ready
        ready.settle()
    finally:
        forget_forward_passes(losses)
        for module, training in modes.items():
            module.training = training
        if average is not None:
            average.exchange(model)
