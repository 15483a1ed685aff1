"""A word for a model is a name of the zoo or a path, and the same in every verb."""

import json
from pathlib import Path

import pytest
import torch
from tests import tiny
from typer.testing import CliRunner

import piip
from piip import profile
from piip.cli import app
from piip.model import PIIPModel
from piip.weights.files import WeightsError, save_model
from piip.weights.names import config_of, is_path, open_model

NAME = "piip_nano_dino"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights of another model in a folder that is called as one of the zoo, in the current directory."""
    monkeypatch.chdir(tmp_path)
    save_model(PIIPModel(tiny.model()), NAME)
    return Path(NAME)


def test_a_name_of_the_zoo_is_one_where_a_folder_is_called_so(folder: Path) -> None:
    assert not is_path(NAME)
    assert config_of(NAME).name == NAME
    assert profile.info(NAME)["name"] == NAME
    printed = CliRunner().invoke(app, ["info", NAME, "--json"])
    assert json.loads(printed.stdout)["name"] == NAME


@pytest.mark.parametrize("form", [Path, lambda folder: f"./{folder}"])
def test_a_path_is_the_folder(folder: Path, form: type[Path]) -> None:
    word = form(folder)
    assert config_of(word).name == profile.info(word)["name"] == piip.PIIP(word).config.name == "tiny"


def test_weights_are_opened_by_path_and_made_by_name(folder: Path) -> None:
    saved, opened = open_model(folder).state_dict(), open_model(folder).state_dict()
    assert all(torch.equal(tensor, opened[key]) for key, tensor in saved.items())
    assert open_model(NAME).config.name == NAME


@pytest.mark.parametrize(
    ("word", "error", "message"),
    [
        ("piip_nano_dion", ValueError, "there is no model 'piip_nano_dion'; did you mean piip_nano_dino"),
        ("no/such", WeightsError, "no/such: no such file or folder"),
        ("gone.safetensors", WeightsError, "gone.safetensors: no such file or folder"),
        (Path("piip_nano_dino"), WeightsError, "piip_nano_dino: no such file or folder"),
    ],
)
def test_what_is_neither_is_refused(word: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        config_of(word)
