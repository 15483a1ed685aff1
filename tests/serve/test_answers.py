"""What of a result goes into the answer to a request."""

import json

import numpy as np
import pytest
import torch

from piip.prediction.objects import Result
from piip.serve.answers import answer_of
from piip.serve.wanted import Wanted


@pytest.mark.parametrize(
    ("wanted", "scores"),
    [
        (Wanted(), [0.9, 0.8, 0.6, 0.3]),
        (Wanted(conf=0.7), [0.9, 0.8]),
        (Wanted(conf=0.3, least_scores=(0.85, 0.3)), [0.9, 0.6, 0.3]),
        (Wanted(conf=0.3, least_scores=(0.85, 0.3), classes=(1,)), [0.6, 0.3]),
    ],
)
def test_the_objects_that_count(wanted: Wanted, scores: list[float]) -> None:
    boxes = torch.tensor([[1.0, 1, 9, 9]]).repeat(4, 1)
    result = Result(
        boxes, torch.tensor([0.9, 0.8, 0.6, 0.3]), torch.tensor([0, 0, 1, 1]), ("cat", "dog"),
        np.zeros((10, 10, 3), np.uint8),
    )  # fmt: skip
    answer = json.loads(answer_of(result, wanted, {}).body)
    assert [entry["score"] for entry in answer["objects"]] == pytest.approx(scores, abs=1e-4)
