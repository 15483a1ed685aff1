"""The object that users hold, where no training is needed to see what it does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests import tiny

import piip
from piip.api import BRANCHES


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
