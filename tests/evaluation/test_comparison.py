"""Intervals and comparisons: numbers as faster-coco-eval's, draws as evaluations of drawn images, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests import tiny
from tests.evaluation.test_thresholds import an_image, data_of, found, random_case
from tests.test_cli_predict import run

import piip
from piip.data.detection.annotations import CocoData, CocoImage
from piip.data.report import DataError
from piip.evaluation import bootstrap
from piip.evaluation.coco import evaluate_results
from piip.evaluation.comparison import Comparison, compared, score_of_labels, score_of_objects
from piip.evaluation.counting import count
from piip.evaluation.judging import Judging
from piip.evaluation.saved import read_results
from piip.evaluation.segmentation import evaluate as evaluate_labels
from piip.model import PIIPModel
from piip.prediction.coco import CocoResult
from piip.weights.files import save_model


def of_sizes(seed: int) -> tuple[CocoData, list[CocoResult]]:
    """A random case with objects and results of many sizes, crowds, and masks of rectangles, some smaller."""
    chance = np.random.default_rng(seed)
    data, results = random_case(seed)
    images = []
    for image in data.images:
        objects = []
        for item in image.objects:
            x, y, side = item.box[0], item.box[1], float(chance.choice((8, 20, 30)))
            box = (x, y, x + side, y + side)
            outline = [[x, y, x + side, y, x + side, y + side / 2, x, y + side / 2]]
            objects.append(replace(item, box=box, segmentation=outline, area=side * side / 2))
        images.append(replace(image, objects=tuple(objects)))
    for result in results:
        side = float(chance.choice((8, 20, 30)))
        result["bbox"] = [*result["bbox"][:2], side, side * float(chance.choice((0.6, 1)))]
    with_masks = replace(data, images=images, has_masks=True)
    for result in results:
        x, y, width, height = result["bbox"]
        result["segmentation"] = [[x, y, x + width, y, x + width, y + height / 2, x, y + height / 2]]
    return with_masks, results


def runs_of(results: list[CocoResult]) -> list[CocoResult]:
    """With run lengths for outlines."""
    from faster_coco_eval.core import mask

    return [{**one, "segmentation": mask.merge(mask.frPyObjects(one["segmentation"], 200, 200))} for one in results]


def as_number(value: float | None) -> float:
    return float("nan") if value is None else value


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_image_once_gives_faster_coco_eval_s_numbers(seed: int, kind: str) -> None:
    data, results = of_sizes(seed)
    counting = count(runs_of(results), data, kind, Judging((0, 10, 24)))
    drawn = counting.drawn(np.ones((1, len(data.images)), dtype=int))
    numbers = counting.averages.numbers
    for name, (value,) in drawn.numbers.items():
        assert value == pytest.approx(as_number(numbers[name]), abs=1e-12, nan_ok=True), name
    assert drawn.classes[0] == pytest.approx(np.array(counting.averages.per_class, dtype=float), abs=1e-12)
    for (value,), one in zip(drawn.sizes, counting.averages.sizes, strict=True):
        assert value == pytest.approx(as_number(one.ap), abs=1e-12, nan_ok=True)


def test_the_recalls_that_are_reached_to_the_last_bit() -> None:
    for objects in (1, 3, 7, 25, 50, 100, 200, 300, 999):
        found = np.arange(objects + 1)[:, None]
        expected = (found / objects >= bootstrap.RECALLS).sum(axis=1)
        assert np.array_equal(bootstrap._recalls_reached(found, np.array([objects]))[:, 0], expected)
    assert bootstrap.NOT_REACHED.any(), "or nothing was to be minded"


def test_draws_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    data, results = of_sizes(3)
    counting = count(runs_of(results), data, "bbox", Judging())
    times = Judging(draws=25).times(len(data.images))
    together = counting.drawn(times)
    monkeypatch.setattr(bootstrap, "AT_ONCE", 60)
    apart = counting.drawn(times)
    for name, values in together.numbers.items():
        np.testing.assert_allclose(apart.numbers[name], values, rtol=0, atol=1e-14)


def repeated(data: CocoData, results: list[CocoResult], times: np.ndarray) -> tuple[CocoData, list[CocoResult]]:
    """The images as often as they are drawn, under new ids."""
    images: list[CocoImage] = []
    theirs: list[CocoResult] = []
    for image, often in zip(data.images, times, strict=True):
        for _ in range(often):
            number = len(images) + 1
            images.append(replace(image, id=number))
            theirs += [{**one, "image_id": number} for one in results if one["image_id"] == image.id]
    return replace(data, images=images), theirs


def test_a_draw_is_an_evaluation_of_the_drawn_images() -> None:
    data, results = random_case(3)
    results = [{**one, "score": 0.9 - 0.001 * number} for number, one in enumerate(results)]  # no ties
    times = Judging(draws=4, seed=1).times(len(data.images))
    drawn = count(results, data, "bbox", Judging()).drawn(times)
    for row, often in enumerate(times):
        again, theirs = repeated(data, results, often)
        numbers = evaluate_results(theirs, again, masks=False).box.numbers
        assert drawn.numbers["AP"][row] == pytest.approx(numbers["AP"], abs=1e-12)
        assert drawn.numbers["AP50"][row] == pytest.approx(numbers["AP50"], abs=1e-12)


def test_more_detections_than_coco_counts_have_draws_too() -> None:
    boxes = [(x, y) for y in range(0, 180, 10) for x in range(0, 180, 20)]
    data = data_of(an_image(1, *((x, y, 0, False) for x, y in boxes)), an_image(2, (0, 0, 0, False)))
    results = [found(1, x, y, 0.9 - number / 1000) for number, (x, y) in enumerate(boxes)]
    counting = count(results, data, "bbox", Judging())
    drawn = counting.drawn(np.ones((1, 2), dtype=int))
    for name in ("AP", "AP@1000", "AP75@1000"):
        assert drawn.numbers[name][0] == pytest.approx(counting.averages.numbers[name], abs=1e-12)
    assert drawn.numbers["AP@1000"][0] > drawn.numbers["AP"][0]


def halves(judging: Judging) -> tuple[Comparison, Comparison]:
    """Of twenty images with an object each, found in ten: against itself, and against all found."""
    data = data_of(*(an_image(number, (0, 0, 0, False)) for number in range(1, 21)))
    half = score_of_objects([found(number, 0, 0, 0.9) for number in range(1, 11)], data, judging, masks=False)
    every = score_of_objects([found(number, 0, 0, 0.9) for number in range(1, 21)], data, judging, masks=False)
    names, size = ("half", "every"), (20, judging.draws)
    return compared(half, half, names, *size), compared(half, every, names, *size)


def test_intervals_are_those_of_drawing_images_again() -> None:
    """AP of a draw is the share of the images in it in which the object is found."""
    same, better = halves(Judging(draws=2000))
    chance = np.random.default_rng(0).binomial(20, 0.5, 20000) / 20  # recall, with precision 1 up to it
    row = same.tables["box"]["AP"]
    assert row.first_interval == pytest.approx(np.quantile(chance, (0.025, 0.975)), abs=1 / 101)  # 101 recalls
    assert row.difference_interval == (0, 0)
    assert not row.beyond_chance
    assert "may be chance" in same.verdict
    row = better.tables["box"]["AP"]
    assert row.second_interval == (1, 1)
    assert row.difference_interval is not None
    assert row.difference_interval[0] > 0.2
    assert row.second_is_better == 1
    assert better.verdict.startswith("every is better")
    assert json.loads(json.dumps(better.to_dict()))["tables"]["box AP by class"]["cat"]["difference"] > 0.4


def test_the_same_seed_draws_the_same() -> None:
    assert halves(Judging(draws=50))[1] == halves(Judging(draws=50))[1]
    assert halves(Judging(draws=50, seed=1))[1] != halves(Judging(draws=50))[1]


def test_label_maps_and_classes_have_intervals() -> None:
    chance = np.random.default_rng(0)
    pairs = [(chance.integers(0, 2, (4, 4)), chance.integers(0, 3, (4, 4))) for _ in range(6)]
    metrics = evaluate_labels(pairs, ("a", "b", "c"))
    numbers, iou = metrics.drawn(np.ones((1, 6), dtype=int))
    for name, value in metrics.scalars().items():
        assert numbers[name][0] == pytest.approx(value)
    assert iou[0] == pytest.approx(np.array(metrics.iou, dtype=float))
    twice, _ = metrics.drawn(np.array([[2, 0, 1, 0, 0, 0]]))
    same = evaluate_labels([pairs[0], pairs[0], pairs[2]], ("a", "b", "c"))
    assert twice["mIoU"][0] == pytest.approx(same.mean_iou)
    written = metrics.with_intervals(Judging(draws=100)).to_dict()["intervals"]
    assert written["mIoU"][0] < metrics.scalars()["mIoU"] < written["mIoU"][1]
    score = score_of_labels(metrics, Judging(draws=20))
    assert compared(score, score, ("one", "other"), 6, 20).tables["IoU by class"]["a"].difference == 0
    with pytest.raises(ValueError, match="area limits are for detection"):
        metrics.with_intervals(Judging((0, 16)))


def test_classifiers_have_intervals() -> None:
    from piip.data.classification.images import ClassData, ClassImage
    from piip.evaluation.classification import evaluate

    labels, guessed = [0, 0, 1, 1, 1], [0, 1, 1, 1, 0]
    images = [ClassImage(Path(f"{number}.jpg"), label) for number, label in enumerate(labels)]
    metrics = evaluate(
        ({"probs": torch.eye(2)[guess]} for guess in guessed), ClassData(Path("here"), tuple(images), ("a", "b"))
    )
    numbers, classes = metrics.drawn(np.array([[1, 1, 1, 1, 1], [0, 2, 1, 1, 1]]))
    assert numbers["top1"] == pytest.approx([0.6, 0.4])
    assert classes == pytest.approx(np.array([[1 / 2, 2 / 3], [0, 2 / 3]]))
    assert numbers["mean_class_accuracy"] == pytest.approx([7 / 12, 1 / 3])
    low, high = metrics.with_intervals(Judging(draws=200)).intervals["top1"]
    assert low < 0.6 < high


def test_own_sizes() -> None:
    """Objects of 8, 20 and 30 pixels: those of 20 are all found, those of 30 not."""
    data, _ = of_sizes(0)
    image = replace(data.images[0], objects=tuple(
        replace(data.images[0].objects[0], box=(x, 0, x + side, side), area=side**2, label=0, crowd=False)
        for x, side in ((0, 8), (50, 20), (100, 30))
    ))  # fmt: skip
    one = replace(data, images=[image], has_masks=False)
    small = {"image_id": image.id, "category_id": 7, "bbox": [0, 0, 8, 5], "score": 0.9}
    middle = {"image_id": image.id, "category_id": 7, "bbox": [50, 0, 20, 20], "score": 0.8}
    metrics = evaluate_results([small, middle], one, masks=False, judging=Judging((0, 10, 24), draws=20))
    sizes = metrics.box.sizes
    assert [str(size.sides) for size in sizes] == ["0 to 10", "10 to 24", "24 and more"]
    assert [size.objects for size in sizes] == [(1, 0)] * 3
    assert [size.ar for size in sizes] == pytest.approx([0.3, 1, 0])  # an overlap of 0.625 passes .50, .55, .60
    assert [size.per_class for size in sizes] == [(pytest.approx(0.3), None), (1.0, None), (0.0, None)]
    written = json.loads(json.dumps(metrics.to_dict()))
    assert [(size["from"], size["to"]) for size in written["sizes"]["box"]] == [(0, 10), (10, 24), (24, None)]
    assert written["sizes"]["box"][1]["classes"][0] == {"class": "cat", "objects": 1, "AP": 1.0, "AR": 1.0}
    assert metrics.size_tables()[0].row_count == 4
    plain = evaluate_results([small, middle], one, masks=False)
    assert plain.box.numbers == metrics.box.numbers
    for wrong in ((16, 8), (), (-1, 4), (0, float("inf"))):
        with pytest.raises(ValueError, match="use sides in pixels that rise"):
            Judging(wrong)


def test_files_of_other_images_or_of_another_kind_are_refused(tmp_path: Path) -> None:
    data = data_of(an_image(1, (0, 0, 0, False)))
    path = tmp_path / "predictions.json"
    for content, message in (
        ([{"objects": []}], "no COCO results"),
        ([found(2, 0, 0, 0.9)], "results on image 2"),
        ([found(1, 0, 0, 0.9, category=8)], "none of its category ids"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(DataError, match=message):
            read_results(path, data)
    path.write_text(json.dumps([found(1, 0, 0, 0.9), found(1, 0, 0, 0.9, category=8)]))
    assert read_results(path, data) == [found(1, 0, 0, 0.9)]


def make_data(folder: Path) -> None:
    """Two images, with a cat in the first and a dog in the second."""
    data = data_of(an_image(1, (0, 0, 0, False)), an_image(2, (0, 0, 1, False)))
    (folder / "val").mkdir(parents=True)
    (folder / "annotations").mkdir()
    for name in ("1.jpg", "2.jpg"):
        Image.new("RGB", (200, 200)).save(folder / "val" / name)
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(data.to_coco()))


def test_the_command(tmp_path: Path) -> None:
    make_data(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps([found(1, 0, 0, 0.9)]))
    (tmp_path / "b.json").write_text(json.dumps([found(1, 0, 0, 0.9), found(2, 0, 0, 0.9, category=9)]))
    both = ("compare", tmp_path / "a.json", tmp_path / "b.json")
    more = ("--data", tmp_path, "--draws", 40, "--areas", "0,16", "--output", tmp_path / "c.json")
    done = run(*both, *more)
    assert done.exit_code == 0, done.exception
    written = json.loads((tmp_path / "c.json").read_text())
    row = written["tables"]["box"]["AP"]
    assert (row["first"], row["second"]) == (pytest.approx(0.5), pytest.approx(1.0))
    assert written["tables"]["box AP by side"]["16 and more pixels"]["difference"] == pytest.approx(0.5)
    assert written["verdict"].replace("\n", " ")[:20] in done.output.replace("\n", " ")
    assert "choose another folder" in str(run(*both, *more).exception)
    assert "is no run folder" in str(run(*both).exception)


def test_runs_are_compared_by_what_they_ended_with(tmp_path: Path) -> None:
    make_data(tmp_path / "data")
    for name, results in (("a", [found(1, 0, 0, 0.9)]), ("b", [found(1, 0, 0, 0.9), found(2, 0, 0, 0.9, category=9)])):
        run_folder = tmp_path / name
        described = tiny.model(classes=("cat", "dog"))
        save_model(PIIPModel(described), run_folder / "weights" / "best.safetensors")
        (run_folder / "config.yaml").write_text(json.dumps({"training": {"data": str(tmp_path / "data")}}))
        (run_folder / "val").mkdir()
        (run_folder / "val" / "predictions.json").write_text(json.dumps(results))
    comparison = piip.compare(tmp_path / "a", tmp_path / "b", draws=20)
    assert (comparison.images, comparison.main.difference) == (2, pytest.approx(0.5))
    (tmp_path / "b" / "config.yaml").write_text(json.dumps({"training": {"data": str(tmp_path / "other")}}))
    with pytest.raises(ValueError, match="the runs were evaluated on"):
        piip.compare(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a" / "config.yaml").write_text((tmp_path / "b" / "config.yaml").read_text())
    with pytest.raises(DataError, match="other: there is no such file or folder here; .* with --data or data="):
        piip.compare(tmp_path / "a", tmp_path / "b")


def test_classifiers_are_compared(tmp_path: Path) -> None:
    for number in range(6):
        kind = ("cats", "dogs")[number % 2]
        (tmp_path / "data" / "val" / kind).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (40 * number, 99, 9)).save(tmp_path / "data" / "val" / kind / f"{number}.png")
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        save_model(PIIPModel(tiny.classifier(classes=("cats", "dogs"))), tmp_path / f"{name}.safetensors")
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    same = piip.compare(first, first, data=tmp_path / "data", draws=20, workers=0)
    assert (same.images, same.main.difference) == (6, 0.0)
    other = piip.compare(first, second, data=tmp_path / "data", draws=20, workers=0)
    assert other.main.first == same.main.first
    with pytest.raises(ValueError, match="area limits are for detection"):
        piip.compare(first, second, data=tmp_path / "data", area_limits=(0, 16), workers=0)


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_own_overlaps_give_faster_coco_eval_s_numbers(kind: str) -> None:
    from faster_coco_eval import COCO, COCOeval_faster

    from piip.evaluation.ground_truth import ground_truth, image_numbers, renumbered

    ious = (0.33, 0.5, 1.0)
    data, results = of_sizes(4)
    results = runs_of(results)
    found_ = evaluate_results(results, data, masks=True, judging=Judging(ious=ious, draws=30))
    part, shape = found_.parts[kind], {"box": "bbox", "mask": "segm"}[kind]
    numbers = image_numbers(data)
    truth = COCO(ground_truth(data, numbers, shape))
    official = COCOeval_faster(truth, truth.loadRes(renumbered(results, data, numbers, shape)), iouType=shape)
    official.params.iouThrs = np.array(ious)
    official.evaluate()
    official.accumulate()
    expected = np.asarray(official.eval["precision"])[..., 0, -1].mean(axis=1)  # [IoU, class]
    assert [one.iou for one in part.overlaps] == list(ious)
    for one, row in zip(part.overlaps, expected, strict=True):
        assert one.per_class == pytest.approx(tuple(row), abs=1e-12)
        assert one.ap == pytest.approx(row.mean(), abs=1e-12)
        assert one.interval is not None
        assert one.interval[0] <= one.ap <= one.interval[1]
    assert part.overlaps[0].ap > part.overlaps[1].ap == pytest.approx(part.numbers["AP50"], abs=1e-12)
    written = json.loads(json.dumps(found_.to_dict()))["ious"][kind][0]
    assert (written["iou"], written["AP"]) == (0.33, part.overlaps[0].ap)
    assert [row["class"] for row in written["classes"]] == list(data.classes)
    assert {"AP_interval"} == written.keys() - {"iou", "AP", "classes"}
    assert len(found_.overlap_tables()) == 2
    plain = evaluate_results(results, data, masks=True)
    assert "ious" not in plain.to_dict()
    assert plain.box.numbers == found_.box.numbers
    for wrong in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            Judging(ious=(wrong,))
