"""The object that users hold, where no training is needed to see what it does."""

import ast
import copy
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests import tiny

import piip
from piip.data.report import DataError
from piip.data.synthetic import make_scenes
from piip.model import PIIPModel
from piip.prediction.bulk import write_predictions
from piip.weights.files import save_model


def test_a_name_is_a_model_where_a_folder_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "piip_nano_dino").mkdir()
    assert len(piip.PIIP("piip_nano_dino").names) == 80


def test_a_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    piip.PIIP(PIIPModel(tiny.model())).save("~/mine")
    assert (tmp_path / "mine" / "model.safetensors").is_file()
    assert piip.PIIP("~/mine").names == tiny.model().classes
    with pytest.raises(DataError, match=str(tmp_path)):
        piip.PIIP("~/mine").val("~/nothing")


def test_what_an_evaluation_needs_is_asked_for_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as where it is not installed
    with pytest.raises(ImportError, match=r'pip install "piip\[train\]"'):
        piip.PIIP(tiny.model()).val(tmp_path / "nothing", output=tmp_path / "val")


def test_pictures_of_images_with_one_name_are_kept_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((32, 48, 3), 100, dtype=np.uint8)).save(tmp_path / folder / "x.png")
    model = piip.PIIP(tiny.model(), device="cpu")
    model.predict([tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"], save=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["x-2.jpg", "x.jpg"]


def test_pictures_never_overwrite_the_images(tmp_path: Path) -> None:
    photo = tmp_path / "x.jpg"
    Image.fromarray(np.full((32, 48, 3), 100, dtype=np.uint8)).save(photo)
    before = photo.read_bytes()
    model = piip.PIIP(tiny.model(), device="cpu")
    for output in (tmp_path, str(tmp_path / ".." / tmp_path.name)):
        with pytest.raises(ValueError, match=r"x.jpg is there, which its picture would overwrite"):
            model.predict(photo, save=output)
        with pytest.raises(ValueError, match="choose another folder"):
            write_predictions(model.predictor(), [str(tmp_path / "*.jpg")], Path(output), 0.25)
    assert photo.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.jpg"]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({2: "x.pth"}, r"no branch 2: the model has branches 0 \(the finest\) to 1"),
        ({0: "nowhere.pth"}, "nowhere.pth: no such file"),
        ({1: "timm:deit_tinny_patch16_224"}, "timm has no model 'deit_tinny_patch16_224'"),
    ],
)
def test_wrong_weights_of_branches_are_named_before_anything_is_built(
    sources: dict[int, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piip.PIIP, "_built", lambda self: pytest.fail("the model was built"))
    with pytest.raises(ValueError, match=message):
        piip.PIIP(tiny.model()).load_branches(sources)


@pytest.mark.parametrize("classes", ["cat", (), ("a", "a")])
def test_classes_that_are_none(classes: Any) -> None:
    with pytest.raises(ValueError, match="give one name or more, all different"):
        piip.create_model("piip_nano_dino", classes)


def test_of_a_fresh_model_only_its_pretrained_branches_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run begins with a loaded branch and a fresh head; whoever held the module may have changed its head, too."""
    data = make_scenes(tmp_path / "scenes", train=1, val=1, seed=0, size=(64, 64))
    begun: list[PIIPModel] = []

    def train(model: PIIPModel, *_: object, **__: object) -> None:
        begun.append(model)
        raise InterruptedError

    monkeypatch.setattr("piip.training.start.train", train)
    fresh, held = piip.PIIP(tiny.model(), device="cpu"), piip.PIIP(tiny.model(), device="cpu")
    assert isinstance(held.model, torch.nn.Module)
    for model in (fresh, held):
        model.load_branches({})
        with pytest.raises(InterruptedError):
            model.train(data, output=tmp_path / "runs", workers=0)
    assert isinstance(fresh.model, torch.nn.Module)
    with pytest.raises(InterruptedError):
        fresh.train(data, output=tmp_path / "runs", workers=0)
    first, second, third = begun
    for model, started, kept in ((fresh, first, False), (held, second, True), (fresh, third, True)):
        before, after = model.model.state_dict(), started.state_dict()
        name = "branches.0.vit.patch_embed.proj.weight"
        assert torch.equal(before[f"backbone.{name}"].cpu(), after[f"backbone.{name}"].cpu())
        assert torch.equal(before["head.box.fc.0.weight"].cpu(), after["head.box.fc.0.weight"].cpu()) == kept


def photo(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda held: pickle.loads(pickle.dumps(held))])
@pytest.mark.parametrize("predicted", [False, True])
def test_copies_predict_the_same(make: Callable[[piip.PIIP], piip.PIIP], predicted: bool) -> None:
    held = piip.PIIP(tiny.model(), device="cpu")
    assert isinstance(held.model, PIIPModel)
    expected = held.predict(photo(), conf=0.0) if predicted else None
    other = make(held)
    expected = expected or held.predict(photo(), conf=0.0)
    found = other.predict(photo(), conf=0.0)
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)
    assert (other.names, other.device) == (held.names, held.device)


class Series:
    """As pandas has them: a collection with a shape, a size and an array of its values."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values
        self.shape, self.size = (len(values),), len(values)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        return np.array(self.values, dtype=object)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)


def pandas_series(values: list[Any]) -> Any:
    return pytest.importorskip("pandas").Series(values)


@pytest.mark.parametrize("collection", [list, tuple, iter, Series, pandas_series])
@pytest.mark.parametrize("count", [1, 2])
def test_one_in_one_out_many_in_many_out(collection: Callable[[list[Any]], Any], count: int, tmp_path: Path) -> None:
    files = [tmp_path / f"{index}.png" for index in range(count)]
    for index, file in enumerate(files):
        Image.fromarray(photo(index)).save(file)
    model = piip.PIIP(tiny.model(), device="cpu")
    results = model.predict(collection([str(file) for file in files]))
    assert isinstance(results, list)
    assert [result.path for result in results] == files
    assert model.predict(files[0]).path == files[0]
    for one in (photo(), Image.fromarray(photo()), files[0].read_bytes(), torch.rand(3, 60, 80)):
        assert model.predict(one).path is None
    assert len(model.predict(tmp_path)) == count


def test_a_wrong_folder_for_pictures_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.png"
    Image.fromarray(photo()).save(file)
    monkeypatch.setattr(piip.PIIP, "predictor", lambda *_: pytest.fail("the model was asked"))
    with pytest.raises(ValueError, match=r"x.png is there"):
        piip.PIIP(tiny.model(), device="cpu").predict(file, save=tmp_path)


def test_an_evaluation_writes_over_nothing(tmp_path: Path) -> None:
    data = make_scenes(tmp_path / "scenes", train=1, val=1, seed=0, size=(64, 64))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text("mine")
    with pytest.raises(ValueError, match=r"metrics.json is there already"):
        piip.PIIP(tiny.model(), device="cpu").val(data, output=tmp_path / "out", workers=0)
    assert (tmp_path / "out" / "metrics.json").read_text() == "mine"


def test_data_is_checked_and_opened_by_its_path(tmp_path: Path) -> None:
    data = make_scenes(tmp_path / "scenes", train=2, val=1, seed=0, size=(64, 64))
    reports = piip.check_data(data)
    assert {split: report.to_dict()["images"] for split, report in reports.items()} == {"train": 2, "val": 1}
    opened = piip.open_data(data, "train")
    assert len(opened.images) == 2
    assert opened.classes
    with pytest.raises(DataError, match="has no split 'test'; it has train, val"):
        piip.open_data(data, "test")


def test_public_names_are_shown_and_loaded() -> None:
    assert {"check_data", "open_data", "PIIP", "list_models"} <= set(piip.__all__)
    assert set(piip.__all__) <= set(dir(piip))
    assert all(getattr(piip, name) is not None for name in piip.__all__)


def test_public_names_have_types() -> None:
    """Type checkers and the reference of the documentation read the file and run nothing of it."""
    tree = ast.parse(Path(piip.__file__).read_text(encoding="utf-8"))
    named = {part.name for part in tree.body if isinstance(part, ast.FunctionDef)}
    imports = [part for part in ast.walk(tree) if isinstance(part, ast.ImportFrom)]
    assert set(piip.__all__) <= named | {name.name for part in imports for name in part.names}


def test_a_published_recipe_says_when_it_starts_from_random_branches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from piip.training import start

    result = SimpleNamespace(best_weights=Path("best.safetensors"), last_weights=Path("last.safetensors"))
    monkeypatch.setattr(start, "start_run", lambda base, weights, *_: (result, PIIPModel(tiny.model())))

    def said(model: piip.PIIP) -> str:
        model.train("coco folder")
        return capsys.readouterr().err

    name = "piip_tsb_1120_896_448_mask_rcnn"
    text = said(piip.PIIP(name))
    assert f"WARNING: {name} starts from random weights in 3 of its 3 branches" in text
    assert "branch 0 as DeiT ViT-T; branch 1 as DeiT III ViT-S" in text
    assert f"piip train --model {name} --data 'coco folder' --branch-weights published" in text
    some = piip.PIIP(name)
    some._random_branches -= {0, 2}
    assert "in 1 of its 3 branches" in said(some)
    assert said(piip.PIIP("piip_nano_mask_rcnn")) == ""
    assert said(piip.PIIP(PIIPModel(tiny.model()))) == ""


def test_after_a_training_weights_are_read_when_they_are_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By one of several processes; a process alone has them at once, as somebody may delete the run."""
    from piip.training import start

    trained = PIIPModel(tiny.model(classes=("one", "two")))
    files = [save_model(trained, tmp_path / f"{number}.safetensors") for number in (1, 2)]
    for processes, file in enumerate(files, 1):
        result = SimpleNamespace(best_weights=file, last_weights=file)
        monkeypatch.setattr(start, "start_run", lambda *_, result=result: (result, None))
        monkeypatch.setattr("piip.api.training.launched", lambda processes=processes: processes)
        model = piip.PIIP(tiny.model(), "cpu")
        model.train("coco folder")
        assert model.names == ("one", "two")
        if processes == 1:
            file.unlink()
        else:
            assert model._kept == file
        wanted = trained.state_dict()
        assert all(torch.equal(value, wanted[name]) for name, value in model.model.state_dict().items())
