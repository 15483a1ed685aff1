from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from toy_training import toy_config

from piip import config
from piip.cli.key_values import key_values
from piip.training.settings import BEFORE, Settings, check_resumable, read_model, read_settings, write_run_config


def test_config_yaml_holds_model_and_settings(tmp_path: Path) -> None:
    settings = Settings(epochs=3, ema=0.99, precision="bf16", milestones=(0.5,), patience=7)
    write_run_config(tmp_path / "config.yaml", toy_config(), settings)
    assert read_settings(tmp_path / "config.yaml") == settings
    content = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config.Model.model_validate(content["model"]) == toy_config()


def test_a_file_with_some_fields(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("epochs: 5\nlr: 0.001\n")
    assert read_settings(file) == Settings(epochs=5, lr=1e-3)
    file.write_text("")
    assert read_settings(file) == Settings()


@pytest.mark.parametrize("text", ["epoch: 5", "epochs: 0", "precision: fp8", "- 1", "a: [", "milestones: [0.9, 0.5]"])
def test_mistakes_name_the_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"mine\.yaml: "):
        read_settings(file)


def test_frozen_and_strict() -> None:
    with pytest.raises(ValidationError):
        Settings(learning_rate=1.0)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        Settings().epochs = 3  # type: ignore[misc]


def test_what_may_change_on_resume() -> None:
    saved = Settings().model_dump(mode="json")
    check_resumable(saved, Settings(), Path("last.ckpt"))
    check_resumable(saved, Settings(epochs=24, workers=0, patience=3, device="cpu"), Path("last.ckpt"))
    with pytest.raises(ValueError, match=r"last\.ckpt: .*other settings: ema \(was None, now 0\.9\), lr \(was "):
        check_resumable(saved, Settings(lr=1.0, ema=0.9, workers=0), Path("last.ckpt"))


def test_a_checkpoint_from_before_a_setting_existed() -> None:
    saved = Settings().model_dump(mode="json")
    del saved["power"], saved["augmentation"]["flip"]
    check_resumable(saved, Settings(), Path("last.ckpt"))
    with pytest.raises(ValueError, match=r"other settings: power \(was 1\.0, now 2\.0\)"):
        check_resumable(saved, Settings(power=2.0), Path("last.ckpt"))


def test_a_checkpoint_with_settings_that_are_gone() -> None:
    saved = Settings().model_dump(mode="json")
    with pytest.raises(ValueError, match=r"last\.ckpt: .*does not have: momentum \(0\.9\), nesterov \(True\)"):
        check_resumable(saved | {"nesterov": True, "momentum": 0.9}, Settings(), Path("last.ckpt"))
    with pytest.raises(ValueError, match=r"last\.ckpt: its settings are not valid here: .*schedule"):
        check_resumable(saved | {"schedule": "spiral"}, Settings(), Path("last.ckpt"))


@pytest.mark.parametrize(("device", "fine"), [("auto", True), ("cuda:1", True), ("cuda:x", False), ("gpu", False)])
def test_names_of_devices(device: str, fine: bool) -> None:
    if fine:
        assert Settings(device=device).device == device
    else:
        with pytest.raises(ValidationError):
            Settings(device=device)


def test_runs_from_before_a_setting_was_there_go_on_without_it(tmp_path: Path) -> None:
    old = {key: value for key, value in Settings().model_dump(mode="json").items() if key not in BEFORE}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"model": {}, "training": old}))
    settings = read_settings(file)
    assert settings == Settings(**BEFORE)
    check_resumable(old, settings, Path("last.ckpt"))
    with pytest.raises(ValueError, match=r"whole_layers \(was False, now True\)"):
        check_resumable(old, Settings(), Path("last.ckpt"))


@pytest.mark.parametrize("text", ["training: {}", "", "[]", "model: 1", "model: {name: x}"])
def test_run_configs_without_a_model(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml: (not the config of a run|its model is not valid)"):
        read_model(tmp_path / "config.yaml")


def test_settings_nested_deeply(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("[" * 5000)
    for read in (read_settings, read_model):
        with pytest.raises(ValueError, match=r"config\.yaml: not readable as YAML \(nested too deeply"):
            read(tmp_path / "config.yaml")
    with pytest.raises(ValueError, match="--set lr=.*nested too deeply"):
        key_values(["lr=" + "[" * 3000])
