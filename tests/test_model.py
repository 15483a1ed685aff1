"""The Mask R-CNN model as a whole: what goes in, what comes out."""

import copy
from dataclasses import replace

import pytest
import torch
from tests import tiny
from tests.heads.dino_models import tiny_model as tiny_dino
from torch import Tensor

from piip.data.batches import collate
from piip.data.samples import Sample
from piip.heads.mask_rcnn import rpn
from piip.model import PIIPModel
from piip.structures import Batch, Instances

LOSSES = ["loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss_mask"]


def objects(count: int) -> Instances:
    corner = torch.rand(count, 2) * 30
    boxes = torch.cat((corner, corner + 10 + torch.rand(count, 2) * 40), dim=1)
    masks = torch.zeros(count, 90, 100, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    return Instances(boxes, torch.arange(count) % 3, masks)


def batch(*counts: int) -> Batch:
    size = len(counts)
    return Batch(
        images=torch.randn(size, 3, 96, 128),
        image_sizes=[(90, 100)] * size,
        original_sizes=[(45, 50)] * size,
        targets=[objects(count) for count in counts],
        indices=list(range(size)),
    )


def build(branches: int = 2, **head) -> PIIPModel:
    return PIIPModel(tiny.model(branches, **head)).eval()


@pytest.mark.parametrize("branches", [1, 2, 3])
@pytest.mark.parametrize("counts", [(3, 1), (2, 0), (0, 0), (1,), (300,)])
def test_training_step(branches: int, counts: tuple[int, ...]) -> None:
    model = build(branches).train()
    losses = model.loss(batch(*counts))
    assert list(losses) == LOSSES
    total = sum(losses.values())
    assert total.isfinite()
    total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_boxes_only() -> None:
    model = build(masks=False)
    step = batch(2, 1)
    step = Batch(
        step.images, step.image_sizes, step.original_sizes, [Instances(t.boxes, t.labels) for t in step.targets], [0, 1]
    )
    assert list(model.loss(step)) == LOSSES[:-1]
    result = model.predict(step)[0]
    assert list(result) == ["boxes", "scores", "labels"]


def test_a_mask_head_on_data_without_masks_is_refused() -> None:
    step = batch(2)
    without = Batch(step.images, step.image_sizes, step.original_sizes, [Instances(*vars_of(step.targets[0])[:2])], [0])
    with pytest.raises(ValueError, match="masks=False"):
        build().loss(without)


def vars_of(instances: Instances) -> tuple[Tensor, Tensor, Tensor | None]:
    return instances.boxes, instances.labels, instances.masks


@pytest.mark.parametrize("training", [True, False])
def test_predictions_in_original_pixels(training: bool) -> None:
    model, step = build().train(training), batch(0, 0)
    originals = [(45, 50), (180, 200)]
    results = model.predict(replace(step, original_sizes=originals))
    for result, (height, width) in zip(results, originals, strict=True):
        count = len(result["scores"])
        assert count > 0
        assert {key: tuple(value.shape) for key, value in result.items()} == {
            "boxes": (count, 4),
            "scores": (count,),
            "labels": (count,),
            "masks": (count, height, width),
        }
        assert result["masks"].dtype == torch.bool
        assert result["labels"].min() >= 0
        assert result["labels"].max() < 3
        assert (result["boxes"][:, 2] <= width + 1e-3).all()
        assert (result["boxes"][:, 3] <= height + 1e-3).all()


def test_a_batch_needs_as_many_sizes_as_images() -> None:
    with pytest.raises(ValueError, match="2 images, but 1 image_sizes, 2 original_sizes, 2 padded_sizes"):
        Batch(torch.randn(2, 3, 96, 128), [(96, 128)], [(96, 128)] * 2)


def test_images_alone_are_a_batch_without_padding_in_pixels_of_their_own() -> None:
    made = Batch(torch.zeros(2, 3, 96, 128))
    assert made.image_sizes == made.original_sizes == made.padded_sizes == [(96, 128)] * 2
    assert (made.targets, made.indices) == ([], [0, 1])
    assert Batch(made.images, [(90, 100), (96, 128)]).original_sizes == [(90, 100), (96, 128)]


@pytest.mark.parametrize("make", [build, tiny_dino])
def test_no_images_have_no_predictions(make) -> None:
    assert make().predict(Batch(torch.randn(0, 3, 96, 128))) == []


@pytest.mark.parametrize("make", [build, tiny_dino])
def test_the_output_of_a_detector_is_no_tensor(make) -> None:
    with pytest.raises(NotImplementedError, match="use predict"):
        make()(torch.randn(1, 3, 96, 128))


def test_padding_of_the_image_itself_counts_that_of_the_batch_does_not(monkeypatch) -> None:
    """Anchors in the padding that an image would have alone are trained on, as in the reference."""
    model, seen = build(), []
    inside = rpn.inside
    monkeypatch.setattr(rpn, "inside", lambda places, size: seen.append(size) or inside(places, size))
    sizes = [(90, 100), (32, 33), (65, 127), (96, 128)]
    samples = [Sample(torch.randn(3, *size), objects(0), size, 0) for size in sizes]
    model.loss(collate(samples, pad_multiple=32))
    assert seen == [(96, 128), (32, 64), (96, 128), (96, 128)]


def test_bfloat16_autocast() -> None:
    model, step = build(), batch(2, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.loss(step)
        results = model.predict(step)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert all(result["boxes"].dtype == result["scores"].dtype == torch.float32 for result in results)


@pytest.mark.parametrize("make", [build, tiny_dino])
def test_heads_are_trained_in_single_precision(make) -> None:
    model, step, seen = make().train(), batch(2, 0), set()
    for module in model.head.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            module.register_forward_hook(lambda _, inputs, output: seen.update({inputs[0].dtype, output.dtype}))
    backbone = {level.dtype for level in model.features(step.images)}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halved = {level.dtype for level in model.features(step.images)}
        model.loss(step)
        assert torch.is_autocast_enabled("cpu")
    assert (backbone, halved, seen) == ({torch.float32}, {torch.bfloat16}, {torch.float32})


@torch.no_grad()
def test_the_same_weights_and_seed_give_the_same_losses() -> None:
    model, step = build(), batch(3, 2)
    again = copy.deepcopy(model)
    torch.manual_seed(5)
    first = model.loss(step)
    torch.manual_seed(5)
    assert again.loss(step) == first


def test_batches_move_with_their_targets() -> None:
    moved = batch(2, 1).to("meta")
    assert moved.images.is_meta
    assert all(tensor.is_meta for target in moved.targets for tensor in vars_of(target))
    assert moved.indices == [0, 1]
