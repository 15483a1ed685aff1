"""A pyramid of one's own: in words, in a file, in somebody's own code."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import piip
from piip.cli import app
from piip.config import Classifier, MaskRCNN, UperNet
from piip.config.spelled import spelled_backbone
from piip.console import Terminal
from piip.weights.names import config_of, open_model

TINY = "vit_tiny_patch16_224@64 + vit_tiny_patch16_224@32"


@pytest.fixture
def file(tmp_path: Path):
    def written(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def test_maps_cover_images_of_any_size() -> None:
    features = piip.create_backbone(TINY, groups=2).eval()
    assert [info["reduction"] for info in features.feature_info] == [4, 8, 16, 32]
    assert features.out_channels == 192
    with torch.no_grad():
        maps = features(torch.randn(1, 3, 37, 70))
        assert [tuple(one.shape[-2:]) for one in maps] == [(10, 18), (5, 9), (3, 5), (2, 3)]
        whole = torch.randn(1, 3, 64, 96)
        for one, other in zip(features(whole), features.backbone(whole), strict=True):
            assert torch.equal(one, other)


def test_what_is_seen_at_the_edge_is_in_the_maps() -> None:
    features = piip.create_backbone(TINY, groups=2).eval()
    image = torch.zeros(1, 3, 40, 70)
    other = image.clone()
    other[..., -1:, -1:] = 3.0
    with torch.no_grad():
        assert not torch.equal(features(image)[0], features(other)[0])


def test_words_leave_the_usual_open() -> None:
    backbone = spelled_backbone("vit_tiny_patch16_224@672 + vit_small_patch14_dinov2@448")
    assert backbone.groups == 12
    assert [branch.windows[0] for branch in backbone.branches] == [14, None]
    assert [branch.size for branch in backbone.branches] == [672, 448]
    staged = spelled_backbone("convnext_tiny@320 + vit_small_patch16_224@224")
    assert staged.groups == 4
    assert staged.branches[0].group_strides == (4, 8, 16, 32)
    assert spelled_backbone("vit_small_patch16_224@224", windows=7).branches[0].windows == (7,) * 12


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vit_tiny_patch16_22@224", "near names: vit_tiny_patch16_224"),
        ("vit_tiny_patch16_224", "write NAME@SIZE"),
        ("vit_tiny_patch16_224@", "write NAME@SIZE"),
        ("vit_tiny_patch16_224@32 + vit_tiny_patch16_224@64", "must not grow"),
        ("resnet50@224", "cannot be a branch"),
    ],
)
def test_wrong_words_are_one_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        piip.create_backbone(text)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(
    ("head", "kind"),
    [("", MaskRCNN), ("head: {kind: upernet, channels: 64}", UperNet), ("head: classifier", Classifier)],
)
def test_a_file_describes_a_model_of_each_task(file, head: str, kind: type) -> None:
    path = file(f"name: mine\npyramid: {TINY}\ngroups: 2\nclasses: [disc, square]\n{head}\n")
    model = open_model(str(path))
    assert isinstance(model.config.head, kind)
    assert model.config.classes == ("disc", "square")
    assert model.config.preprocess.long_side == 64
    assert model.config.preprocess.mean == (127.5, 127.5, 127.5)  # those of the weights


def test_branches_may_be_written_out(file) -> None:
    path = file(
        "name: mine\npyramid:\n"
        "- {size: 64, depth: 2, width: 32, heads: 2, groups: 2, windows: null, position_grid: 4}\n"
        "head: mask_rcnn\npreprocess: {short_side: 48}\n"
    )
    described = config_of(path)
    assert described.backbone.interaction is None
    assert described.preprocess.short_side == 48
    assert len(described.classes) == 80


def test_a_run_s_own_file_describes_its_model(file) -> None:
    described = config_of("piip_nano_mask_rcnn")
    path = file(json.dumps({"model": described.model_dump(mode="json"), "training": {}}))
    assert config_of(path) == described


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: mine\n", "pyramid: is missing"),
        (f"name: mine\npyramid: {TINY}\nheads: dino\n", "did you mean head"),
        (f"name: mine\npyramid: {TINY}\nhead: dyno\n", "use one of mask_rcnn, dino"),
        (f"name: mine\npyramid: {TINY}\nmaps: {{stride: 4}}\n", "stride"),
        ("[1, 2]\n", "valid dictionary"),
        ("name: [\n", "not readable as YAML"),
    ],
)
def test_a_wrong_file_says_where(file, text: str, said: str) -> None:
    path = file(text)
    with pytest.raises(ValueError, match=said) as caught:
        piip.PIIP(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        piip.PIIP("nowhere.yaml")


def test_a_file_s_training_settings_are_its_recipe(file) -> None:
    model = piip.PIIP(file(f"name: mine\npyramid: {TINY}\ntraining: {{lr: 0.5, epochs: 3}}\n"))
    assert model.training_settings("data").lr == 0.5
    assert model.training_settings("data", epochs=4).epochs == 4


def test_parts_and_names_are_there_after_import() -> None:
    assert piip.config.DINO.__name__ == "DINO"
    assert callable(piip.benchmark.benchmark)
    assert "PIIP" in dir(piip)
    assert "TYPE_CHECKING" not in dir(piip)
    with pytest.raises(AttributeError, match="nonsense"):
        piip.nonsense  # noqa: B018


def test_models_by_task_and_by_weights() -> None:
    assert all("upernet" in name for name in piip.list_models(task="segmentation"))
    assert "piip_nano_mask_rcnn" not in piip.list_models(pretrained=True)
    with pytest.raises(ValueError, match="detection"):
        piip.list_models(task="boxes")


def test_settings_are_listed_with_the_recipe_s_values(file) -> None:
    path = file(f"name: mine\npyramid: {TINY}\ntraining: {{lr: 0.5}}\n")
    found = json.loads(CliRunner().invoke(app, ["settings", "--model", str(path), "--json"]).stdout)
    by_name = {one["name"]: one for one in found}
    assert by_name["lr"]["value"] == 0.5
    assert by_name["lr"]["text"].startswith("learning rate")
    assert {"augmentation.flip", "head.detections", "freeze"} <= by_name.keys()
    assert [one["name"] for one in found if not one["text"]] == []
    rows = CliRunner().invoke(app, ["settings", "weight decay"]).stdout
    assert "weight_decay" in rows
    assert "milestones" not in rows


def test_in_a_narrow_terminal_no_word_of_a_setting_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("piip.cli.settings.out", Terminal(width=80))
    said = CliRunner().invoke(app, ["settings"]).stdout
    assert "milestones  [0.6667, 0.9167]" in said
    assert '"branches.2.blocks.0-8"' in said.replace("(", "").replace(")", "")
    assert max(map(len, said.splitlines())) <= 80


def test_counting_fetches_no_weights(file, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    made = timm.create_model

    def refusing(name: str, pretrained: bool = False, **further: object) -> object:
        assert not pretrained
        return made(name, pretrained=pretrained, **further)

    monkeypatch.setattr(timm, "create_model", refusing)
    path = file(f"name: mine\npyramid: {TINY}\ngroups: 2\npretrained: true\n")
    assert config_of(path).backbone.branches[0].pretrained
    assert piip.info(path)["as_run"]["gmacs"] > 0
    assert open_model(path).config.backbone.branches[0].model == "vit_tiny_patch16_224"
