"""DINO as a detector: what training and prediction do at the edges."""

from dataclasses import replace

import pytest
import torch
from dino_models import TWO, batch, instances, tiny_model
from torch import Tensor

from piip import config
from piip.heads.dino import DINOHead
from piip.heads.dino.matching import match_queries, objects_of
from piip.model import PIIPModel
from piip.structures import Batch, Instances


def gradients(model: PIIPModel, data: Batch) -> dict[str, Tensor | None]:
    losses = model.train().loss(data)
    assert all(torch.isfinite(loss) and loss.ndim == 0 for loss in losses.values()), losses
    sum(losses.values()).backward()  # type: ignore[union-attr]
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_every_parameter_is_trained() -> None:
    for name, gradient in gradients(tiny_model(), batch(TWO, TWO)).items():
        assert gradient is not None, name
        assert torch.isfinite(gradient).all(), name


@pytest.mark.parametrize(
    "targets",
    [(instances(),), (instances(), instances()), (TWO, instances())],
    ids=["no objects", "a batch without objects", "one image without"],
)
def test_images_without_objects(targets: tuple[Instances, ...]) -> None:
    model, data = tiny_model(), batch(*targets)
    for name, gradient in gradients(model, data).items():
        assert gradient is not None, name  # a process without objects must not leave the others waiting
        assert torch.isfinite(gradient).all(), name
    losses = model.loss(data)
    if not any(len(target.boxes) for target in targets):
        assert losses["loss_bbox"] == losses["loss_giou"] == losses["loss_denoising"] == 0
        assert losses["loss_cls"] > 0


def test_more_objects_than_queries() -> None:
    boxes = [(float(x), float(y), x + 20.0, y + 15.0) for x in range(0, 100, 10) for y in range(0, 80, 20)]
    data = batch(instances(*boxes))
    model = tiny_model(queries=5).train()
    objects = objects_of(data.targets, data.image_sizes)
    with torch.no_grad():
        decoded = model.head(model.backbone(data.images), data.image_sizes, (96, 128))
    pairs = match_queries(decoded.logits, decoded.boxes, objects)
    assert pairs.query.shape == (2, 5)  # every query has an object of its own
    assert all(len(row.unique()) == 5 for row in (*pairs.query, *pairs.object))
    assert all(gradient is not None for gradient in gradients(model, data).values())


@pytest.mark.parametrize("size", [(32, 32), (37, 95), (96, 33)])
def test_odd_sizes_and_fewer_cells_than_queries(size: tuple[int, int]) -> None:
    model = tiny_model(queries=300, detections=1000)
    data = batch(instances((2.0, 3, 20, 25)), size=size)
    assert all(torch.isfinite(loss) for loss in model.train().loss(data).values())
    (found,) = model.eval().predict(replace(data, original_sizes=[(size[0] * 2, size[1] * 3)]))
    assert 3 <= len(found["scores"]) < 900  # three classes at every cell, of which there are fewer than queries
    assert (found["boxes"] >= 0).all()
    assert (found["boxes"][:, 2] <= size[1] * 3).all()
    assert (found["boxes"][:, 3] <= size[0] * 2).all()


def test_one_class() -> None:
    model = tiny_model(classes=("cell",))
    data = batch(Instances(TWO.boxes, torch.zeros(2, dtype=torch.long)))
    assert all(torch.isfinite(loss) for loss in model.train().loss(data).values())
    (found,) = model.eval().predict(data)
    assert found["labels"].unique().tolist() == [0]
    assert len(found["scores"]) == 7


@torch.no_grad()
def test_detections_are_the_best_pairs_of_query_and_class() -> None:
    model = tiny_model().eval()
    data = batch(TWO)
    size = data.image_sizes
    decoded = model.head(model.backbone(data.images), size, (96, 128))
    (found,) = model.predict(data)
    best = decoded.logits[-1, 0].sigmoid().flatten().sort(descending=True).values[:7]
    assert torch.allclose(found["scores"], best)
    query = (decoded.logits[-1, 0].sigmoid() == found["scores"][0]).nonzero()[0]
    assert found["labels"][0] == query[1]
    x, y, w, h = decoded.boxes[-1, 0, query[0]].tolist()
    wanted = torch.tensor([x - w / 2, y - h / 2, x + w / 2, y + h / 2]).clamp(0, 1) * torch.tensor([128, 96, 128, 96])
    assert torch.allclose(found["boxes"][0], wanted, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("most", "count"), [(1, 7), (9, 9), (1000, 10)])
def test_a_crowded_image_has_as_many_detections_as_queries(most: int, count: int) -> None:
    model, data = tiny_model().eval(), batch(TWO)
    (found,) = model.predict(replace(data, most_detections=most))
    (expected,) = model.predict(replace(data, detections=count))
    assert len(found["scores"]) == count
    assert torch.equal(found["boxes"], expected["boxes"])


@torch.no_grad()
def test_padding_is_neither_attended_to_nor_proposed() -> None:
    head: DINOHead = tiny_model(queries=20).eval().head
    for project in head.mapper.projections:
        project[1] = torch.nn.Identity()  # GroupNorm sees the padding, as in the reference
    head.selection.project.bias.zero_()  # so that cells without a proposal score less than the best
    # The decoder embeds boxes as parts of the padded image, as in the reference; but for that it is the same.
    head.decoder.position[2].weight.zero_()
    maps = [torch.randn(1, 64, 12 // scale, 16 // scale) for scale in (1, 2, 4)]
    padded = [torch.nn.functional.pad(one, (0, 8 // 2**i, 0, 4 // 2**i), value=9.0) for i, one in enumerate(maps)]
    inside = head(maps, [(96, 128)], (96, 128))
    outside = head(padded, [(96, 128)], (128, 192))
    assert torch.allclose(inside.selected.logits, outside.selected.logits, atol=1e-4)
    assert torch.allclose(inside.selected.boxes, outside.selected.boxes, atol=1e-5)
    assert torch.allclose(inside.logits, outside.logits, atol=1e-4)
    assert torch.allclose(inside.boxes, outside.boxes, atol=1e-5)


def test_a_batch_of_one_is_that_image_of_a_larger_batch() -> None:
    model = tiny_model().eval()
    data = batch(TWO, TWO)
    both = model.predict(data)
    first = model.predict(Batch(data.images[:1], data.image_sizes[:1], data.original_sizes[:1]))
    for key, value in first[0].items():
        assert torch.allclose(value, both[0][key], atol=1e-4), key


def test_losses_of_half_precision_are_taken_in_float32() -> None:
    model, data = tiny_model().train(), batch(TWO, TWO)
    torch.manual_seed(1)
    exact = model.loss(data)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.loss(data)
        decoded = model.head(model.backbone(data.images), data.image_sizes, (96, 128))
    assert {loss.dtype for loss in rough.values()} == {torch.float32}
    assert decoded.logits.dtype == decoded.boxes.dtype == decoded.selected.boxes.dtype == torch.float32
    total, exact_total = (sum(loss.item() for loss in losses.values()) for losses in (rough, exact))
    assert total == pytest.approx(exact_total, rel=0.1)


def test_evaluation_mode_has_no_denoising() -> None:
    data = batch(TWO)
    assert "loss_denoising" not in tiny_model().eval().loss(data)
    without = tiny_model(denoising_queries=0).train()
    assert "loss_denoising" not in without.loss(data)
    assert all(gradient is not None for gradient in gradients(without, data).values())


def test_look_forward_twice_trains_the_layer_before() -> None:
    """A layer's box loss reaches the deltas of the layer before it, and no further."""
    model = tiny_model(decoder_layers=3, denoising_queries=0).train()
    data = batch(TWO)
    decoded = model.head(model.backbone(data.images), data.image_sizes, (96, 128))
    decoded.boxes[2].sum().backward()
    reached = [
        deltas[4].bias.grad is not None and bool(deltas[4].bias.grad.any()) for deltas in model.head.decoder.boxes
    ]
    assert reached == [False, True, True]


def test_more_proposals_per_object_change_the_encoder_only() -> None:
    data = batch(TWO, TWO)
    torch.manual_seed(3)
    one = tiny_model().eval()
    torch.manual_seed(3)
    many = tiny_model(encoder_matches=3).eval()
    a, b = one.loss(data), many.loss(data)
    assert a["loss_encoder"] != b["loss_encoder"]
    assert all(torch.equal(a[name], b[name]) for name in a if name != "loss_encoder")


def test_broken_numbers_reach_the_losses() -> None:
    """The loop names the batch of a loss that is not finite; the matching must not fail before."""
    model, data = tiny_model(), batch(TWO)
    data.images[0, 0, 0, 0] = torch.nan
    assert not all(torch.isfinite(loss) for loss in model.train().loss(data).values())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": 48}, "multiple of 32"),
        ({"channels": 64, "heads": 5}, "5 heads; the next is 160"),
        ({"channels": 32, "heads": 4}, "the next is 64"),
        ({"encoder_layers": 0}, "encoder_layers"),
        ({"channels": 32}, "64 or more"),
    ],
)
def test_impossible_heads_are_refused(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config.DINO(**fields)


def test_fewer_levels_than_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="the backbone has 3 maps"):
        tiny_model(levels=2)
