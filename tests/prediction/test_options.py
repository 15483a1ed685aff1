"""Options of a prediction: one object, checked, that knows the names which hands know."""

from dataclasses import FrozenInstanceError, fields
from typing import Any, get_type_hints

import numpy as np
import pytest
from tests import tiny

import piip
from piip.prediction.options import ALIASES, ALLOWED, NAMES, FurtherOptions, Options, PredictOptions


def test_what_is_not_given_is_as_usual() -> None:
    assert Options.of(conf=None, batch_size=None) == Options() == Options(0.25, 1, "fp32")
    assert Options.of(conf=0.5, batch_size=8, precision="bf16") == Options(0.5, 8, "bf16")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"threshold": 0.5}, Options(conf=0.5)),
        ({"score_threshold": 0}, Options(conf=0)),
        ({"confidence": np.float32(0.5)}, Options(conf=0.5)),
        ({"batch": np.int64(3)}, Options(batch_size=3)),
        ({"half": True}, Options(precision="fp16")),
        ({"half": False}, Options(precision="fp32")),
    ],
)
def test_names_that_hands_know(given: dict[str, Any], expected: Options) -> None:
    assert Options.of(**given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"conf": 1.5}, "conf 1.5: use a number from 0 to 1"),
        ({"threshold": -0.1}, "threshold -0.1: use a number from 0 to 1"),
        ({"conf": float("nan")}, "conf nan: use a number from 0 to 1"),
        ({"conf": "0.5"}, "conf '0.5': use a number from 0 to 1"),
        ({"conf": True}, "conf True: use a number from 0 to 1"),
        ({"batch": 0}, "batch 0: use a whole number, 1 or more"),
        ({"batch_size": 2.0}, r"batch_size 2.0: use a whole number, 1 or more"),
        ({"precision": "int8"}, "precision 'int8': use one of fp32, bf16, fp16"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_it_was_given(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options.of(**given)


def test_a_wrong_value_is_refused_in_the_object_itself() -> None:
    with pytest.raises(ValueError, match="conf 2: use a number from 0 to 1"):
        Options(conf=2)
    with pytest.raises(FrozenInstanceError):
        Options().conf = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"treshold": 0.5}, "no option 'treshold'; did you mean threshold"),
        ({"batchsize": 2}, "no option 'batchsize'; did you mean batch_size"),
        ({"zzz": 2}, "no option 'zzz'; the options are conf, batch_size, precision"),
        ({"conf": 0.5, "threshold": 0.5}, "threshold and another name of conf are given"),
    ],
)
def test_a_wrong_keyword_is_answered_with_the_near_one(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Options.of(**given)
    with pytest.raises(TypeError, match=message):
        piip.PIIP(tiny.model(), device="cpu").predict(np.zeros((8, 8, 3), np.uint8), **given)


def test_type_checkers_know_every_name_of_every_option() -> None:
    assert set(get_type_hints(PredictOptions)) == {*NAMES, *ALIASES, "save"}
    assert set(get_type_hints(PredictOptions)) - set(get_type_hints(FurtherOptions)) == {
        "conf", "save", "batch_size", "precision"
    }  # fmt: skip
    assert set(ALLOWED) == {option.name for option in fields(Options)}
    assert set(ALIASES.values()) <= set(ALLOWED)
