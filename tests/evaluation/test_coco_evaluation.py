"""COCO numbers: against values computed by hand, and untouched by order, ids and missing things."""

import io
import json
import random
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from piip.data.detection.annotations import CocoData, CocoImage, CocoObject
from piip.data.detection.coco import read_coco
from piip.data.detection.dataset import rasterise_objects
from piip.evaluation.coco import NUMBERS, OFFICIAL, detections_to_coco, evaluate, evaluate_results, to_coco_results
from piip.structures import Prediction

HEIGHT, WIDTH = 120, 150


def an_object(box, label=0, crowd=False) -> CocoObject:
    x1, y1, x2, y2 = box
    outline = [[x1, y1, x2, y1, x2, y2, x1, y2]]
    return CocoObject(box, label, outline, crowd, annotation_id=0, area=(x2 - x1) * (y2 - y1))


def an_image(image_id: int, objects: list[CocoObject]) -> CocoImage:
    return CocoImage(image_id, Path(f"{image_id}.jpg"), (HEIGHT, WIDTH), True, tuple(objects))


def data_of(*images: CocoImage, classes=("cat", "dog"), category_ids=(1, 2), has_masks=False) -> CocoData:
    return CocoData(list(images), classes, category_ids, has_masks)


def predicted(*found, masks: bool = False) -> Prediction:
    """`found`: (box, score) or (box, score, label); masks are the full boxes."""
    boxes = torch.tensor([one[0] for one in found], dtype=torch.float32).reshape(-1, 4)
    scores = torch.tensor([one[1] for one in found], dtype=torch.float32)
    labels = torch.tensor([one[2] if len(one) > 2 else 0 for one in found], dtype=torch.int64)
    prediction = {"boxes": boxes, "scores": scores, "labels": labels}
    if masks:
        prediction["masks"] = torch.zeros(len(found), HEIGHT, WIDTH, dtype=torch.bool)
        for mask, box in zip(prediction["masks"], boxes.round().long().tolist(), strict=True):
            mask[box[1] : box[3], box[0] : box[2]] = True
    return prediction


A, B, C = (10, 10, 50, 50), (60, 60, 110, 100), (20, 30, 90, 80)
ELSEWHERE = (100, 5, 140, 30)


def three_objects(**changes) -> CocoData:
    """Two objects in the first image, one in the second, all of class 0."""
    return replace(data_of(an_image(1, [an_object(A), an_object(B)]), an_image(2, [an_object(C)])), **changes)


def as_if_perfect(data: CocoData, masks: bool = False) -> list[Prediction]:
    found = [[(item.box, 0.9 - 0.1 * i, item.label) for i, item in enumerate(image.objects)] for image in data.images]
    return [predicted(*one, masks=masks) for one in found]


def test_perfect_predictions_score_one():
    data = three_objects(has_masks=True)
    metrics = evaluate(as_if_perfect(data, masks=True), data)
    for part in (metrics.box, metrics.mask):
        assert part.ap == 1.0
        assert {name for name, value in part.numbers.items() if value is None} == {"APs", "APl", "ARs", "ARl"}
        assert part.numbers["AR1"] == pytest.approx(2 / 3)  # one detection per image finds two of three
        assert part.per_class == (1.0, None)


def test_a_case_computed_by_hand():
    # By score: A found, a false alarm, C found; B is missed. Precision 1 up to recall 1/3, then at best 2/3 up to
    # recall 2/3, then 0. Of the 101 recalls 0, .01, ..., 1 that is 34 times 1, 33 times 2/3, 34 times 0.
    predictions = [predicted((A, 0.9), (ELSEWHERE, 0.8)), predicted((C, 0.7))]
    metrics = evaluate(predictions, three_objects())
    assert metrics.box.ap == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert metrics.box.numbers["AP50"] == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert metrics.box.numbers["AR100"] == pytest.approx(2 / 3)
    assert metrics.box.precision.shape == (10, 101, 2)
    assert metrics.box.precision[0, [0, 33, 34, 66, 67], 0] == pytest.approx([1, 1, 2 / 3, 2 / 3, 0])


def test_more_than_a_hundred_detections_count_in_the_official_numbers():
    """The object comes after 120 false alarms: COCO's 100 miss it, the official 1000 have it at precision 1/121."""
    data = data_of(an_image(1, [an_object(A)]))
    alarms = [(ELSEWHERE, 0.9)] * 120
    numbers = evaluate([predicted(*alarms, (A, 0.5))], data).box.numbers
    assert list(numbers) == [*NUMBERS, *OFFICIAL]
    assert (numbers["AP"], numbers["AP50"], numbers["AP75"], numbers["APm"]) == (0.0, 0.0, 0.0, 0.0)
    for name in ("AP50@1000", "AP75@1000"):
        assert numbers[name] == pytest.approx(1 / 121), name
    assert numbers["APm@1000"] == 1.0  # the false alarms are small
    assert numbers["APs@1000"] is numbers["APl@1000"] is None
    assert numbers["AR@1000"] == numbers["ARm@1000"] == 1.0
    assert numbers["AP@1000"] == pytest.approx(1 / 121)
    few = evaluate([predicted(*alarms[:99], (A, 0.5))], data)
    assert few.box.numbers["AP50"] == pytest.approx(1 / 100)
    assert list(few.box.numbers) == list(NUMBERS)


def test_hundreds_of_objects_are_all_counted_beside_coco_s_hundred():
    """A grid of 150 objects, all found: COCO's recall ends at 100 of 150."""
    boxes = [(x, y, x + 7, y + 6) for y in range(0, 100, 10) for x in range(0, 150, 10)]
    data = data_of(an_image(1, [an_object(box) for box in boxes]))
    scores = np.linspace(0.9, 0.5, len(boxes))
    metrics = evaluate([predicted(*zip(boxes, scores, strict=True))], data)
    numbers = metrics.box.numbers
    assert numbers["AR100"] == pytest.approx(100 / 150)
    assert numbers["AP"] == pytest.approx(67 / 101)
    assert numbers["AP@1000"] == numbers["AP50@1000"] == numbers["AR@1000"] == numbers["APs@1000"] == 1.0
    assert metrics.box.per_class == (1.0, None)
    few = evaluate([predicted(*zip(boxes[:50], scores[:50], strict=True))], data)
    assert few.box.numbers["AP@1000"] == few.box.numbers["AP"] == pytest.approx(34 / 101)  # the data alone are dense


def test_more_than_a_thousand_of_a_class_are_counted_up_to_the_next():
    data = data_of(an_image(1, [an_object(A)] * 1001))
    assert "AP@2000" in evaluate([predicted((A, 0.9))], data).box.numbers


def test_overlap_counts_by_threshold():
    # 82 of 100 rows covered: IoU 0.82 passes .50, .55, ..., .80, seven of ten thresholds
    data = data_of(an_image(1, [an_object((0, 0, 100, 100))]))
    metrics = evaluate([predicted(((0, 0, 100, 82), 0.9))], data)
    assert metrics.box.ap == pytest.approx(0.7)
    assert metrics.box.numbers["AP75"] == 1.0
    assert metrics.box.numbers["APl"] == pytest.approx(0.7)
    assert metrics.box.numbers["APm"] is None


def test_the_mean_is_over_classes_with_objects():
    data = data_of(
        an_image(1, [an_object(A, 0), an_object(B, 1)]), classes=("cat", "dog", "cow"), category_ids=(1, 2, 3)
    )
    metrics = evaluate([predicted((A, 0.9, 0), (ELSEWHERE, 0.9, 2))], data)
    assert metrics.box.per_class == (1.0, 0.0, None)
    assert metrics.box.ap == 0.5
    assert metrics.objects == (1, 1, 0)


def test_a_detection_on_a_crowd_is_no_false_alarm():
    objects = [an_object(A), an_object((60, 0, 150, 110), crowd=True)]
    predictions = [predicted(((70, 20, 100, 60), 0.95), (A, 0.5))]
    crowded = evaluate(predictions, data_of(an_image(1, objects)))
    alone = evaluate(predictions, data_of(an_image(1, objects[:1])))
    assert crowded.box.ap == 1.0
    assert crowded.objects == (1, 0)
    assert alone.box.ap == pytest.approx(0.5)


def test_a_crowd_without_an_outline_counts_as_its_box():
    crowd = replace(an_object((60, 0, 150, 110), crowd=True), segmentation=None)
    data = data_of(an_image(1, [an_object(A), crowd]), has_masks=True)
    metrics = evaluate([predicted(((70, 20, 100, 60), 0.95), (A, 0.5), masks=True)], data)
    assert metrics.mask.ap == metrics.box.ap == 1.0


def test_mask_sizes_go_by_the_masks_not_by_the_boxes():
    # A false alarm of 100 pixels in a box of 3600: it must count among the small masks.
    data = data_of(an_image(1, [an_object((0, 0, 10, 10))]), has_masks=True)
    prediction = predicted(((60, 30, 120, 90), 0.9), ((0, 0, 10, 10), 0.5), masks=True)
    prediction["masks"][0] = False
    prediction["masks"][0, 30:40, 60:70] = True
    metrics = evaluate([prediction], data)
    assert metrics.mask.numbers["APs"] == pytest.approx(0.5)
    assert metrics.box.numbers["APs"] == 1.0


def test_no_predictions_score_zero():
    metrics = evaluate([predicted(masks=True)] * 2, three_objects(has_masks=True))
    assert metrics.box.ap == metrics.mask.ap == 0.0
    assert metrics.box.numbers["APl"] is None


def test_images_without_objects_cost_precision_only():
    data = three_objects(images=[*three_objects().images, an_image(3, [])])
    assert evaluate([*as_if_perfect(data)[:2], predicted()], data).box.ap == 1.0
    assert evaluate([*as_if_perfect(data)[:2], predicted((A, 0.99))], data).box.ap < 1.0


def test_no_objects_at_all_leave_everything_undefined():
    data = data_of(an_image(1, []))
    metrics = evaluate([predicted((A, 0.9))], data)
    assert set(metrics.box.numbers.values()) == {None}
    assert metrics.scalars() == {}
    assert json.loads(json.dumps(metrics.to_dict()))["box"]["AP"] is None


@pytest.mark.parametrize(
    ("image_ids", "category_ids"),
    [((900000, 17), (90, 3)), ((0, 1), (0, 1)), ((-4, 2**62), (2**40, -1)), ((2**63 + 1, 2**64), (7, 6))],
)
def test_the_files_own_ids_change_nothing(image_ids, category_ids):
    data = three_objects(has_masks=True)
    predictions = [predicted((A, 0.9), (ELSEWHERE, 0.8), masks=True), predicted((C, 0.7), (A, 0.1, 1), masks=True)]
    renamed = [replace(image, id=image_id) for image, image_id in zip(data.images, image_ids, strict=True)]
    other = replace(data, images=renamed, category_ids=category_ids)
    ours, theirs = evaluate(predictions, data), evaluate(predictions, other)
    assert theirs.to_dict() == ours.to_dict()
    results = to_coco_results(predictions, other)
    assert {result["image_id"] for result in results} == set(image_ids)
    assert {result["category_id"] for result in results} == set(category_ids)


def random_case(seed: int, images: int = 12) -> tuple[CocoData, list[Prediction]]:
    rng = np.random.default_rng(seed)
    data, predictions = [], []
    for i in range(images):
        corners = rng.uniform((0, 0, 8, 8), (100, 80, 50, 40), (rng.integers(0, 5), 4)).round(1)
        objects = [an_object((x, y, x + w, y + h), int(rng.integers(2))) for x, y, w, h in corners.tolist()]
        data.append(an_image(7 * i + 3, objects))
        moved = [tuple(np.array(item.box) + rng.normal(0, 3, 4)) for item in objects]
        # few distinct scores, so that ties between images occur
        found = [(box, rng.integers(1, 4) / 4, int(rng.integers(2))) for box in moved + moved[:1]]
        predictions.append(predicted(*found, masks=True))
    return data_of(*data, has_masks=True), predictions


def test_the_order_of_the_images_changes_nothing():
    data, predictions = random_case(0)
    expected = evaluate(predictions, data).scalars()
    assert 0.0 < expected["box_AP"] < 1.0
    order = list(range(len(predictions)))
    for seed in range(3):
        random.Random(seed).shuffle(order)
        shuffled = replace(data, images=[data.images[i] for i in order])
        assert evaluate([predictions[i] for i in order], shuffled).scalars() == pytest.approx(expected, abs=1e-12)


# pycocotools 2.0.11 on `random_case(1)`, in the order of NUMBERS
BOX = (0.188378334, 0.373452793, 0.193969397, 0.129716364, 0.449587459, None,
       0.122619048, 0.326190476, 0.326190476, 0.233088235, 0.5625, None)  # fmt: skip
MASK = (0.199962544, 0.373452793, 0.206345635, 0.14496864, 0.449587459, None,
        0.125, 0.332738095, 0.332738095, 0.242279412, 0.5625, None)  # fmt: skip


def test_the_numbers_are_those_of_pycocotools():
    data, predictions = random_case(1)
    metrics = evaluate(predictions, data)
    assert metrics.box.numbers == pytest.approx(dict(zip(NUMBERS, BOX, strict=True)), abs=1e-8)
    assert metrics.mask.numbers == pytest.approx(dict(zip(NUMBERS, MASK, strict=True)), abs=1e-8)


def test_pycocotools_agrees_on_real_annotations(coco100):
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    file = coco100 / "annotations" / "instances_val2017.json"
    data, _ = read_coco(file, coco100 / "val2017")
    results = to_coco_results(disturbed(data), data)
    metrics, truth = evaluate_results(results, data, masks=True), COCO(file)
    for kind, part, unused in (("bbox", metrics.box, "segmentation"), ("segm", metrics.mask, "bbox")):
        given = [{key: value for key, value in result.items() if key != unused} for result in results]
        run = COCOeval(truth, truth.loadRes(given), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
        assert 0.1 < run.stats[0] < 0.9
        ours = [-1.0 if value is None else value for value in part.numbers.values()]
        assert ours == pytest.approx(run.stats.tolist(), abs=1e-12)


def disturbed(data: CocoData) -> Iterator[Prediction]:
    """Every object, crowds too, up to twice: moved a little, some with another class."""
    rng = np.random.default_rng(0)
    for image in data.images:
        kept = [item for item in image.objects for _ in range(rng.integers(0, 3))]
        sides = [(item.box[2] - item.box[0], item.box[3] - item.box[1]) * 2 for item in kept]
        boxes = np.array([item.box for item in kept]).reshape(-1, 4)
        boxes += 0.08 * rng.normal(size=boxes.shape) * np.array(sides).reshape(-1, 4)
        labels = [item.label if rng.random() < 0.8 else int(rng.integers(len(data.classes))) for item in kept]
        masks = rasterise_objects(kept, image.size, list(range(len(kept))))
        yield {
            "boxes": torch.from_numpy(boxes).float(),
            "scores": torch.from_numpy(rng.random(len(kept)).round(2)).float(),
            "labels": torch.tensor(labels, dtype=torch.int64),
            "masks": masks.roll((3, -2), (1, 2)).bool(),
        }


def test_predictions_are_read_one_by_one_and_let_go():
    data, predictions = random_case(0)
    expected = evaluate(predictions, data).scalars()
    masks: list[weakref.ref] = []
    alive = []

    def one_by_one():
        while predictions:
            prediction = predictions.pop(0)
            masks.append(weakref.ref(prediction["masks"]))
            alive.append(sum(mask() is not None for mask in masks))
            yield prediction
            del prediction

    assert evaluate(one_by_one(), data).scalars() == expected
    assert max(alive) <= 2  # the new one and the one before it


def test_masks_are_scored_only_where_both_sides_have_them():
    data = three_objects()
    assert evaluate(as_if_perfect(data, masks=True), data).mask is None
    data = three_objects(has_masks=True)
    assert evaluate(as_if_perfect(data, masks=False), data).mask is None
    assert evaluate(as_if_perfect(data, masks=True), data).mask is not None


def test_results_are_left_as_they_are_and_give_the_same_numbers():
    data, predictions = random_case(2)
    results = to_coco_results(predictions, data)
    before = json.dumps(results)
    metrics = evaluate_results(results, data, masks=True)
    assert json.dumps(results) == before
    assert metrics.scalars() == evaluate(predictions, data).scalars()


def test_result_format():
    first, second = detections_to_coco(predicted(((1.5, 2, 11.5, 22), 0.5), (A, 0.25, 1), masks=True), 42, (3, 90))
    assert first["image_id"] == 42
    assert first["category_id"] == 3
    assert first["bbox"] == [1.5, 2.0, 10.0, 20.0]
    assert first["score"] == 0.5
    assert first["segmentation"]["size"] == [HEIGHT, WIDTH]
    assert isinstance(first["segmentation"]["counts"], str)
    assert second["category_id"] == 90


def test_predictions_are_left_as_they_are():
    prediction = predicted((A, 0.9))
    prediction["boxes"] = prediction["boxes"].double()
    detections_to_coco(prediction, 1, (1, 2))
    assert prediction["boxes"].tolist() == [list(A)]


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_predictions_is_refused(count):
    with pytest.raises(ValueError, match="predictions"):
        evaluate([predicted()] * count, three_objects())


def test_a_label_beyond_the_classes_is_refused():
    with pytest.raises(ValueError, match=r"image 1: labels from 2 to 2, but there are 2 classes"):
        evaluate([predicted((A, 0.9, 2)), predicted()], three_objects())


@pytest.mark.parametrize("bad", [((float("nan"), 0, 1, 1), 0.5), ((0, 0, 1, 1), float("nan"))])
def test_numbers_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="image 2: the prediction has a box or score that is not a finite number"):
        evaluate([predicted(), predicted(bad)], three_objects())


def test_masks_of_another_size_are_refused():
    prediction = predicted((A, 0.9)) | {"masks": torch.zeros(1, 10, 10, dtype=torch.bool)}
    with pytest.raises(ValueError, match=r"image 1: masks of \(10, 10\) pixels on an image of \(120, 150\)"):
        evaluate([prediction, predicted()], three_objects(has_masks=True))


@pytest.mark.parametrize("change", [{"image_id": 9}, {"category_id": 9}])
def test_results_of_other_data_are_refused(change):
    data = three_objects()
    results = to_coco_results(as_if_perfect(data), data)
    results[0] |= change
    with pytest.raises(ValueError, match=r"no image .* or category"):
        evaluate_results(results, data, masks=False)


def test_metrics_file_and_names(tmp_path):
    data = three_objects(has_masks=True)
    metrics = evaluate(as_if_perfect(data, masks=True), data)
    content = json.loads(metrics.save(tmp_path / "new" / "metrics.json").read_text())
    assert tuple(content["box"]) == tuple(content["mask"]) == NUMBERS
    assert content["classes"][1] == {"class": "dog", "objects": 0, "box_AP": None, "mask_AP": None}
    assert metrics.scalars()["mask_AP50"] == 1.0
    assert "box_APs" not in metrics.scalars()


def test_names_of_classes_are_no_markup():
    metrics = evaluate([predicted(), predicted()], replace(three_objects(), classes=("[red]cat", "dog")))
    console = Console(width=150, file=io.StringIO())
    console.print(metrics.class_table())
    assert "[red]cat" in console.file.getvalue()


def test_tables_show_percent_and_a_dash_for_what_is_undefined():
    metrics = evaluate([predicted((A, 0.9), (ELSEWHERE, 0.8)), predicted((C, 0.7))], three_objects())
    console = Console(width=150, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(metrics.summary_table())
    console.print(metrics.class_table())
    lines = console.export_text().splitlines()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
    numbers = {row[0]: row[1] for row in cells if row and row[0] in NUMBERS}
    assert tuple(numbers) == NUMBERS
    assert numbers["AP"] == "55.4"
    assert list(numbers.values()).count("-") == 4
    dog = next(line for line in lines if "dog" in line)
    assert [cell.strip() for cell in dog.split("│")[1:-1]] == ["dog", "0", "-"]
