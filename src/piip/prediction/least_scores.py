"""From which score on objects count: one number, one for each class, or those that the weights hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from piip import config
from piip.data.report import DataError
from piip.data.text_files import LARGEST_DESCRIPTION, read_json
from piip.prediction.options import AUTO, USUAL, Conf


def least_scores(conf: Conf, described: config.Model) -> Tensor | None:
    """[classes] float32: the threshold of each class; None where one number is for all.

    Raises:
        ValueError: "auto" with weights that hold no thresholds, or a class that the model does not have.
    """
    if isinstance(conf, Mapping):
        if unknown := [name for name in conf if name not in described.classes]:
            raise ValueError(
                f"conf: there is no class {unknown[0]!r}; the model has {', '.join(described.classes[:8])}"
            )
        return torch.tensor([conf.get(name, USUAL) for name in described.classes])
    if conf != AUTO or described.task != "detection":
        return None
    if described.thresholds is None:
        raise ValueError(
            "conf 'auto': these weights hold no thresholds, which a training with a split to validate on saves; give a "
            "number, or those that an evaluation measured: --conf thresholds.json, in Python conf=metrics.conf"
        )
    return torch.tensor([USUAL if score is None else score for score in described.thresholds])


def least_score(conf: Conf, described: config.Model) -> float:
    """Below it no object counts, of whatever class. Raises as `least_scores`."""
    scores = least_scores(conf, described)
    if scores is not None:
        return float(scores.min())
    return USUAL if isinstance(conf, str | Mapping) else float(conf)


def read_thresholds(path: Path) -> dict[str, float]:
    """The scores in a `thresholds.json` of an evaluation, by class name; DataError where it is none."""
    content = read_json(path, LARGEST_DESCRIPTION)
    try:
        scores = {str(row["class"]): row["score"] for row in content["classes"]}
        return {name: float(score) for name, score in scores.items() if score is not None}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: no thresholds.json as `piip val` writes it") from error
