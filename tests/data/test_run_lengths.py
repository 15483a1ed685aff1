"""Our encoder writes exactly what COCO's own code writes."""

import numpy as np
import pytest
from faster_coco_eval.core.mask import decode, encode, frPyObjects

from piip.data.run_lengths import encode_mask, run_lengths


def disc(height: int, width: int) -> np.ndarray:
    y, x = np.ogrid[:height, :width]
    return (y - height / 2) ** 2 + (x - width / 3) ** 2 < (min(height, width) / 3) ** 2


rng = np.random.default_rng(0)
MASKS = {
    "noise": rng.random((37, 53)) < 0.5,
    "sparse": rng.random((300, 400)) < 0.001,
    "disc": disc(480, 640),
    "large disc": disc(3000, 2500),
    "all": np.ones((20, 30), dtype=bool),
    "nothing": np.zeros((20, 30), dtype=bool),
    "nothing, large": np.zeros((4000, 6000), dtype=bool),
    "first pixel": np.eye(1, 600, dtype=bool).reshape(20, 30),
    "last pixel": np.eye(1, 600, k=599, dtype=bool).reshape(20, 30),
    "one pixel": np.ones((1, 1), dtype=bool),
    "one empty pixel": np.zeros((1, 1), dtype=bool),
    "one row": rng.random((1, 200)) < 0.3,
    "one column": rng.random((200, 1)) < 0.3,
}


@pytest.mark.parametrize("name", MASKS)
def test_the_text_is_that_of_the_coco_tools(name):
    mask = MASKS[name]
    ours = encode_mask(mask)
    theirs = encode(np.asfortranarray(mask, dtype=np.uint8))
    assert ours["size"] == list(mask.shape)
    assert ours["counts"].encode() == theirs["counts"]
    assert np.array_equal(decode(ours), mask)


@pytest.mark.parametrize("name", MASKS)
def test_the_lengths_are_read_by_the_coco_tools(name):
    mask = MASKS[name]
    lengths = run_lengths(mask)
    assert lengths.sum() == mask.size
    assert (lengths[1:] > 0).all()
    height, width = mask.shape
    runs = {"size": [height, width], "counts": lengths.tolist()}
    assert np.array_equal(decode(frPyObjects(runs, height, width)), mask)


def test_masks_of_other_types_and_in_other_orders_of_memory():
    mask = MASKS["noise"]
    expected = encode_mask(mask)
    assert encode_mask(mask.astype(np.uint8)) == expected
    assert encode_mask(np.asfortranarray(mask)) == expected
    assert encode_mask(np.repeat(mask, 2, axis=1)[:, ::2]) == expected
