"""What a model cannot be trained with, found out while there is no folder of the run yet."""

from __future__ import annotations

from piip.model import PIIPModel
from piip.training.freeze import check_trained
from piip.training.lora import adapted_layers
from piip.training.optim import by_branch, layer_factors
from piip.training.settings import Settings


def check_fits(model: PIIPModel, settings: Settings) -> None:
    """Whether `settings` name parts, layers and rates that the model has, and leave something to train.

    Raises:
        ValueError: they do not.
        ImportError: adapters are asked for and peft is not installed.
    """
    if settings.lora is None:
        check_trained(model, settings.freeze)
    else:
        adapted_layers(model, settings.lora)
    factors = layer_factors(model, settings.layer_decay, settings.layer_strides, settings.whole_layers)
    if settings.branch_lr_factors is not None:
        by_branch(factors, settings.branch_lr_factors, len(model.backbone.branches))
