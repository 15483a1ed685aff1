import json
from pathlib import Path

import pytest
from PIL import Image
from tests import tiny
from tests.mask_sets import make_masks

from piip import config, tasks
from piip.data.kinds import kind_of_data
from piip.data.report import DataError
from piip.tasks import segmentation


def class_folders(folder: Path) -> Path:
    for name in ("cat", "dog"):
        (folder / "train" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "train" / name / "1.png")
    return folder


def coco(folder: Path) -> Path:
    (folder / "annotations").mkdir(parents=True)
    (folder / "train").mkdir()
    (folder / "annotations" / "instances_train.json").write_text(json.dumps({"images": [], "annotations": []}))
    return folder


MAKERS = {"detection": coco, "segmentation": make_masks, "classification": class_folders}


@pytest.mark.parametrize("kind", MAKERS)
def test_data_is_recognised_by_looking(tmp_path, kind):
    assert kind_of_data(MAKERS[kind](tmp_path / "set")) == kind


def test_files_are_recognised_by_their_ending(tmp_path):
    for name, kind in (("a.json", "detection"), ("b.csv", "classification")):
        (tmp_path / name).write_text("")
        assert kind_of_data(tmp_path / name) == kind
    (tmp_path / "c.txt").write_text("")
    with pytest.raises(DataError, match=r"c\.txt.*\.json.*\.csv"):
        kind_of_data(tmp_path / "c.txt")


def test_unknown_folders_say_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=r"instances_train.*masks/train.*train/CLASS"):
        kind_of_data(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        kind_of_data(tmp_path / "nowhere")


def test_labels_of_yolo_are_no_masks(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "1.txt").write_text("0 0.5 0.5 0.1 0.1")
    with pytest.raises(DataError):
        kind_of_data(tmp_path)


def model_of(task: str) -> config.Model:
    heads = {
        "detection": config.MaskRCNN(),
        "segmentation": config.UperNet(),
        "classification": config.Classifier(),
    }
    return tiny.model().model_copy(update={"head": heads[task]})


@pytest.mark.parametrize("task", MAKERS)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_wrong_pairing_names_a_model_that_fits(tmp_path, task, kind):
    data = MAKERS[kind](tmp_path / "set")
    if task == kind:
        tasks.require_pairing(model_of(task), data)
        return
    with pytest.raises(DataError, match=rf"tiny is a {task} model.*use a {kind} model.*{tasks.SUGGESTED[kind]}"):
        tasks.require_pairing(model_of(task), data)


@pytest.mark.parametrize("task", MAKERS)
def test_every_task_has_what_the_contract_asks_for(task):
    found = tasks.of(model_of(task))
    functions = [name for name in vars(tasks.Task) if not name.startswith("_")]
    assert len(functions) > 12
    assert [name for name in functions if not hasattr(found, name)] == []


def test_suggested_models_are_in_the_zoo():
    from piip import zoo

    for kind, name in tasks.SUGGESTED.items():
        assert zoo.entry(name).task == kind


def test_balanced_weights_favour_rare_classes(tmp_path):
    data = segmentation.open_split(make_masks(tmp_path), "train")
    weights = segmentation.balanced_weights(data)
    order = sorted(range(3), key=lambda label: data.pixels[label])
    assert weights[order[0]] >= weights[order[1]] > weights[order[2]]
    low, high = segmentation.BALANCED_RANGE
    assert all(low <= weight <= high for weight in weights)


def test_class_weights_become_part_of_the_model(tmp_path):
    data = segmentation.open_split(make_masks(tmp_path), "train")
    model = model_of("segmentation")
    assert segmentation.adapted(model, data).head.class_weights is None
    assert segmentation.adapted(model, data, (1.0, 2.0, 3.0)).head.class_weights == (1.0, 2.0, 3.0)
    adapted = segmentation.adapted(model, data, "balanced")
    assert adapted.head.class_weights == segmentation.balanced_weights(data)
    assert adapted.classes == data.classes
    assert adapted.category_ids == (0, 1, 2)
    with pytest.raises(ValueError, match="2 class_weights for the 3 classes"):
        segmentation.adapted(model, data, (1.0, 2.0))
