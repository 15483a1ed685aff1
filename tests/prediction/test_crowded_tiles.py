"""A crowded tile among sparse ones: it alone is looked at further, up to what is wanted of the whole image."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from tests import tiny
from tests.heads.dino_models import tiny_model
from torch import Tensor
from torch.nn import functional as F

from piip.model import PIIPModel
from piip.prediction.objects import Result
from piip.prediction.predictor import Predictor
from piip.structures import View

GREY = 128
SIDE = 64


class Plain(PIIPModel):
    """Whose maps are the image itself, smaller: nothing where it is grey."""

    def features(self, images: Tensor, views: Sequence[View | None] = ()) -> list[Tensor]:
        maps = zip(self.config.backbone.map_widths, self.config.backbone.map_strides, strict=True)
        return [F.avg_pool2d(images, int(stride)).repeat(1, width, 1, 1)[:, :width] for width, stride in maps]


def detector(**head: int) -> Plain:
    """A head with few proposals that calls places with something in them objects."""
    torch.manual_seed(0)
    described = tiny.model(1, **({"masks": False, "detections": 5, "nms_threshold": 0.3} | head))
    preprocess = described.preprocess.model_copy(update={"mean": (GREY,) * 3, "std": (40.0,) * 3})
    model = Plain(described.model_copy(update={"preprocess": preprocess})).eval()
    with torch.no_grad():
        model.head.box.scores.weight *= 1000
        model.head.box.scores.bias[-1] = 5.0
    return model


def photo(spot: bool) -> np.ndarray:
    """Nine tiles, the middle one full of noise, and maybe a spot in that above it."""
    image = np.full((3 * SIDE, 3 * SIDE, 3), GREY, dtype=np.uint8)
    draws = np.random.default_rng(0)
    image[SIDE : 2 * SIDE, SIDE : 2 * SIDE] = draws.integers(0, 256, (SIDE, SIDE, 3))
    if spot:
        image[20:32, SIDE + 20 : SIDE + 32] = draws.integers(0, 256, (12, 12, 3))
    return image


def predicted(
    model: PIIPModel, image: np.ndarray, detections: int | None, batch_size: int = 1
) -> tuple[Result, list[int]]:
    """What is found, and how many places the head looked at, a number for each tile and each time."""
    predictor, counts = Predictor(model, "cpu", fuse=False), list[int]()
    counting = predictor.inference.get().head.box.register_forward_pre_hook(
        lambda _, given: counts.extend(len(boxes) for boxes in given[1])
    )
    (result,) = predictor.predict(
        image, conf=0.1, tiles=SIDE, overlap=0.0, batch_size=batch_size, detections=detections
    ).results
    counting.remove()
    assert isinstance(result, Result)
    return result, counts


def the_same(one: Result, other: Result) -> bool:
    pairs = ((one.boxes, other.boxes), (one.scores, other.scores), (one.labels, other.labels))
    return all(map(torch.equal, *zip(*pairs, strict=True)))


def everywhere(model: Plain, detections: int) -> Plain:
    """The same model with a head that looks in every tile as if that held so many objects."""
    other = Plain(model.config.model_copy(update={"head": model.config.head.keeping(detections)})).eval()
    other.load_state_dict(model.state_dict())
    return other


def test_the_crowded_tile_alone_is_looked_at_again() -> None:
    image, few = photo(spot=False), detector(proposals=8, proposals_per_level_test=8)
    expected, all_counts = predicted(everywhere(few, 20), image, 20)
    result, counts = predicted(few, image, 20)
    assert len(result) > 15  # as some are parts of others
    assert all_counts == [40] * 9
    assert counts == [8] * 5 + [16, 32, 40] + [8] * 4
    assert the_same(result, expected)
    plain, once = predicted(few, image, None)
    assert len(plain) == 5
    assert once == [8] * 9


def test_it_is_so_in_batches_too() -> None:
    image, few = photo(spot=True), detector(proposals=8, proposals_per_level_test=8)
    alone, one_by_one = predicted(few, image, 40)
    result, counts = predicted(few, image, 40, batch_size=4)
    assert sorted(counts) == sorted(one_by_one) == [8] * 9 + [16, 16, 32, 64]
    assert len(result) == len(alone) > 20
    assert torch.allclose(result.boxes, alone.boxes, atol=1e-2)
    assert torch.equal(result.labels, alone.labels)


def test_no_tile_is_looked_at_again_where_there_are_places_enough() -> None:
    image, usual = photo(spot=True), detector()
    result, counts = predicted(usual, image, 30)
    assert counts == [60] * 9
    assert the_same(result, predicted(everywhere(usual, 30), image, 30)[0])
    plain, _ = predicted(usual, image, None)
    assert len(plain) < len(result)


def test_the_limit_is_the_whole_images() -> None:
    """Also one below what a tile keeps: the best of all tiles, not of some of each."""
    image, usual = photo(spot=True), detector()
    plain, _ = predicted(usual, image, None)
    assert len(plain) == 10
    assert the_same(predicted(usual, image, 3)[0], plain[:3])


def test_queries_are_a_tiles_limit_and_not_the_images() -> None:
    torch.manual_seed(0)
    model = tiny_model(queries=10, detections=7).eval()
    image = np.random.default_rng(0).integers(0, 256, (100, 150, 3), dtype=np.uint8)
    predictor = Predictor(model, "cpu", fuse=False)
    few, many, most = (
        predictor.predict(image, conf=0.0, tiles=64, detections=count).results[0] for count in (None, 10, 1000)
    )
    assert len(many) == 10
    assert len(few) < len(most) <= 6 * 10
    assert the_same(most[:10], many)
    with pytest.raises(ValueError, match="this DINO has 10 queries"):
        predictor.predict(image, detections=1000)
