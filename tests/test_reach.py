"""Where there is no network, what would be fetched is said in a moment and in one sentence."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants, is_offline_mode
from safetensors.torch import save_file

import piip
from piip import reach
from piip.cli import main
from piip.weights.errors import WeightsError
from piip.weights.hub import official_weights

PYRAMID = "test_vit@64 + test_vit@32"


@pytest.fixture(params=["told", "no network"])
def offline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Either way; gives what the sentence says of it."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIIP_HOME", str(tmp_path / "piip"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")  # bound, but nobody listens
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", request.param == "told")
        tries: list[float] = []
        monkeypatch.setattr(time, "sleep", tries.append)
        yield "HF_HUB_OFFLINE is set" if request.param == "told" else "127.0.0.1 cannot be reached"
        assert tries == []  # nobody waited to try again


def test_a_pretrained_pyramid_offers_files(offline: str) -> None:
    with pytest.raises(ConnectionError, match="create_backbone") as error:
        piip.create_backbone(PYRAMID, pretrained=True)
    assert offline in str(error.value)
    assert "\n" not in str(error.value)


def test_branches_by_name_offer_files(offline: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"name: mine\npyramid: {PYRAMID}\nhead: classifier\n")
    model = piip.PIIP(tmp_path / "mine.yaml")
    with pytest.raises(WeightsError, match="load_branches") as error:
        model.load_branches({0: "timm:test_vit"})
    assert offline in str(error.value)


def test_another_architecture_is_refused_before_anything_is_fetched(offline: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"name: mine\npyramid: {PYRAMID}\nhead: classifier\n")
    model = piip.PIIP(tmp_path / "mine.yaml")
    with pytest.raises(WeightsError, match="not a backbone in a known format"):
        model.load_branches({0: "timm:resnet50"})
    with pytest.raises(WeightsError, match="not of branch 1's architecture"):
        model.load_branches({1: "timm:test_vit3"})


def test_upload_released_and_shared_weights(offline: str) -> None:
    with pytest.raises(ConnectionError, match="save_pretrained") as error:
        piip.PIIP("piip_nano_classifier").push_to_hub("me/mine")
    assert offline in str(error.value)
    with pytest.raises(WeightsError, match=offline):
        official_weights("piip_tsb_1120_896_448_mask_rcnn")
    with pytest.raises(WeightsError, match=offline):
        piip.PIIP.from_pretrained("me/mine")


def test_the_command_says_it_in_a_line(offline: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    (tmp_path / "mine.yaml").write_text(f"name: mine\npyramid: {PYRAMID}\nhead: classifier\npretrained: true\n")
    monkeypatch.setattr("sys.argv", ["piip", "benchmark", "--weights", str(tmp_path / "mine.yaml")])
    assert is_offline_mode() is ("HF_HUB_OFFLINE" in offline)
    with pytest.raises(SystemExit):
        main()
    assert "Traceback" not in capsys.readouterr().err


def test_files_take_the_place_of_downloads(offline: str, tmp_path: Path) -> None:
    theirs = timm.create_model("test_vit")
    save_file(theirs.state_dict(), tmp_path / "tiny.safetensors")
    files = dict.fromkeys((0, 1), tmp_path / "tiny.safetensors")
    backbone = piip.create_backbone(PYRAMID, pretrained=True, weights=files)
    for branch in backbone.backbone.branches:
        assert torch.equal(branch.vit.blocks[1].mlp.fc1.weight, theirs.blocks[1].mlp.fc1.weight)
    (tmp_path / "mine.yaml").write_text(f"name: mine\npyramid: {PYRAMID}\nhead: classifier\npretrained: true\n")
    model = piip.PIIP(tmp_path / "mine.yaml")
    model.load_branches(files)
    assert torch.equal(model.model.backbone.branches[1].vit.blocks[1].norm1.weight, theirs.blocks[1].norm1.weight)


def test_the_client_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "unreachable", lambda: "no network")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with reach.hub_at_once() as why:
        assert (why, is_offline_mode()) == ("no network", True)
    assert not is_offline_mode()


def test_a_proxy_is_asked_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], _: float) -> socket.socket:
        asked.append(address)
        return socket.socket()

    monkeypatch.setattr(reach.socket, "create_connection", connect)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    monkeypatch.setattr(reach, "getproxies", dict)
    assert reach.unreachable() is None
    monkeypatch.setattr(reach, "getproxies", lambda: {"https": "http://proxy.example:3128"})
    monkeypatch.setattr(reach, "proxy_bypass", lambda host: False)
    assert reach.unreachable() is None
    assert asked == [("hub.example", 443), ("proxy.example", 3128)]
