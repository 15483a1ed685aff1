"""Released weights through a local stand-in of the Hub's file interface, and users' models to the Hub and back."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from PIL import Image
from torch import Tensor

import piip
from piip import cli, config, zoo
from piip.config.spelled import spelled_backbone
from piip.weights import hub, opengvlab
from piip.weights.card import Facts, model_card, write_card
from piip.weights.files import WeightsError
from piip.zoo import Entry

NAME = "piip_test_detector"
CHECKPOINT = "detection/test_detector.pth"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def small_model(name: str = NAME) -> config.Model:
    branches = tuple(
        config.Branch.model_validate({"size": size, "depth": 2, "width": width, "heads": 2, "groups": 2, "windows": None,  # noqa: E501
                                      "position_grid": 4})
        for size, width in ((64, 32), (32, 64))
    )  # fmt: skip
    return config.Model(
        name=name,
        backbone=config.Backbone(branches=branches, interaction=config.Interaction(heads=4)),
        head=config.MaskRCNN(channels=8, fc_channels=8, mask_convs=1),
        classes=("cat", "dog"),
        preprocess=config.Preprocess(long_side=64, short_side=64),
    )


class Hub:
    """Files under /REPOSITORY/resolve/REVISION/PATH, as the Hub serves them, on the loopback interface."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.stated: dict[str, str] = {}
        """hashes that differ from the contents"""
        self.requests: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(False)

            def do_GET(self) -> None:
                self.answer(True)

            def answer(self, body: bool) -> None:
                hub.requests.append(f"{self.command} {self.path}")
                _, _, path = self.path.partition("/resolve/")
                data = hub.files.get(path.partition("/")[2])
                self.send_response(404 if data is None else 200)
                if data is not None:
                    digest = hub.stated.get(path.partition("/")[2], hashlib.sha256(data).hexdigest())
                    self.send_header("ETag", f'"{digest}"')
                    self.send_header("X-Linked-Etag", f'"{digest}"')
                    self.send_header("X-Linked-Size", str(len(data)))
                    self.send_header("X-Repo-Commit", COMMIT)
                else:
                    self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                if body and data is not None:
                    self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with one released checkpoint, whose model is in the zoo, and empty caches."""
    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("PIIP_HOME", str(tmp_path / "piip"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    model = small_model()
    entry = Entry(NAME, "detection", lambda: model.backbone, model.preprocess, lambda: model.classes,
                  head=model.head, checkpoint=CHECKPOINT)  # type: ignore[arg-type] # fmt: skip
    monkeypatch.setitem(zoo.MODELS, NAME, entry)
    yield server
    server.server.shutdown()
    server.server.server_close()


def release(server: Hub, tmp_path: Path, **extra: Any) -> dict[str, Tensor]:
    torch.manual_seed(5)
    state = opengvlab.to_official(piip.PIIPModel(small_model()))
    torch.save({"state_dict": state, "meta": {}, **extra}, tmp_path / "released.pth")
    server.files[CHECKPOINT] = (tmp_path / "released.pth").read_bytes()
    return state


# -- released weights ------------------------------------------------------------------------------------------------


def test_released_weights_are_fetched_converted_and_cached(server: Hub, tmp_path: Path) -> None:
    state = release(server, tmp_path)
    model = piip.PIIP(NAME, device="cpu", pretrained=True)
    for name, tensor in opengvlab.to_official(model.model).items():
        assert torch.equal(tensor, state[name])
    record = json.loads((tmp_path / "piip" / NAME / "source.json").read_text())
    assert record["sha256"] == hashlib.sha256(server.files[CHECKPOINT]).hexdigest()
    assert record["file"] == CHECKPOINT
    assert any(f"/OpenGVLab/PIIP/resolve/main/{CHECKPOINT}" in request for request in server.requests)
    server.requests.clear()
    assert hub.official_weights(NAME) == tmp_path / "piip" / NAME
    assert server.requests == []


def test_module_functions_and_the_commands_word(server: Hub, tmp_path: Path) -> None:
    release(server, tmp_path)
    folder = hub.resolve("official", NAME)
    assert hub.resolve(tmp_path, None) == tmp_path
    with pytest.raises(WeightsError, match="needs --model NAME"):
        hub.resolve("official", None)
    same = piip.create_model(NAME, pretrained=True)
    other = piip.create_model(NAME, classes=("a", "b", "c"), pretrained=True)
    assert torch.equal(same.backbone.merge.weights[0], other.backbone.merge.weights[0])
    assert other.head.box.scores.out_features == 4
    assert (folder / "model.safetensors").is_file()


def test_a_damaged_cache_is_made_anew(server: Hub, tmp_path: Path) -> None:
    release(server, tmp_path)
    weights = hub.official_weights(NAME) / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-100] + bytes(100))
    hub.official_weights(NAME)
    assert weights.read_bytes() == good
    (weights.parent / "source.json").unlink()  # as after an interruption
    hub.official_weights(NAME)
    assert (weights.parent / "source.json").is_file()


def test_contents_with_another_hash_are_refused_and_removed(server: Hub, tmp_path: Path) -> None:
    release(server, tmp_path)
    server.stated[CHECKPOINT] = "0" * 64
    with pytest.raises(WeightsError, match=r"SHA-256 .*the Hub states 0000.*try again"):
        hub.official_weights(NAME)
    assert not (tmp_path / "piip" / NAME).exists()
    del server.stated[CHECKPOINT]
    assert hub.official_weights(NAME).is_dir()


def test_without_the_file_or_the_network(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"cannot be fetched.*piip convert FILE FOLDER --model NAME"):
        hub.official_weights(NAME)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="cannot be fetched"):
        hub.official_weights(NAME)
    assert not (tmp_path / "piip" / NAME).exists()


def test_a_released_file_with_code_in_it_is_refused(server: Hub, tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "pwned"), "w"))

    release(server, tmp_path, optimizer=Runs())
    with pytest.raises(WeightsError, match="refused: it holds"):
        hub.official_weights(NAME)
    assert not (tmp_path / "pwned").exists()
    assert not (tmp_path / "piip" / NAME).exists()


def test_models_without_released_weights() -> None:
    with pytest.raises(WeightsError, match="no weights were released for it"):
        hub.official_weights("piip_nano_mask_rcnn")
    with pytest.raises(ValueError, match="did you mean"):
        hub.official_weights("piip_nano_mask_rcn")
    with pytest.raises(ValueError, match="needs the name of a published model"):
        piip.PIIP(small_model(), pretrained=True)


# -- users' models ---------------------------------------------------------------------------------------------------


def test_saved_folder_has_a_card_and_loads(tmp_path: Path) -> None:
    model = piip.PIIP(small_model("my_model"), device="cpu")
    model.save_pretrained(tmp_path / "saved", licence="MIT")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    card = (tmp_path / "saved" / "README.md").read_text()
    for part in ("license: mit", "pipeline_tag: object-detection", "# my_model", "cat, dog", "from_pretrained"):
        assert part in card
    assert huggingface_hub.ModelCard(card).data.library_name == "piip"
    loaded = piip.PIIP.from_pretrained(tmp_path / "saved", device="cpu")
    for one, other in zip(model.model.parameters(), loaded.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_card_that_somebody_wrote_is_left_alone(tmp_path: Path) -> None:
    model = piip.PIIP(small_model("my_model"), device="cpu")
    (tmp_path / "README.md").write_text("mine")
    model.save(tmp_path)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    piip.PIIP(small_model("another"), device="cpu").save(tmp_path / "saved")
    model.save(tmp_path / "saved")
    assert "# my_model" in (tmp_path / "saved" / "README.md").read_text()


def test_a_card_tells_of_the_training_and_keeps_it_with_the_weights(tmp_path: Path) -> None:
    facts = Facts({"train": 7, "val": 3}, {"train": 20, "val": 5}, 2, {"box_AP": 0.5})
    write_card(piip.PIIP(small_model(), device="cpu").save(tmp_path / "run").parent, small_model(), facts)
    piip.PIIP(tmp_path / "run").save(tmp_path / "again")
    for folder in ("run", "again"):
        card = (tmp_path / folder / "README.md").read_text()
        for told in ("train: 7 images with 20 objects; val: 3 images with 5 objects. 2 epochs", "| box_AP | 0.5000 |"):
            assert told in card
    assert str(tmp_path) not in card
    assert "@inproceedings{piip" in card


def test_a_card_names_the_licences_of_its_branches() -> None:
    own = small_model().model_copy(update={"backbone": spelled_backbone("test_vit@64 + vit_base_patch16_224.mae@32")})
    assert "test_vit (apache-2.0), vit_base_patch16_224.mae (cc-by-nc-4.0)" in model_card(own)
    published = zoo.entry("piip_tsb_1120_896_448_mask_rcnn")
    names = [name for label, name in published.licences.items() if label != "checkpoint"]
    assert names
    assert all(name in model_card(published.config()) for name in names)


def test_push_and_fetch(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads: dict[str, dict[str, bytes]] = {}

    class Api:
        def __init__(self, **arguments: Any) -> None:
            assert arguments["token"] == "secret"

        def create_repo(self, repository: str, **arguments: Any) -> Any:
            assert arguments == {"private": True, "exist_ok": True}
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{repository}")

        def upload_folder(self, repo_id: str, folder_path: str, commit_message: str) -> None:
            uploads[repo_id] = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    model = piip.PIIP(small_model("my_model"), device="cpu")
    assert model.push_to_hub("me/mine", private=True, token="secret") == "https://huggingface.co/me/mine"
    assert uploads["me/mine"].keys() == {"README.md", "config.json", "model.safetensors"}

    def snapshot_download(name: str, **arguments: Any) -> str:
        assert arguments["allow_patterns"] == ["config.json", "model.safetensors"]
        for file, data in uploads[name].items():
            (tmp_path / file).write_bytes(data)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    fetched = piip.PIIP.from_pretrained("me/mine", device="cpu")
    assert fetched.names == ("cat", "dog")
    with pytest.raises(WeightsError, match="neither a folder here nor a model on the Hub"):
        piip.PIIP.from_pretrained("me/other")


def test_commands_take_official_weights(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    release(server, tmp_path)
    Image.new("RGB", (70, 50), "teal").save(tmp_path / "photo.png")

    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["piip", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)

    predict = ["predict", str(tmp_path / "photo.png"), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert run(*predict, "--weights", "official", "--model", NAME) == 0
    assert (tmp_path / "out" / "predictions.json").is_file()
    assert run(*predict, "--weights", "official") == 2
    assert "needs --model NAME" in capsys.readouterr().err
    assert run("train", "--weights", "official", "--data", str(tmp_path)) == 2
    assert "needs --model NAME" in capsys.readouterr().err
    assert run("train", "--model", NAME, "--data", str(tmp_path), "--branch-weights", "nonsense") == 2
    assert "write BRANCH=SOURCE" in capsys.readouterr().err
