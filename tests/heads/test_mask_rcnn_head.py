"""The whole head on every kind of image that training data hold."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from piip import config
from piip.heads.mask_rcnn import MaskRCNNHead, box, matching, rpn
from piip.heads.mask_rcnn.mask import paste_masks
from piip.structures import Batch, Instances, Prediction, Size

SIZE = (96, 128)
SIZES = [SIZE, (90, 100)]
CHANNELS = 16


def build(classes: int = 3, **settings) -> MaskRCNNHead:
    small = {"channels": 16, "fc_channels": 32, "mask_convs": 1, "rpn_batch": 64, "roi_batch": 32}
    small |= {"proposals": 60, "detections": 20}
    return MaskRCNNHead(config.MaskRCNN(**{**small, **settings}), [CHANNELS] * 4, classes)


def features(batch: int = 2) -> list[Tensor]:
    return [torch.randn(batch, CHANNELS, SIZE[0] // stride, SIZE[1] // stride) for stride in (4, 8, 16, 32)]


def objects(count: int, side: tuple[float, float] = (8, 60), classes: int = 3, masks: bool = True) -> Instances:
    extent = torch.rand(count, 2) * (side[1] - side[0]) + side[0]
    corner = torch.rand(count, 2) * (torch.tensor([100.0, 90.0]) - extent)
    boxes = torch.cat((corner, corner + extent), dim=1)
    bitmaps = torch.zeros(count, *SIZE, dtype=torch.uint8)
    for bitmap, (x1, y1, x2, y2) in zip(bitmaps, boxes.long().tolist(), strict=True):
        bitmap[y1 : y2 + 1, x1 : x2 + 1] = 1
    return Instances(boxes, torch.randint(0, classes, (count,)), bitmaps if masks else None)


SCENES = {
    "several objects": lambda: [objects(5), objects(2)],
    "an image without objects": lambda: [objects(3), objects(0)],
    "no objects at all": lambda: [objects(0), objects(0)],
    "one object": lambda: [objects(1)],
    "300 objects": lambda: [objects(300), objects(1)],
    "objects of one pixel": lambda: [objects(7, side=(1, 1)), objects(1, side=(0.05, 0.05))],
    "an object as large as the image": lambda: [
        Instances(torch.tensor([[0.0, 0.0, 128.0, 96.0]]), torch.tensor([1]), torch.ones(1, *SIZE, dtype=torch.uint8))
    ],
    "the same object twice": lambda: [twice(objects(1))],
}


def twice(one: Instances) -> Instances:
    return Instances(*(torch.cat((part, part)) for part in (one.boxes, one.labels, one.masks)))


def batch(sizes: list[Size], originals: list[Size] | None = None, targets: list[Instances] | None = None) -> Batch:
    return Batch(torch.zeros(len(sizes), 3, *SIZE), sizes, originals or sizes, targets or [])


def losses_of(head: MaskRCNNHead, targets: list[Instances], maps: list[Tensor] | None = None) -> dict[str, Tensor]:
    count = len(targets)
    return head.loss(maps or features(count), batch(SIZES[:count], targets=targets))


def detect(
    head: MaskRCNNHead, maps: list[Tensor], sizes: list[Size] = SIZES, originals: list[Size] | None = None
) -> list[Prediction]:
    return head.predict(lambda _: maps, batch(sizes, originals))


def check_training(head: MaskRCNNHead, targets: list[Instances]) -> dict[str, Tensor]:
    maps = [level.requires_grad_() for level in features(len(targets))]
    losses = losses_of(head, targets, maps)
    for name, loss in losses.items():
        assert loss.shape == (), name
        assert loss.dtype == torch.float32, name
        assert loss.isfinite(), name
        assert loss >= 0, name
    sum(losses.values()).backward()
    # A parameter without a gradient would stop a distributed run.
    for name, parameter in [*head.named_parameters(), *((f"map {i}", level) for i, level in enumerate(maps))]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    return losses


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("autocast", [False, True])
def test_losses_and_gradients_are_finite(scene: str, masks: bool, autocast: bool) -> None:
    head, targets = build(masks=masks), SCENES[scene]()
    if not masks:
        targets = [Instances(target.boxes, target.labels) for target in targets]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        losses = check_training(head, targets)
    names = ["loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox"] + ["loss_mask"] * masks
    assert list(losses) == names
    if scene == "no objects at all":
        assert [losses[name].item() for name in names[1::2]] == [0, 0]
        assert not masks or losses["loss_mask"] == 0
    else:
        # No anchor overlaps an object of one pixel enough to have its box trained.
        expected_zero = ["loss_rpn_bbox"] if scene == "objects of one pixel" else []
        assert [name for name in names if losses[name] == 0] == expected_zero


def test_one_class() -> None:
    losses = check_training(build(classes=1), [objects(3, classes=1), objects(0)])
    assert losses["loss_cls"] > 0


def test_not_a_single_proposal() -> None:
    head = build()
    torch.nn.init.constant_(head.rpn.deltas.bias, -1e4)  # every proposal shrinks and leaves the image
    with torch.no_grad():
        maps = features()
        levels = head.fpn(maps)
        found = head.rpn.proposals(*head.rpn(levels), head.rpn.anchors(levels), SIZES, 100)
    assert [len(boxes) for boxes, _ in found] == [0, 0]
    check_training(head, [objects(0), objects(0)])
    check_training(head, [objects(2), objects(0)])
    results = detect(head, maps)
    assert [len(result["boxes"]) for result in results] == [0, 0]


def test_the_sampler_can_be_replaced() -> None:
    head, targets, maps = build(), [objects(5), objects(2)], features()
    counts = []

    def first(candidates: Tensor, k: int) -> Tensor:
        counts.append(k)
        return candidates[:k]

    head.sampler = first
    losses = losses_of(head, targets, maps)
    assert len(counts) == 8  # positive and negative, anchors and regions, two images
    assert counts[0] == head.config.rpn_batch // 2
    assert counts[4] == head.config.roi_batch // 4
    torch.manual_seed(99)
    assert losses_of(head, targets, maps) == losses
    head.sampler = matching.random_sample
    assert losses_of(head, targets, maps)["loss_cls"] != losses["loss_cls"]


def test_box_losses_by_hand() -> None:
    head, targets = build(roi_batch=8), [objects(2), objects(0)]
    head.sampler = lambda candidates, k: candidates[:k]
    proposals = [
        torch.cat((targets[0].boxes[:1] + 1, torch.tensor([[100.0, 80.0, 120.0, 90.0]]))),
        torch.tensor([[5.0, 5.0, 30.0, 40.0]]),
    ]
    boxes, samples = head.box.sample(proposals, targets, [head.sampler] * len(targets))
    # The objects themselves come first; at most a quarter of 8 is positive.
    assert [chosen.objects.tolist() for chosen in samples] == [[0, 1], []]
    torch.testing.assert_close(boxes[0][:2], targets[0].boxes)
    assert boxes[1].tolist() == proposals[1].tolist()
    count = [len(box) for box in boxes]
    logits, deltas = torch.randn(sum(count), 4), torch.randn(sum(count), 3, 4)
    losses = head.box.loss(logits, deltas, boxes, samples, targets)
    labels = [*targets[0].labels.tolist(), *[3] * (sum(count) - 2)]  # the background is the last class
    expected = -sum(logits.log_softmax(-1)[row, label] for row, label in enumerate(labels)) / sum(count)
    torch.testing.assert_close(losses["loss_cls"], expected)
    # A positive that is its object wants no offset; the sum is divided by all regions, not by the positives.
    expected = sum(deltas[row, label].abs().sum() for row, label in enumerate(labels[:2])) / sum(count)
    torch.testing.assert_close(losses["loss_bbox"], expected)


def check_predictions(results: list[dict[str, Tensor]], originals: list[tuple[int, int]], masks: bool = True) -> None:
    assert len(results) == len(originals)
    for result, (height, width) in zip(results, originals, strict=True):
        count = len(result["scores"])
        assert list(result) == ["boxes", "scores", "labels"] + ["masks"] * masks
        assert result["boxes"].shape == (count, 4)
        assert result["boxes"].dtype == result["scores"].dtype == torch.float32
        assert result["scores"].shape == result["labels"].shape == (count,)
        assert result["labels"].dtype == torch.int64
        assert (result["scores"].diff() <= 0).all()
        assert (result["boxes"] >= 0).all()
        assert (result["boxes"] <= torch.tensor([width, height, width, height]) + 1e-3).all()
        if masks:
            assert result["masks"].shape == (count, height, width)
            assert result["masks"].dtype == torch.bool
        assert not any(tensor.requires_grad for tensor in result.values())


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("autocast", [False, True])
def test_predictions(masks: bool, autocast: bool) -> None:
    head, originals = build(masks=masks), [(48, 64), (180, 200)]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        results = detect(head, features(), SIZES, originals)
    check_predictions(results, originals, masks)
    assert [len(result["boxes"]) for result in results] == [20, 20]
    if masks:
        assert all(result["masks"].any() for result in results)


def test_predictions_do_not_depend_on_training_mode_or_grad() -> None:
    head, maps = build(), features()
    expected = detect(head.eval(), maps)
    with torch.no_grad():
        actual = detect(head.train(), [level.requires_grad_() for level in maps])
    again = detect(head, maps)
    for results in (actual, again):
        check_predictions(results, SIZES)
        for result, wanted in zip(results, expected, strict=True):
            assert all(torch.equal(result[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("masks", [True, False])
def test_no_detections(masks: bool) -> None:
    results = detect(build(score_threshold=1.0, masks=masks), features(), SIZES, [(33, 44), (55, 66)])
    check_predictions(results, [(33, 44), (55, 66)], masks)
    assert [len(result["boxes"]) for result in results] == [0, 0]


def test_detections_in_one_image_only() -> None:
    head = build(score_threshold=0.3)
    maps = features()
    for level in maps:
        level[1] = 0
    torch.nn.init.normal_(head.box.scores.weight, std=3)
    head.box.scores.bias.data[-1] = 0.5
    results = detect(head, maps)
    check_predictions(results, SIZES)
    assert len(results[0]["boxes"]) > 0
    assert len(results[1]["boxes"]) == 0


def test_the_original_size_only_scales_boxes() -> None:
    head, maps = build(), features(1)
    plain = detect(head, maps, [SIZE])[0]
    scaled = detect(head, maps, [SIZE], [(SIZE[0] * 2, SIZE[1] // 2)])[0]
    torch.testing.assert_close(scaled["boxes"], plain["boxes"] * torch.tensor([0.5, 2, 0.5, 2]), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(scaled["scores"], plain["scores"])


def test_suppression_is_by_class_and_keeps_the_best() -> None:
    head = build(score_threshold=0.2, nms_threshold=0.5, detections=3).box
    same = torch.tensor([10.0, 10.0, 50.0, 50.0])
    boxes = torch.stack((same, same + 2, same + 60)).unsqueeze(1).repeat(1, 3, 1)
    scores = torch.tensor([[0.5, 0.3, 0.1], [0.6, 0.1, 0.2], [0.1, 0.25, 0.15]])
    kept, kept_scores, labels = head._suppress(boxes, scores)
    # 0.5 falls to 0.6 of its class; 0.2 is not above the threshold.
    torch.testing.assert_close(kept_scores, torch.tensor([0.6, 0.3, 0.25]))
    assert labels.tolist() == [0, 1, 1]
    assert torch.equal(kept, torch.stack((same + 2, same, same + 60)))
    assert (
        len(head._suppress(boxes.repeat(5, 1, 1) + torch.arange(15)[:, None, None] * 100, scores.repeat(5, 1))[0]) == 3
    )


def test_class_agnostic_suppression_leaves_one_class_to_a_place() -> None:
    head = build(score_threshold=0.2, nms_threshold=0.5, class_agnostic=True).box
    same = torch.tensor([10.0, 10.0, 50.0, 50.0])
    boxes = torch.stack((same, same + 2, same + 60)).unsqueeze(1).repeat(1, 3, 1)
    scores = torch.tensor([[0.5, 0.3, 0.1], [0.6, 0.1, 0.2], [0.1, 0.25, 0.15]])
    kept, kept_scores, labels = head._suppress(boxes, scores)
    torch.testing.assert_close(kept_scores, torch.tensor([0.6, 0.25]))
    assert labels.tolist() == [0, 1]
    assert torch.equal(kept, torch.stack((same + 2, same + 60)))


def test_background_is_not_predicted() -> None:
    head = build(classes=2, masks=False)
    torch.nn.init.zeros_(head.box.scores.weight)
    head.box.scores.bias.data = torch.tensor([0.0, 1.0, 9.0])
    assert all(len(result["boxes"]) == 0 for result in detect(head, features()))
    head.box.scores.bias.data = torch.tensor([0.0, 9.0, 1.0])
    assert all((result["labels"] == 1).all() for result in detect(head, features()))


def test_nothing_is_made_on_another_device(monkeypatch) -> None:
    """With meta as the default device, a tensor that does not name its device would land there and fail."""

    def on_cpu(function):
        def call(*arguments):  # torchvision's own function is no concern here
            with torch.device("cpu"):
                return function(*arguments)

        return call

    head, maps, targets = build(), features(), [objects(4), objects(0)]
    monkeypatch.setattr(box, "batched_nms", on_cpu(box.batched_nms))
    monkeypatch.setattr(rpn, "batched_nms", on_cpu(rpn.batched_nms))
    with torch.device("meta"):
        results = detect(head, maps)
        losses = losses_of(head, targets, maps)
    assert all(tensor.device.type == "cpu" for result in results for tensor in result.values())
    assert all(loss.device.type == "cpu" for loss in losses.values())
    assert sum(len(result["boxes"]) for result in results) > 0


def test_images_of_a_batch_do_not_mix() -> None:
    head, maps = build(), features(3)
    sizes = [SIZE, (64, 100), (96, 50)]
    together = detect(head, maps, sizes)
    for image, size in enumerate(sizes):
        alone = detect(head, [level[image, None] for level in maps], [size])[0]
        # Rounding may swap detections of nearly equal scores at the end of the list.
        torch.testing.assert_close(together[image]["scores"], alone["scores"], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together[image]["boxes"][:5], alone["boxes"][:5], atol=1e-3, rtol=1e-4)
        assert torch.equal(together[image]["labels"][:5], alone["labels"][:5])


def test_copies_and_pickles() -> None:
    head, maps = build(), features(1)
    expected = detect(head, maps, [SIZE])[0]
    for copied in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        actual = detect(copied, maps, [SIZE])[0]
        assert all(torch.equal(actual[key], expected[key]) for key in expected)


def test_a_few_steps_on_one_image_lower_the_loss() -> None:
    head, maps, targets = build(roi_batch=64), features(1), [objects(3, side=(20, 50))]
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    history = []
    for _ in range(12):
        loss = sum(losses_of(head, targets, maps).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert sum(history[-3:]) < 0.6 * sum(history[:3]), history


@pytest.mark.parametrize("rank", [0, 4, None])
def test_masks_are_made_for_wanted_detections_only(rank: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask takes a byte for each pixel of its image, so those that nobody wants are never pasted."""
    head, maps, originals = build(), features(), [(48, 64), (180, 200)]
    every = detect(head, maps, SIZES, originals)
    least = 1.0 if rank is None else float(every[0]["scores"][rank])
    pasted: list[int] = []

    def paste(probabilities: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        pasted.append(len(boxes))
        return paste_masks(probabilities, boxes, size)

    monkeypatch.setattr("piip.heads.mask_rcnn.head.paste_masks", paste)
    wanted_batch = replace(batch(SIZES, originals), least_score=least)
    wanted = head.predict(lambda _: maps, wanted_batch)
    assert pasted == [int((result["scores"] >= least).sum()) for result in every]
    for found, whole in zip(wanted, every, strict=True):
        for name, value in found.items():
            torch.testing.assert_close(value, whole[name][: len(value)])


def test_as_many_detections_as_a_batch_wants() -> None:
    head = build(proposals=4, proposals_per_level_test=4, detections=2, score_threshold=0.0, masks=False)
    maps, images = features(), torch.zeros(len(SIZES), 3, *SIZE)
    own = head.predict(lambda _: maps, Batch(images, list(SIZES)))
    more = head.predict(lambda _: maps, Batch(images, list(SIZES), detections=30))
    assert [len(found["boxes"]) for found in own] == [2, 2]
    assert [len(found["boxes"]) for found in more] == [30, 30]
    wanted = build(**head.config.keeping(30).model_dump())
    wanted.load_state_dict(head.state_dict())
    for found, expected in zip(more, wanted.predict(lambda _: maps, Batch(images, list(SIZES))), strict=True):
        assert torch.equal(found["boxes"], expected["boxes"])
    assert head.config.keeping(30).proposals == head.config.keeping(30).proposals_per_level_test == 60
    assert head.config.most_objects == 2


def looking(head: MaskRCNNHead) -> list[list[int]]:
    """For each time that the box head runs, how many proposals of each image it decides on."""
    counts: list[list[int]] = []
    head.box.register_forward_pre_hook(lambda _, given: counts.append([len(boxes) for boxes in given[1]]))
    return counts


def empty_and_crowded(**settings) -> tuple[MaskRCNNHead, list[Tensor]]:
    """A head and maps of two images: nothing is found in the first, a lot in the second."""
    head = build(**{"detections": 2, "masks": False} | settings)
    with torch.no_grad():
        head.box.scores.weight *= 1000
        head.box.scores.bias[-1] = 5.0  # a place that says nothing is background
    maps = features()
    for level in maps:
        level[0] = 0
    return head, maps


def test_the_crowded_image_of_a_batch_is_looked_at_again() -> None:
    head, maps = empty_and_crowded(proposals=8, proposals_per_level_test=8)
    images, counts = torch.zeros(len(SIZES), 3, *SIZE), looking(head)
    nothing, many = head.predict(lambda _: maps, Batch(images, list(SIZES), most_detections=30))
    assert len(nothing["boxes"]) == 0
    assert len(many["boxes"]) == 30
    assert counts == [[8, 8], [16], [32], [60]]
    wanted = head.predict(lambda _: maps, Batch(images, list(SIZES), detections=30))
    for found, expected in zip((nothing, many), wanted, strict=True):
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("least", [0.0, 0.9])
def test_no_image_is_looked_at_again_while_its_proposals_are_enough(least: float) -> None:
    head, maps = empty_and_crowded()
    batch, counts = replace(Batch(torch.zeros(len(SIZES), 3, *SIZE), list(SIZES)), least_score=least), looking(head)
    _, own = head.predict(lambda _: maps, batch)
    _, many = head.predict(lambda _: maps, replace(batch, most_detections=30))
    assert len(own["boxes"]) == 2
    assert 2 < len(many["boxes"]) <= 30
    assert counts == [[60, 60]] * 2
    assert torch.equal(own["boxes"], many["boxes"][:2])
    (_, few) = head.predict(lambda _: maps, replace(batch, most_detections=1))
    assert torch.equal(own["boxes"], few["boxes"])  # whoever asks for so few takes the best of all tiles
