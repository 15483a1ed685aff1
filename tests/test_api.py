"""The object that users hold, where no training is needed to see what it does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests import tiny

import piip
from piip.api import BRANCHES
from piip.prediction.files import write_predictions


def test_a_name_is_a_model_where_a_folder_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "piip_nano_dino").mkdir()
    assert len(piip.PIIP("piip_nano_dino").names) == 80


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
            write_predictions(model, [str(tmp_path / "*.jpg")], Path(output), 0.25)
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
    parts: list[str] = []

    def start_run(*arguments: object) -> None:
        parts.append(str(arguments[-1]))
        raise InterruptedError

    monkeypatch.setattr("piip.training.start.start_run", start_run)
    fresh, held = piip.PIIP(tiny.model(), device="cpu"), piip.PIIP(tiny.model(), device="cpu")
    assert isinstance(held.model, torch.nn.Module)
    for model in (fresh, held):
        model.load_branches({})
        with pytest.raises(InterruptedError):
            model.train(tmp_path)
    assert fresh.model is fresh.model
    with pytest.raises(InterruptedError):
        fresh.train(tmp_path)
    assert parts == [BRANCHES, "", ""]
