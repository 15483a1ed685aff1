import pytest
import torch

from piip.weights.keymap import SHOWN_KEYS, KeyMismatch, convert, key_map

RULES = [
    (r"blocks\.(\d+)\.norm(\d)\.(.+)", r"layers.\1.ln_\2.\3"),
    (r"blocks\.(\d+)\.(.+)", lambda match: f"layers.{match[1]}.{match[2].upper()}"),
    (r"head\.(.+)", r"classifier.\1"),
]


def test_the_first_rule_that_matches_the_whole_key_names_it() -> None:
    ours = ["blocks.0.norm1.weight", "blocks.11.mlp", "head.bias"]
    assert key_map(ours, RULES) == {
        "blocks.0.norm1.weight": "layers.0.ln_1.weight",
        "blocks.11.mlp": "layers.11.MLP",
        "head.bias": "classifier.bias",
    }
    assert key_map([], RULES) == {}


@pytest.mark.parametrize("key", ["neck.weight", "my.head.bias", "blocks.x.norm1.weight"])
def test_a_key_without_a_rule_is_named(key: str) -> None:
    with pytest.raises(KeyMismatch, match=f"no conversion rule for {key!r}"):
        key_map(["head.bias", key], RULES)


def test_two_keys_of_one_name_are_refused() -> None:
    with pytest.raises(KeyMismatch, match="ambiguous"):
        key_map(["a1", "a2"], [(r"a\d", "b")])


MAPPING = {"a": "x", "b": "y"}
SHAPES = {"a": (2,), "b": (3, 1)}


def weights(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"x": torch.ones(2), "y": torch.zeros(3, 1)} | changes


def test_convert_renames_and_keeps_the_tensors() -> None:
    theirs = weights()
    ours = convert(theirs, MAPPING, SHAPES)
    assert list(ours) == ["a", "b"]
    assert ours["a"] is theirs["x"]
    assert ours["b"] is theirs["y"]


def test_everything_that_does_not_fit_is_listed_at_once() -> None:
    theirs = weights(x=torch.ones(4), z=torch.ones(1), w=torch.ones(1))
    del theirs["y"]
    with pytest.raises(KeyMismatch) as error:
        convert(theirs, MAPPING, SHAPES)
    message = str(error.value)
    assert "1 missing: y" in message
    assert "2 unknown: w, z" in message
    assert "1 of another shape: x (4,) instead of (2,)" in message
    assert isinstance(error.value, ValueError)


def test_a_scalar_is_not_a_vector_of_one() -> None:
    with pytest.raises(KeyMismatch, match=r"x \(\) instead of \(1,\)"):
        convert({"x": torch.ones(())}, {"a": "x"}, {"a": (1,)})


def test_long_lists_are_cut() -> None:
    theirs = weights(**{f"extra{i:02}": torch.ones(1) for i in range(50)})
    with pytest.raises(KeyMismatch) as error:
        convert(theirs, MAPPING, SHAPES)
    assert "50 unknown: extra00" in str(error.value)
    assert str(error.value).count("extra") == SHOWN_KEYS
    assert str(error.value).endswith(f" and {50 - SHOWN_KEYS} more")
