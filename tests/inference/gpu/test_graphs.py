"""When a backbone is captured and replayed, with a stand-in for the capture; on a GPU the real one too."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tests import tiny
from torch import Tensor, nn

from piip.api import PIIP
from piip.backbone.piip import PIIPBackbone
from piip.inference import fuse
from piip.inference.current_copy import InferenceCopy
from piip.inference.gpu import graphs
from piip.inference.gpu.graphs import Captured, Graphs, ReplayedBackbone, set_graphs
from piip.model import PIIPModel
from piip.prediction.predictor import Predictor
from piip.structures import View


class Capture:
    """Stands for `capture_on_gpu`: a replay computes again into the memory of the first outputs."""

    def __init__(self) -> None:
        self.captured, self.replayed = list[tuple[int, ...]](), list[tuple[int, ...]]()

    def __call__(self, function: Callable[[Tensor], Any], images: Tensor) -> Captured:
        own, shape = images.clone(), tuple(images.shape)
        outputs = function(own)
        self.captured.append(shape)

        def replay() -> None:
            self.replayed.append(shape)
            for old, new in zip(outputs, function(own), strict=True):
                getattr(old, "tokens", old).copy_(getattr(new, "tokens", new))

        return Captured(replay, own, outputs, images[0, 0].numel())


class Setting:
    """A folded model whose backbone is captured by a stand-in."""

    def __init__(self, limit: float = float("inf")) -> None:
        torch.manual_seed(0)
        self.capture = Capture()
        self.model = fuse(PIIPModel(tiny.model(2)).eval())
        set_graphs(self.model, on=True)
        self.backbone: Any = self.model.backbone
        self.backbone.graphs = Graphs(self.capture, lambda _: limit)

    def run(self, side: int = 64, times: int = 1, batch: int = 1) -> Tensor:
        """The finest map of the last run, which is compared with the plain one."""
        for _ in range(times):
            images = torch.randn(batch, 3, 32, side)
            with torch.inference_mode():
                maps = self.backbone(images)
                for level, wanted in zip(maps, PIIPBackbone.forward(self.backbone, images), strict=True):
                    assert torch.equal(level, wanted)
        return maps[0]


@pytest.fixture(autouse=True)
def _also_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "DEVICES", ("cuda", "cpu"))


def test_a_size_is_captured_when_it_comes_the_third_time() -> None:
    setting = Setting()
    setting.run(times=2)
    assert not setting.capture.captured
    setting.run()
    assert len(setting.capture.captured) == len(setting.capture.replayed) == 1
    setting.run(times=3)
    assert (len(setting.capture.captured), len(setting.capture.replayed)) == (1, 4)


def test_each_size_batch_and_precision_is_its_own() -> None:
    setting = Setting()
    setting.run(64, times=3)
    setting.run(96, times=3)
    setting.run(64, times=3, batch=2)
    assert setting.capture.captured == [(1, 3, 32, 64), (1, 3, 32, 96), (2, 3, 32, 64)]
    with torch.autocast("cpu", torch.bfloat16):
        setting.run(64, times=2)
        assert len(setting.capture.captured) == 3
        assert setting.run(64).dtype == torch.bfloat16
    assert len(setting.capture.captured) == 4
    assert setting.run(64).dtype == torch.float32
    assert len(setting.capture.captured) == 4


def test_outputs_are_the_caller_s_own() -> None:
    setting = Setting()
    setting.run(times=3)
    first = setting.run()
    before = first.clone()
    setting.run()
    assert torch.equal(first, before)


def test_states_are_replayed_too() -> None:
    setting = Setting()
    images = torch.randn(1, 3, 32, 64)
    with torch.inference_mode():
        expected = PIIPBackbone.states(setting.backbone, images)
        for _ in range(4):
            states = setting.backbone.states(images)
    assert len(setting.capture.replayed) == 2
    for state, wanted in zip(states, expected, strict=True):
        assert state.size == wanted.size
        assert torch.equal(state.tokens, wanted.tokens)


def test_the_least_recently_used_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST", 2)
    monkeypatch.setattr(graphs, "SEEN_AGAIN", 4)
    setting = Setting()
    setting.run(64, times=3)
    setting.run(96, times=3)
    setting.run(64)
    setting.run(128, times=3)
    assert [key[4] for key in setting.backbone.graphs.kept] == [64, 128]
    setting.run(96, times=4)
    assert len(setting.capture.captured) == 3
    setting.run(96)
    assert [key[4] for key in setting.backbone.graphs.kept] == [128, 96]


def test_memory_is_bounded() -> None:
    setting = Setting(limit=32 * 160)
    setting.run(64, times=3)
    setting.run(96, times=3)
    assert len(setting.backbone.graphs.kept) == 2  # 32 * 160 together
    setting.run(128, times=3)
    assert [key[4] for key in setting.backbone.graphs.kept] == [128]
    setting.run(192, times=9)  # too large alone: tried once, and what is kept stays
    assert [key[4] for key in setting.backbone.graphs.kept] == [128]
    assert len(setting.capture.captured) == 4


def test_a_failed_capture_is_said_once_and_the_model_runs() -> None:
    setting = Setting()

    def fails(function: Callable[[Tensor], Any], images: Tensor) -> Captured:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    setting.run(96, times=3)
    setting.backbone.graphs.capture = fails
    setting.run(64, times=2)
    with pytest.warns(UserWarning, match="CUDA graphs have no effect here, .*: operation not permitted .*capturing$"):
        setting.run(64)
    assert not setting.backbone.graphs.kept
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        setting.run(64, times=3)


@pytest.mark.parametrize("in_place", [True, False])
def test_other_weights_are_seen(in_place: bool) -> None:
    setting = Setting()
    setting.run(times=4)
    weight = next(setting.backbone.maps.parameters())
    if in_place:
        with torch.no_grad():
            weight.add_(1)
    else:
        weight.data = weight.detach() + 1
    setting.run(times=2)
    assert len(setting.capture.captured) == 1
    setting.run()
    assert len(setting.capture.captured) == 2


def others(setting: Setting) -> Iterator[tuple[str, Callable[[Tensor], Any]]]:
    """Calls that are not replayed."""
    backbone = setting.backbone
    frame = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    yield "gradients wanted", backbone
    yield "views", lambda images: _inferred(backbone, images, [None, View(images, frame)])
    backbone.train()
    yield "training", lambda images: _inferred(backbone, images)
    backbone.eval()
    handle = backbone.interactions[0].register_forward_hook(lambda *_: None)
    yield "hooks", lambda images: _inferred(backbone, images)
    handle.remove()
    backbone.embed = backbone.embed
    yield "functions put in place", lambda images: _inferred(backbone, images)


@torch.inference_mode()
def _inferred(backbone: nn.Module, *given: Any) -> Any:
    return backbone(*given)


def test_what_is_not_replayed() -> None:
    setting = Setting()
    setting.run(times=3)
    replayed = len(setting.capture.replayed)
    for what, call in others(setting):
        for _ in range(4):
            call(torch.randn(1, 3, 32, 64))
        assert len(setting.capture.replayed) == replayed, what
    assert len(setting.capture.captured) == 1


def test_copies_and_pickles_begin_anew() -> None:
    setting = Setting()
    setting.run(times=3)
    setting.backbone.graphs = graphs_of = Graphs()
    graphs_of.failed = True
    for copied in (copy.deepcopy(setting.backbone), pickle.loads(pickle.dumps(setting.backbone))):
        assert type(copied) is ReplayedBackbone
        assert not copied.graphs.failed


def test_only_copies_and_only_where_it_is_wanted() -> None:
    original = PIIPModel(tiny.model(2)).eval()
    assert type(InferenceCopy(original).get().backbone) is ReplayedBackbone
    assert type(original.backbone) is PIIPBackbone
    assert type(InferenceCopy(original, graphs=False).get().backbone) is PIIPBackbone
    assert type(InferenceCopy(original, fold=False).get().backbone) is PIIPBackbone
    copied = InferenceCopy(original).get()
    set_graphs(copied, on=False)
    assert type(copied.backbone) is PIIPBackbone
    assert not hasattr(copied.backbone, "graphs")


@pytest.mark.parametrize("wanted", [True, False])
def test_whoever_holds_a_model_chooses(wanted: bool) -> None:
    copied = PIIP(PIIPModel(tiny.model(2)).eval(), "cpu", graphs=wanted).predictor().inference.get()
    assert (type(copied.backbone) is ReplayedBackbone) == wanted


def test_on_a_cpu_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "DEVICES", ("cuda",))
    assert type(InferenceCopy(PIIPModel(tiny.model(2)).eval()).get().backbone) is PIIPBackbone


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_predictor_replays_and_finds_the_same() -> None:
    torch.manual_seed(0)
    model = PIIPModel(tiny.model(2)).eval()
    model.head.as_if_trained()
    replaying, plain = Predictor(model, "cuda"), Predictor(model, "cuda", graphs=False)
    for seed in range(6):
        photo = np.random.default_rng(seed).integers(0, 255, (96, 128, 3), dtype=np.uint8)
        actual, wanted = (one.predict(photo, 0.0).results[0] for one in (replaying, plain))
        np.testing.assert_allclose(actual.scores, wanted.scores, atol=1e-5)
    kept: Any = replaying.inference.get().backbone
    assert len(kept.graphs.kept) == 1
    assert not kept.graphs.failed


def test_graphs_for_two_streams_are_captured_on_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where libraries work, a graph works too: one for another stream may run at the same time."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: object())
    graphs._stream.cache_clear()
    device = torch.device("cuda", 0)
    one, again, other = (graphs._stream(device, of) for of in (7, 7, 8))
    assert one is again
    assert one is not other
    graphs._stream.cache_clear()
