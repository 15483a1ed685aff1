"""Saved models come back exactly; everything else is refused, with the file's name and the reason."""

import json
import struct
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests import tiny

import piip
from piip import config
from piip.files import atomic_write
from piip.inference import fuse
from piip.model import PIIPModel
from piip.weights import files
from piip.weights.files import WeightsError, find_weights, load_model, read_config, replace_config, save_model


def small_config(classes: tuple[str, ...] = ("cat", "Hündin")) -> config.Model:
    branch = config.Branch(
        size=64, width=32, depth=2, heads=2, groups=((0, 1),), windows=None, position_grid=4, layer_scale=None
    )
    return config.Model(
        name="small",
        backbone=config.Backbone(branches=(branch,)),
        head=config.MaskRCNN(channels=16, fc_channels=16, mask_convs=1),
        classes=classes,
        category_ids=tuple(range(7, 7 + len(classes))),
        preprocess=config.Preprocess(long_side=64, short_side=64),
    )


@pytest.fixture
def model() -> PIIPModel:
    return PIIPModel(small_config())


@pytest.fixture
def saved(model: PIIPModel, tmp_path: Path) -> Path:
    return save_model(model, tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["deep/er/mine.safetensors", "a_folder"])
def test_round_trip(model: PIIPModel, tmp_path: Path, name: str) -> None:
    model.train()
    file = save_model(model, tmp_path / name)
    assert file.suffix == ".safetensors"
    loaded = load_model(tmp_path / name)
    assert model.training
    assert not loaded.training
    assert loaded.config == model.config
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in loaded.state_dict().items())


def test_what_a_file_holds(saved: Path) -> None:
    with safe_open(saved, framework="pt") as opened:
        metadata = opened.metadata()
    assert metadata["piip_version"] == piip.__version__
    assert config.Model.model_validate_json(metadata["piip_config"]) == small_config()
    assert [path.name for path in saved.parent.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("name", ["again.safetensors", "a_folder"])
def test_the_same_model_is_the_same_bytes(model: PIIPModel, tmp_path: Path, name: str) -> None:
    """The writer of safetensors itself puts the three texts of the header in another order each time."""
    first = save_model(model, tmp_path / name).read_bytes()
    assert all(save_model(model, tmp_path / name).read_bytes() == first for _ in range(8))
    texts = json.loads(first[8 : 8 + int.from_bytes(first[:8], "little")])["__metadata__"]
    assert list(texts)[:2] == ["format", "piip_version"]


def test_another_config_in_a_file_as_if_it_were_saved_again(
    model: PIIPModel, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(files, "safe_open", lambda *given, **named: opened.append(given) or safe_open(*given, **named))
    model.config = model.config.with_thresholds([0.25, None])
    again = save_model(model, tmp_path / "again.safetensors")
    assert saved.read_bytes() != again.read_bytes()
    replace_config(saved, model.config)
    assert saved.read_bytes() == again.read_bytes()
    assert len(opened) == 2  # for the shapes, for the values


def test_without_values_a_file_is_looked_at_but_not_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "read_one_by_one", lambda *_: pytest.fail("read"))
    with torch.device("meta"):
        loaded = load_model(saved)
    assert {tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers())} == {True}
    assert loaded.config == read_config(saved)
    save_file(load_file(saved) | {"more": torch.zeros(1)}, saved, {files.CONFIG_KEY: loaded.config.model_dump_json()})
    with torch.device("meta"), pytest.raises(WeightsError, match="not of this model: more"):
        load_model(saved)


def test_what_a_folder_holds(model: PIIPModel, tmp_path: Path) -> None:
    file = save_model(model, tmp_path / "mine")
    assert file == tmp_path / "mine" / "model.safetensors"
    assert sorted(path.name for path in file.parent.iterdir()) == ["config.json", "model.safetensors"]
    assert json.loads((tmp_path / "mine" / "config.json").read_text())["classes"] == ["cat", "Hündin"]
    save_model(model, tmp_path / "mine")  # again: replaces


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_others_may_read_it(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    assert saved.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_no_download_for_weights_that_are_replaced(
    model: PIIPModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that began with timm's weights does not fetch them again when it is loaded."""
    import timm

    branch = model.config.backbone.branches[0].model_copy(update={"pretrained": True})
    backbone = model.config.backbone.model_copy(update={"branches": (branch,)})
    model.config = model.config.model_copy(update={"backbone": backbone})
    save_model(model, tmp_path / "m.safetensors")
    monkeypatch.setattr(timm, "create_model", lambda *args, **more: pytest.fail("asked timm for weights"))
    assert read_config(tmp_path / "m.safetensors").backbone.branches[0].pretrained
    assert not load_model(tmp_path / "m.safetensors").config.backbone.branches[0].pretrained


def test_which_weights_a_path_means(model: PIIPModel, tmp_path: Path) -> None:
    run = tmp_path / "run"
    last = save_model(model, run / "weights" / "last.safetensors")
    assert find_weights(run) == last
    best = save_model(model, run / "weights" / "best.safetensors")
    assert find_weights(run) == best
    assert find_weights(run / "weights") == best
    assert find_weights(str(last)) == last
    assert find_weights(save_model(model, tmp_path / "folder").parent) == tmp_path / "folder" / "model.safetensors"


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights in this folder; looked for model\.safetensors, weights/best"):
        find_weights(tmp_path)
    with pytest.raises(WeightsError, match=r"nowhere\.safetensors: no such file or folder"):
        load_model(tmp_path / "nowhere.safetensors")
    (tmp_path / "old.pth").touch()
    with pytest.raises(WeightsError, match=r"old\.pth: not a \.safetensors file; convert"):
        load_model(tmp_path / "old.pth")


def test_other_suffixes_are_not_written(model: PIIPModel, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"model\.pth: models are saved as \.safetensors"):
        save_model(model, tmp_path / "model.pth")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", range(20))
def test_cut_off_anywhere(saved: Path, part: int) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: len(content) * part // 20])
    with pytest.raises(WeightsError, match=r"model\.safetensors: not a readable \.safetensors file"):
        load_model(saved)


HEADERS = {
    "longer than the file": struct.pack("<Q", 10**6) + b"{}",
    "101 MB": struct.pack("<Q", 101 * 2**20) + b" " * 10,
    "overflow": struct.pack("<Q", 2**64 - 1) + b"{}",
    "not JSON": struct.pack("<Q", 4) + b"nope",
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94.",
    "HTML": b"<!DOCTYPE html><html><body>404</body></html>",
    "overlapping tensors": (
        lambda text: struct.pack("<Q", len(text)) + text + bytes(8)
    )(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'),
    "huge shape": (
        lambda text: struct.pack("<Q", len(text)) + text + bytes(8)
    )(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]}}'),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADERS)
def test_damaged_headers(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "bad.safetensors"
    file.write_bytes(HEADERS[kind])
    with pytest.raises(WeightsError, match=r"bad\.safetensors: not a readable \.safetensors file"):
        load_model(file)


def changed(saved: Path, **tensors: torch.Tensor | None) -> Path:
    """The saved file with some tensors replaced, added, or removed (None)."""
    with safe_open(saved, framework="pt") as opened:
        metadata = opened.metadata()
    content = {key: tensor for key, tensor in (load_file(saved) | tensors).items() if tensor is not None}
    save_file(content, saved, metadata)
    return saved


def test_missing_extra_and_reshaped_weights_are_all_named(saved: Path) -> None:
    changed(
        saved,
        **{
            "head.fpn.laterals.0.weight": None,
            "head.typo.weight": torch.zeros(1),
            "backbone.branches.0.vit.pos_embed": torch.zeros(1, 9, 32),
        },
    )
    with pytest.raises(WeightsError) as caught:
        load_model(saved)
    message = str(caught.value)
    assert message.startswith(f"{saved}: does not fit the model; ")
    assert "1 weights missing: head.fpn.laterals.0.weight;" in message
    assert "1 weights not of this model: head.typo.weight;" in message
    assert "backbone.branches.0.vit.pos_embed (file (1, 9, 32), model (1, 16, 32))" in message


def test_long_lists_are_cut(saved: Path) -> None:
    with pytest.raises(WeightsError, match=r"20 weights not of this model: .*k15 and 12 more"):
        load_model(changed(saved, **{f"k{i}": torch.zeros(1) for i in range(20)}))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_numbers_are_neither_loaded_nor_saved(
    model: PIIPModel, saved: Path, tmp_path: Path, value: float
) -> None:
    key = "backbone.branches.0.vit.pos_embed"
    positions = model.state_dict()[key].clone()
    positions[0, 3, 5] = value
    with pytest.raises(WeightsError, match=f"NaN or infinite weights in {key}"):
        load_model(changed(saved, **{key: positions}))
    with torch.no_grad():
        model.state_dict()[key].copy_(positions)
    with pytest.raises(WeightsError, match=r"new\.safetensors: not written, the model has NaN"):
        save_model(model, tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()


def test_no_config(model: PIIPModel, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), file)
    with pytest.raises(WeightsError, match=r"weights\.safetensors: holds no config of a PIIP model"):
        load_model(file)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "x"}', "\xff\xfe"])
def test_invalid_config(model: PIIPModel, tmp_path: Path, text: str) -> None:
    save_model(model, tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(WeightsError, match=r"config\.json: its config is not valid"):
        read_config(tmp_path / "m")


def test_config_of_another_model(model: PIIPModel, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(small_config(("a", "b", "c")).model_dump_json())
    with pytest.raises(WeightsError, match="of another shape: head"):
        load_model(tmp_path / "m")


def test_a_failed_write_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def fail(path: Path, tensors: object, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_tensors", fail)
    with pytest.raises(OSError, match="No space left"):
        save_model(PIIPModel(small_config()), saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_atomic_write_replaces_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
    assert path.read_text() == "new"
    with pytest.raises(FileNotFoundError), atomic_write(path) as temporary:
        temporary.rename(tmp_path / "gone")
    (tmp_path / "gone").unlink()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folded_copy_is_not_saved(tmp_path: Path) -> None:
    folded = fuse(PIIPModel(tiny.model()))
    with pytest.raises(WeightsError, match="folded copy"):
        save_model(folded, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
