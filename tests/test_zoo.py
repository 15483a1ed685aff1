"""The zoo against the resolved official configs, which are not part of the package. Recipes: `test_recipes.py`."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from piip import cli, zoo
from piip.profile.zoo_table import tables
from piip.training.start import build_settings
from piip.weights.official import configs as official_config
from piip.weights.official.classifiers import classifier_config
from piip.zoo import Entry

PUBLISHED = [entry for entry in zoo.MODELS.values() if entry.official_config is not None]
DETECTORS = [entry for entry in PUBLISHED if entry.task == "detection"]


@pytest.fixture
def reference(goldens: Path) -> Path:
    return goldens.parent


def official(reference: Path, entry: Entry) -> dict[str, Any]:
    (path,) = reference.glob(f"configs/*/{entry.official_config}.json")
    return json.loads(path.read_text())


def test_every_official_config_has_one_entry(reference: Path) -> None:
    files = sorted(path.stem for path in reference.glob("configs/*/*.json"))
    assert sorted(str(entry.official_config) for entry in PUBLISHED) == files
    assert len(files) == 41


def test_checkpoints_are_the_released_files(reference: Path) -> None:
    released = (reference / "checkpoints.txt").read_text().split()
    models = {path for path in released if "res_384.pth" not in path}  # the rest are pretrained branches
    assert {entry.checkpoint for entry in PUBLISHED if entry.checkpoint} == models


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: entry.name)
def test_backbone_is_the_official_one(reference: Path, entry: Entry) -> None:
    config = official(reference, entry)
    backbone = config["model"]["backbone"] if "model" in config else config["backbone"]
    assert entry.backbone() == official_config.backbone_config(backbone)


@pytest.mark.parametrize("entry", [entry for entry in PUBLISHED if entry.head], ids=lambda entry: entry.name)
def test_model_is_the_official_one(reference: Path, entry: Entry) -> None:
    config = official(reference, entry) | {"name": entry.name}
    read = classifier_config if entry.task == "classification" else official_config.model_config
    assert entry.config() == read(config)


def test_published_figures_are_those_of_the_tables(reference: Path) -> None:
    counts = json.loads((reference / "counts.json").read_text())
    keys = {"params_m": "params_m", "gflops": "gflops", "mask_map": "mask_ap"}
    checked = 0
    for entry in PUBLISHED:
        figures = counts.get(entry.official_config, {}).get("published", {})
        main = {"detection": "box_ap", "segmentation": "miou", "classification": "top1"}[entry.task]
        for key, ours in (keys | {"metric": main}).items():
            if figures.get(key) is not None:
                assert entry.published[ours] == figures[key], (entry.name, ours)
                checked += 1
    assert checked > 90


@pytest.mark.parametrize("name", list(zoo.MODELS))
def test_every_recipe_is_a_valid_setting(name: str) -> None:
    build_settings(dict(zoo.entry(name).recipe), {})


def test_typing_mistake_suggests_near_names() -> None:
    with pytest.raises(ValueError, match=r"did you mean .*piip_tsb_1120_896_448_mask_rcnn"):
        zoo.entry("piip_tsb_1120_896_488_mask_rcnn")
    with pytest.raises(ValueError, match="`piip models` lists all names"):
        zoo.entry("zzz")


def test_patterns() -> None:
    assert "piip_nano_mask_rcnn" in zoo.list_models("nano")
    assert all("nano" in name for name in zoo.list_models("nano"))
    assert len(zoo.list_models("*tsb_*mask_rcnn")) == 4
    assert zoo.list_models("nothing") == []
    assert zoo.list_models() == list(zoo.MODELS)


def test_licences_are_known_for_every_branch() -> None:
    assert zoo.entry("piip_h6b_1024_512_mask_rcnn").licences == {
        "checkpoint": "MIT", "MAE": "CC-BY-NC-4.0", "InternViT": "MIT",
    }  # fmt: skip
    assert "checkpoint" not in zoo.entry("piip_lh6b_1536_1024_512_mask_rcnn").licences
    for entry in PUBLISHED:
        assert len(entry.pretraining) == len(entry.letters) == len(entry.image_sizes)


def test_json_has_exactly_the_promised_keys() -> None:
    for entry in zoo.MODELS.values():
        assert list(zoo.as_dict(entry)) == [
            "name", "task", "official_config", "image_sizes", "published", "checkpoint",
        ]  # fmt: skip
        json.dumps(zoo.as_dict(entry))


@pytest.mark.parametrize("width", [80, 200])
def test_table_shows_every_name_whole(width: int) -> None:
    text = printed(list(zoo.MODELS.values()), width)
    lines = [line.split() for line in text.splitlines()]
    for entry in zoo.MODELS.values():
        assert any(line[:1] == [entry.name] for line in lines), entry.name
    assert max(map(len, text.splitlines())) <= width


def test_table_shows_the_facts() -> None:
    text = " ".join(printed(zoo.matching("piip_h6b_1024_512_mask_rcnn"), 80).split())
    for fact in ("detection", "ViT-H 1024, InternViT-6B 512", "6872 M", "11080 G", "55.8 / 49.0", "weights MIT",
                 "MAE CC-BY-NC-4.0"):  # fmt: skip
        assert fact in text
    assert "no weights released" in printed(zoo.matching("piip_lh6b_1536_1024_512_dino"), 80)


def printed(entries: list[Entry], width: int) -> str:
    console = Console(width=width, file=StringIO())
    for table in tables(entries):
        console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_commands(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["piip", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)

    assert run("models", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in listed] == list(zoo.MODELS)
    assert run("models", "h6b_512_*upernet", "--json") == 2
    assert "no model's name matches" in capsys.readouterr().err
    assert run("models", "*h6b_512_*upernet", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert len(listed) == 4
    assert all(model["branches"] == list(zoo.entry(model["name"]).letters) for model in listed)
    assert all(model["licences"]["checkpoint"] == "MIT" and model["counts"]["gflops"] > 0 for model in listed)
    assert run("models", "nano") == 0
    listed_nano = capsys.readouterr().out
    assert "as it runs" in " ".join(listed_nano.split())
    assert " 0.0 G" not in listed_nano
    assert run("models", "piip_tsx_") == 2
    assert "did you mean" in capsys.readouterr().err
    assert run("info", "piip_nano_mask_rcn") == 2
    assert "piip_nano_mask_rcnn" in capsys.readouterr().err
    assert run("info", "piip_nano_mask_rcnn", "--json", "--image-size", "192") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["input"] == [192, 192]
    assert {"published_convention", "as_run", "parts"} <= facts.keys()
    assert run("info", "piip_nano_mask_rcnn") == 0
    assert "interactions" in capsys.readouterr().out


def test_the_command_that_starts_a_published_model_as_published() -> None:
    assert zoo.entry("piip_tsb_1120_896_448_mask_rcnn").published_start() == "published"
    text = zoo.entry("piip_sbl_1568_1120_672_mask_rcnn_uni_perceiver").published_start()
    assert text == "0=timm:deit3_small_patch16_224.fb_in22k_ft_in1k,1=FILE,2=FILE"
    for entry in PUBLISHED:
        assert all(entry.began_as(index) for index in range(len(entry.image_sizes)))
