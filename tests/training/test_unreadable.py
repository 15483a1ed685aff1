"""Images that cannot be read are left out, named and replaced, always by the same ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_resume import Crash, assert_same, at_step, crash, outcome
from toy_training import ToyData, toy_metric, toy_model, toy_settings

from piip.data.batches import train_loader
from piip.data.image_files import ImageError
from piip.training.loop import RunResult, train
from piip.training.unreadable import SkipUnreadable


class Broken(ToyData):
    """Some images of it."""

    def __init__(self, length: int, *broken: int) -> None:
        super().__init__(length)
        self.broken = broken

    def __getitem__(self, key: tuple[int, int]) -> Any:
        if key[1] in self.broken:
            raise ImageError(f"{key[1]}.png: truncated")
        return super().__getitem__(key)


def run(folder: Path, data: Any, resume: bool = False, **settings: Any) -> RunResult:
    return train(toy_model(int(resume)), data, toy_settings(**settings), folder, toy_metric, resume=resume)


def batches(data: Any, **settings: Any) -> list[list[int]]:
    fields = {"batch_size": 2, "seed": 3, "epoch": 1} | settings
    return [batch.indices for batch in train_loader(SkipUnreadable(data, seed=3), **fields)]


def test_only_the_broken_ones_are_replaced() -> None:
    whole, mended = batches(ToyData(10)), batches(Broken(10, 4, 7))
    places = [(b, i) for b, batch in enumerate(whole) for i, index in enumerate(batch) if index in (4, 7)]
    assert len(places) == 2
    for b, batch in enumerate(whole):
        for i, index in enumerate(batch):
            assert (mended[b][i] not in (4, 7)) if (b, i) in places else (mended[b][i] == index)


def test_whatever_was_read_before_and_by_whom() -> None:
    expected = batches(Broken(10, 4, 7))
    assert batches(Broken(10, 4, 7), workers=2) == expected
    assert batches(Broken(10, 4, 7), start_batch=3) == expected[3:]
    knowing = SkipUnreadable(Broken(10, 4, 7), seed=3)
    for _ in range(2):
        assert [batch.indices for batch in train_loader(knowing, 2, seed=3, epoch=1)] == expected
    other_epoch = [batch.indices for batch in train_loader(knowing, 2, seed=3, epoch=2)]
    assert len(other_epoch) == 5


def test_a_data_set_that_sees_its_batches_whole() -> None:
    class Whole(Broken):
        def __getitems__(self, keys: list[tuple[int, int]]) -> list[Any]:
            return [self[key] for key in reversed(keys)][::-1]

    assert batches(Whole(10, 4, 7)) == batches(Broken(10, 4, 7))


def test_the_run_goes_on_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(tmp_path, Broken(11, 4, 7), epochs=2)
    assert result.end == "finished"
    written = json.loads((tmp_path / "skipped.json").read_text())
    assert sorted(written["unreadable_images"]) == ["4.png: truncated", "7.png: truncated"]
    said = capsys.readouterr().err
    assert said.count("4.png: truncated") == 1
    assert "images that could not be read: 2, see" in " ".join(said.split())


def test_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "straight", Broken(11, 4, 7), epochs=2)
    at_step(monkeypatch, 2, crash)
    with pytest.raises(Crash):
        run(tmp_path / "resumed", Broken(11, 4, 7), epochs=2, workers=2)
    monkeypatch.undo()
    run(tmp_path / "resumed", Broken(11, 4, 7), resume=True, epochs=2)
    assert_same(outcome(tmp_path / "resumed"), outcome(tmp_path / "straight"))


def test_nothing_but_broken_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"20 images one after the other cannot be read; the last is \d+\.png"):
        run(tmp_path, Broken(5, *range(5)))


def test_too_little_memory_is_no_broken_image() -> None:
    class Starved(ToyData):
        def __getitem__(self, key: tuple[int, int]) -> Any:
            raise ImageError("0.png: broken or truncated image (MemoryError: )") from MemoryError()

    with pytest.raises(MemoryError):
        batches(Starved(3))
