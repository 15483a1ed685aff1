"""PIIP-LLaVA's vision encoder gives the official module's tokens, and its weights go in and out without loss."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.conftest import shared_folder
from tests.weights.golden import Golden, _recipe
from typer.testing import CliRunner

import piip
from piip import config
from piip.cli import app
from piip.encoder import PIIPEncoder
from piip.profile.encoders import encoder_counts
from piip.weights.encoders import CONFIG_KEY, convert_encoder, load_encoder, save_encoder
from piip.weights.errors import WeightsError
from piip.weights.keymap import KeyMismatch
from piip.weights.official import llava
from piip.zoo.encoders import INTERACTION, PUBLISHED_GFLOPS, PYRAMIDS, encoder, list_encoders

HERE = Path(__file__).parent / "goldens"


def clip(size: int, width: int, depth: int, heads: int, groups: int) -> config.Branch:
    return config.Branch(size=size, family="clip", width=width, depth=depth, heads=heads, mlp_ratio=2, groups=groups,
                         windows=None, position_grid=7, position_prefix=1, prefix_tokens=1, layer_scale=None,
                         activation="quick_gelu")  # fmt: skip


def convnext(size: int) -> config.Branch:
    return config.Branch(size=size, family="convnext", stages=((1, 32), (1, 32), (2, 64), (1, 64)),
                         groups=((0, 2), (3, 5), (6, 7)), classifier_width=64)  # fmt: skip


def described(*branches: config.Branch) -> config.Encoder:
    backbone = config.Backbone(branches=branches, interaction=INTERACTION, maps=None)
    return config.Encoder(name="small", backbone=backbone, width=64)


SMALL = {
    "llava_clip_bl": lambda: described(clip(128, 64, 4, 4, 2), clip(96, 96, 6, 3, 2)),
    "llava_cnx_clip": lambda: described(convnext(192), clip(80, 96, 6, 3, 3)),
}


@pytest.fixture(params=list(SMALL))
def golden(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Golden:
    """Made by the official module on a CPU in float32, with the weights that follow from its keys."""
    recipe = _recipe(shared_folder("reference", "goldens"))
    monkeypatch.setattr("tests.weights.golden._recipe", lambda _: recipe)
    return Golden(HERE, request.param)


@torch.no_grad()
def test_tokens_are_the_official_ones(golden: Golden) -> None:
    module = llava.load(SMALL[golden.spec["name"]](), golden.state_dict())
    images = golden.image()
    fine, coarse = module.tokens(images)
    for name, state in (("fine", fine), ("coarse", coarse)):
        golden.assert_close(name, state.tokens.transpose(1, 2).unflatten(2, state.size), 2e-5)
    golden.assert_close("tokens", module.encode_images(images), 2e-5)


def test_weights_go_in_and_out(golden: Golden) -> None:
    theirs = golden.state_dict()
    whole = {f"model.{name}": tensor for name, tensor in theirs.items()}
    whole |= {"model.layers.0.mlp.up_proj.weight": torch.zeros(1), "lm_head.weight": torch.zeros(1)}
    side = torch.arange(5)[None]
    whole["model.vision_tower.vision_tower.branch1.clip_model.embeddings.position_ids"] = side
    renamed = {name.replace(".gamma", ".weight"): tensor for name, tensor in theirs.items()}
    for state in (theirs, whole, renamed):
        back = llava.to_official(llava.load(SMALL[golden.spec["name"]](), state))
        assert back.keys() == theirs.keys()
        assert all(torch.equal(back[name], tensor) for name, tensor in theirs.items())


def test_files(golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    theirs = {f"model.{name}": tensor for name, tensor in golden.state_dict().items()}
    names = sorted(theirs)
    (tmp_path / "llava").mkdir()
    parts = {"1": names[::2], "2": [*names[1::2], "lm_head.weight"]}
    for number, inside in parts.items():
        state = {name: theirs.get(name, torch.zeros(1)) for name in inside}
        torch.save(state, tmp_path / "llava" / f"pytorch_model-0000{number}-of-00002.bin")
    monkeypatch.setitem(PYRAMIDS, "small", lambda: SMALL[golden.spec["name"]]().backbone.branches)
    places = [str(tmp_path / name) for name in ("llava", "a.safetensors")]
    run = CliRunner().invoke(app, ["convert", *places, "--model", "small"])
    assert run.exit_code == 0, run.output
    module = load_encoder(tmp_path / "a.safetensors")
    assert module.config.width == 64
    assert not module.training
    assert all(torch.equal(tensor, theirs[f"model.{name}"]) for name, tensor in llava.to_official(module).items())
    save_encoder(module, tmp_path / "b.safetensors")
    again = load_encoder(tmp_path / "b.safetensors")
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in module.state_dict().items())
    with pytest.raises(WeightsError, match="exists already"):
        convert_encoder(tmp_path / "llava", tmp_path / "b.safetensors", "small")
    (tmp_path / "llava" / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(ValueError, match="missing|holds no encoder"):
        convert_encoder(tmp_path / "llava", tmp_path / "c.safetensors", "small")
    assert not (tmp_path / "c.safetensors").exists()


def test_what_a_file_must_be(tmp_path: Path) -> None:
    module = PIIPEncoder(SMALL["llava_clip_bl"]())
    with pytest.raises(WeightsError, match="saved as .safetensors files"):
        save_encoder(module, tmp_path / "a.pth")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="holds no config of a vision encoder"):
        load_encoder(tmp_path / "a.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "b.safetensors", {CONFIG_KEY: module.config.model_dump_json()})
    with pytest.raises(WeightsError, match="does not fit its own config; wrong or missing: a, backbone"):
        load_encoder(tmp_path / "b.safetensors")


def test_what_does_not_fit_is_named(golden: Golden) -> None:
    theirs, model = golden.state_dict(), SMALL[golden.spec["name"]]()
    key = "vision_tower.vision_tower.branch1.clip_model.encoder.layers.0.self_attn.k_proj.weight"
    for changed in ({**theirs, "vision_tower.other": torch.zeros(1)}, {k: v for k, v in theirs.items() if k != key},
                    {k: v for k, v in theirs.items() if not k.startswith("mm_projector.branch2.6")}):  # fmt: skip
        with pytest.raises(KeyMismatch, match=r"vision_tower\.other|k_proj\.weight|mm_projector\.branch2\.6"):
            llava.load(model, changed)


def test_five_pyramids() -> None:
    assert list_encoders() == sorted(PUBLISHED_GFLOPS)
    with pytest.raises(ValueError, match="no vision encoder 'x'; there are piip_llava_clip_bl_512_256"):
        encoder("x")
    for name in list_encoders():
        with torch.device("meta"):
            module = PIIPEncoder(encoder(name, width=5120))
            tokens = module.encode_images(torch.zeros(2, 3, module.config.size, module.config.size))
        grid = module.config.size // module.config.backbone.branches[0].group_strides[-1]
        assert tokens.shape == (2, grid * grid, 5120)


@pytest.mark.parametrize("name", list_encoders())
def test_counts_are_the_papers(name: str) -> None:
    counted = sum(count.macs for count in encoder_counts(encoder(name)).values()) / 1e9
    assert counted == pytest.approx(PUBLISHED_GFLOPS[name], abs=1)


def test_what_info_says() -> None:
    name = "piip_llava_clip_bl_512_256"
    facts = piip.info(name)
    assert (facts["task"], facts["image_sizes"], facts["published"]) == ("encoder", [512, 256], {"gflops": 193})
    assert facts["published_convention"]["gmacs"] == pytest.approx(193, abs=1)
    assert {part["part"] for part in facts["parts"]} == {"branch 0", "branch 1", "interactions"}
    run = CliRunner().invoke(app, ["info", name])
    assert run.exit_code == 0, run.output
    assert "193" in run.output
