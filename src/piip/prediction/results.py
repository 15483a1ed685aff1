"""The three kinds of results, by the model's task."""

from __future__ import annotations

from piip import config
from piip.prediction.label_map import SegmentationResult
from piip.prediction.objects import Result
from piip.prediction.probabilities import ClassificationResult

AnyResult = Result | SegmentationResult | ClassificationResult
"""one image's prediction as users get it"""
ResultKind = type[Result] | type[SegmentationResult] | type[ClassificationResult]

RESULTS: dict[config.Task, ResultKind] = {
    "detection": Result,
    "segmentation": SegmentationResult,
    "classification": ClassificationResult,
}
