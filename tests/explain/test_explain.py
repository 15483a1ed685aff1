import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests import tiny
from typer.testing import CliRunner

import piip
from piip import tasks
from piip.cli import app
from piip.data.synthetic import CLASSES, make_scenes
from piip.explain.ablation import SHOWN, ablation, sample
from piip.explain.contributions import contributions
from piip.explain.parts import parts_of, switched_off
from piip.explain.report import write_pictures
from piip.model import PIIPModel


@pytest.fixture
def model() -> PIIPModel:
    torch.manual_seed(0)
    model = PIIPModel(tiny.model(branches=3)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gamma" in name:
                parameter.normal_()  # fresh exchanges give nothing
    return model


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("scenes"), train=1, val=5)


def maps(model: PIIPModel) -> list[torch.Tensor]:
    images = torch.linspace(-1, 1, 3 * 64 * 96).reshape(1, 3, 64, 96)
    with torch.no_grad():
        return model.features(images)


def same(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_parts_are_named_and_each_matters(model: PIIPModel) -> None:
    parts = parts_of(model)
    assert [part.name for part in parts if part.kind == "directions"] == [
        "branch 0 to 1", "branch 1 to 0", "branch 1 to 2", "branch 2 to 1"
    ]  # fmt: skip
    assert len([part for part in parts if part.kind == "branches"]) == 3
    assert len([part for part in parts if part.kind == "groups"]) == 2
    whole = maps(model)
    for part in parts:
        with switched_off(part):
            assert not same(maps(model), whole), part.name
        assert same(maps(model), whole)


@pytest.mark.parametrize("index", range(3))
def test_a_branch_that_is_off_has_no_say(model: PIIPModel, index: int) -> None:
    part = [part for part in parts_of(model) if part.kind == "branches"][index]
    with switched_off(part):
        before = maps(model)
        with torch.no_grad():
            for parameter in model.backbone.branches[index].parameters():
                parameter.mul_(1.5)
        assert same(maps(model), before)
    assert not same(maps(model), before)


def test_weights_come_back_after_an_error(model: PIIPModel) -> None:
    whole = maps(model)

    def fail() -> None:
        with switched_off(parts_of(model)[0]):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert same(maps(model), whole)


def test_tables_show_what_evaluations_measure() -> None:
    for task, names in SHOWN.items():
        assert set(names) <= set(tasks.named(task).METRICS), task


def test_a_single_branch_has_no_parts() -> None:
    single = PIIPModel(tiny.model(branches=1))
    assert parts_of(single) == []
    with pytest.raises(ValueError, match="single branch"):
        next(ablation(single, None))
    with pytest.raises(ValueError, match="use branches, directions, groups"):
        parts_of(single, ["blocks"])  # type: ignore[list-item]


def test_an_image_s_shares_add_up(model: PIIPModel) -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    found = contributions(model, image)
    assert found.image.shape[:2] == tuple(found.shares.shape[1:])
    torch.testing.assert_close(found.shares.sum(dim=0), torch.ones(found.shares.shape[1:]))
    assert [(look.receiver, look.source) for look in found.looks] == [(0, 1), (1, 0), (1, 2), (2, 1)]
    for look in found.looks:
        assert len(look.points) == look.grid[0] * look.grid[1]
        torch.testing.assert_close(look.weights.sum(dim=1), torch.full((len(look.points),), 4.0))  # one per head
        assert look.shown == (found.image.shape[0] / 96, found.image.shape[1] / 128)  # padded to multiples of 32
    with switched_off(parts_of(model)[1]):
        assert contributions(model, image).shares[1].max() == 0


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float64])
def test_contributions_of_weights_in_another_precision(model: PIIPModel, stored: torch.dtype) -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    rounded = model.to(stored).float()  # the very numbers
    expected = contributions(rounded, image).shares
    found = contributions(rounded.to(stored), image).shares
    torch.testing.assert_close(found, expected)


def test_a_sample_is_the_same_each_time(scenes: Path) -> None:
    data = piip.open_data(scenes, "val")
    some = sample(data, 3)
    assert [image.path for image in some.images] == [image.path for image in sample(data, 3).images]
    assert len(some.images) == 3
    assert sample(data, 9) is data


def test_an_image_that_cannot_be_read_is_told_with_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = make_scenes(tmp_path / "data", train=1, val=3, size=(64, 64))
    broken = sorted((data / "val").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:300])
    weights = piip.PIIP(tiny.model(classes=CLASSES), "cpu").save(tmp_path / "model")
    done = CliRunner().invoke(app, ["explain", "--weights", str(weights), "--data", str(data), "--parts", "branches"])
    assert done.exit_code == 0, done.output
    assert done.stderr.count("without 1 image that could not be read") == 1
    assert "without 1 image that could not be read" in done.stdout
    assert f"no picture of {broken}: broken" in done.stderr
    rows = json.loads(Path("runs/explain/explain.json").read_text())
    assert len(rows) == 3
    assert all(row["unreadable"][0].startswith(f"{broken}: broken") for row in rows)


def test_what_is_lost_is_written_as_it_is_measured(model: PIIPModel, scenes: Path, tmp_path: Path) -> None:
    held = piip.PIIP(model, "cpu")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = held.explain(scenes, parts=["branches"], images=2, output=tmp_path, pictures=2)
    first = next(rows)
    assert first.kind is None
    assert len(json.loads((tmp_path / "explain.json").read_text())) == 1
    rest = list(rows)
    assert [row.kind for row in rest] == ["branches"] * 3
    written = json.loads((tmp_path / "explain.json").read_text())
    assert [entry["part"] for entry in written] == [row.part for row in (first, *rest)]
    assert all("box_AP" in entry["metrics"] for entry in written)
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert len(pictures) == 2
    assert Image.open(pictures[0]).width > 4 * 300
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match=r"explain\.json is there already"):
        next(held.explain(scenes, output=tmp_path))
    with pytest.raises(ValueError, match="use 1 or more"):
        next(held.explain(scenes, images=-1))


def test_pictures_are_made_one_after_the_other(model: PIIPModel, tmp_path: Path) -> None:
    written: list[list[str]] = []

    def images() -> Iterator[tuple[Path, np.ndarray]]:
        for folder in "abc":
            written.append(sorted(path.name for path in tmp_path.iterdir()))
            yield Path(folder, "1.jpg"), np.zeros((32, 32, 3), np.uint8)

    write_pictures(model, images(), tmp_path)
    assert written == [[], ["1.png"], ["1-2.png", "1.png"]]
    assert len(list(tmp_path.iterdir())) == 3
