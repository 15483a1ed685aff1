"""The confusion matrix is counted right, and the plots are pictures for any number of classes."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image as PILImage

from piip.data.detection.annotations import CocoData, CocoImage, CocoObject
from piip.evaluation import plots
from piip.evaluation.coco import Averages
from piip.evaluation.plots import confusion_matrix, plot_confusion, plot_precision_recall


def an_object(box, label, crowd=False) -> CocoObject:
    return CocoObject(box, label, None, crowd, annotation_id=1, area=100.0)


def data_of(**objects: list[CocoObject]) -> CocoData:
    """`image5=[...]`: image 5 with these objects."""
    images = [
        CocoImage(int(name[5:]), Path(f"{name}.png"), (200, 200), True, tuple(found)) for name, found in objects.items()
    ]
    return CocoData(images, ("cat", "dog"), (3, 90), has_masks=False)


LEFT, RIGHT, BELOW = (0, 0, 40, 40), (60, 0, 100, 40), (0, 60, 40, 100)


def result(box, label, score=0.9, image_id=5):
    x1, y1, x2, y2 = box
    bbox = [x1, y1, x2 - x1, y2 - y1]
    return {"image_id": image_id, "category_id": (3, 90)[label], "bbox": bbox, "score": score}


def test_right_wrong_missed_and_false():
    data = data_of(image5=[an_object(LEFT, 0), an_object(RIGHT, 0), an_object(BELOW, 1)])
    results = [result(LEFT, 0), result(RIGHT, 1), result((60, 60, 100, 100), 1)]
    assert confusion_matrix(results, data).tolist() == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]


def test_detections_count_in_their_own_image():
    data = data_of(image5=[an_object(LEFT, 0)], image6=[an_object(LEFT, 1)])
    results = [result(LEFT, 0, image_id=6), result(LEFT, 0, image_id=5)]
    assert confusion_matrix(results, data).tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_a_second_detection_of_an_object_is_a_false_one():
    data = data_of(image5=[an_object(LEFT, 0)])
    results = [result((0, 0, 40, 36), 0), result(LEFT, 0)]
    assert confusion_matrix(results, data).tolist() == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_the_right_class_goes_before_more_overlap():
    data = data_of(image5=[an_object(LEFT, 0)])
    results = [result(LEFT, 1), result((0, 0, 40, 30), 0)]
    assert confusion_matrix(results, data).tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_thresholds():
    data = data_of(image5=[an_object(LEFT, 0)])
    results = [result((0, 0, 40, 24), 0, score=0.4)]  # IoU 0.6
    assert confusion_matrix(results, data, score=0.4)[0, 0] == 1
    assert confusion_matrix(results, data, score=0.5).tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert confusion_matrix(results, data, iou=0.75).tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_detections_on_a_crowd_count_nowhere_and_the_crowd_is_not_missed():
    data = data_of(image5=[an_object((0, 0, 100, 100), 0, crowd=True), an_object(RIGHT, 1)])
    results = [result(LEFT, 0), result(RIGHT, 1), result((90, 90, 200, 200), 0)]
    assert confusion_matrix(results, data).tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0]]


def test_nothing_found_and_nothing_annotated():
    assert confusion_matrix([], data_of(image5=[])).tolist() == [[0] * 3] * 3
    assert confusion_matrix([], data_of(image5=[an_object(LEFT, 1)]))[1, 2] == 1


def averages(classes: int, empty: tuple[int, ...] = ()) -> Averages:
    curves = np.linspace(1.0, 0.0, 101)[None, :, None] * np.ones((10, 1, classes))
    curves[:, :, list(empty)] = -1.0
    return Averages({}, (0.5,) * classes, curves)


@pytest.mark.parametrize("classes", [1, 3, 30, 150])
def test_plots_are_pictures_for_any_number_of_classes(tmp_path, classes):
    names = ["$a$ name much too long for the axis of a plot", *(f"class {i}" for i in range(1, classes))]
    matrix = np.random.default_rng(0).integers(0, 5000, (classes + 1, classes + 1))
    for path in (
        plot_confusion(matrix, names, tmp_path / "new" / "confusion.png"),
        plot_precision_recall(averages(classes), names, tmp_path / "curve.png"),
    ):
        with PILImage.open(path) as image:
            assert image.format == "PNG"
            assert 400 < image.width < 3000
            assert len(np.unique(np.asarray(image.convert("L")))) > 10


def test_classes_without_objects_leave_the_curves_of_the_others_as_they_are(tmp_path):
    some = plot_precision_recall(averages(3, empty=(1,)), ["a", "b", "c"], tmp_path / "some.png")
    none = plot_precision_recall(averages(3, empty=(0, 1, 2)), ["a", "b", "c"], tmp_path / "none.png")
    assert some.read_bytes() != none.read_bytes()


def test_names_with_an_underscore_in_front_are_in_the_legend(tmp_path, monkeypatch):
    texts = []
    legend = Axes.legend

    def watched(self, *args, **options):
        drawn = legend(self, *args, **options)
        texts.extend(text.get_text().strip() for text in drawn.get_texts())
        return drawn

    monkeypatch.setattr(Axes, "legend", watched)
    plot_precision_recall(averages(2), ("_background_", "dog"), tmp_path / "a.png")
    assert [text.split()[0] for text in texts] == ["_background_", "dog", "mean"]


def test_of_many_classes_the_best_and_the_worst_are_named(tmp_path, monkeypatch):
    texts = []
    legend = Axes.legend

    def watched(self, *args, **options):
        drawn = legend(self, *args, **options)
        texts.extend(text.get_text() for text in drawn.get_texts())
        return drawn

    monkeypatch.setattr(Axes, "legend", watched)
    many = averages(80)
    many.precision[0] *= np.linspace(0.1, 1.0, 80)
    plot_precision_recall(many, [f"c{label}" for label in range(80)], tmp_path / "a.png")
    assert [text.split()[0] for text in texts[:6]] == ["c79", "c78", "c77", "c2", "c1", "c0"]
    assert texts[-1] == "74 other classes"


@pytest.mark.parametrize("classes", [2, 9, 20])
def test_nothing_of_a_matrix_is_cut_off(tmp_path, classes):
    names = [f"a name of some length {label}" for label in range(classes)]
    path = plot_confusion(np.eye(classes + 1, dtype=np.int64), names, tmp_path / "a.png")
    picture = np.asarray(PILImage.open(path).convert("L"))
    assert all((side == 255).all() for side in (picture[:8], picture[-8:], picture[:, :8], picture[:, -8:]))


@pytest.mark.filterwarnings("error")
def test_control_characters_in_names_are_written_out(tmp_path: Path) -> None:
    """matplotlib's warnings of glyphs that it lacks would carry them to the terminal."""
    plot_confusion(np.eye(2, dtype=np.int64), ["\x1b]0;pwned\x07"], tmp_path / "a.png")
    assert (tmp_path / "a.png").is_file()


@pytest.mark.filterwarnings("error")
def test_letters_that_no_font_here_has_are_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else matplotlib would draw boxes, and warn of each of them."""
    matrix = np.eye(3, dtype=np.int64)
    plot_confusion(matrix, ["猫", "犬 walked"], tmp_path / "here.png")
    plot_precision_recall(averages(2), ["猫", "犬 walked"], tmp_path / "curves.png")
    monkeypatch.setattr(plots, "OTHER_FONTS", ())
    theirs = plot_confusion(matrix, ["猫", "犬 walked"], tmp_path / "a.png")
    written = plot_confusion(matrix, ["\\u732b", "\\u72ac walked"], tmp_path / "b.png")
    assert theirs.read_bytes() == written.read_bytes()
