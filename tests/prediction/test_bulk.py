"""Many images into one folder: taken up again after whatever ended it, in parts, without losing or doubling one."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests import tiny

import piip
from piip.lock import NAME, RunInUse
from piip.prediction.bulk import Keeping, write_all
from piip.prediction.files import Written
from piip.prediction.listing import Shard
from piip.prediction.options import Options
from piip.prediction.predictor import Predictor
from piip.prediction.sources import images_of

ANY = Options(conf=0.0)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return piip.PIIP(tiny.model(), device="cpu").predictor()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        shape = (40, 60, 3) if number % 3 else (60, 40, 3)
        pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def run(predictor: Predictor, source: Any, out: Path, options: Options = ANY, **keeping: Any) -> Written:
    return write_all(predictor, images_of(source), out, options, Keeping(**keeping))


def rows(folder: Path, name: str = "predictions") -> list[dict[str, Any]]:
    lines = (folder / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def everything_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "run.json"}


def interrupt(predictor: Predictor, source: Path, out: Path, after: int) -> None:
    def tell(outcome: object) -> None:
        if len(rows(out)) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_all(predictor, images_of(source), out, ANY, tell=tell)


HOLD = """
import sys, time
from pathlib import Path
from piip.lock import locked
with locked(Path(sys.argv[1]), "prediction"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_programs_never_write_into_one_folder(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    out = tmp_path / "out"
    interrupt(predictor, photos, out, 2)
    before = everything_in(out)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with pytest.raises(RunInUse, match="a prediction is at work here"):
                run(predictor, photos, out, resume=True)
        finally:
            other.kill()
    (out / NAME).unlink()  # its own
    assert everything_in(out) == before
    assert run(predictor, photos, out, resume=True).images == 6
    assert not (out / NAME).exists()


@pytest.mark.parametrize("after", [1, 4, 6])
def test_what_was_interrupted_ends_as_if_it_had_not_been(
    predictor: Predictor, photos: Path, tmp_path: Path, after: int
) -> None:
    run(predictor, photos, tmp_path / "whole")
    out = tmp_path / "out"
    interrupt(predictor, photos, out, after)
    written = run(predictor, photos, out, resume=True)
    assert (written.images, written.objects) == (6, len(rows(out, "coco_results")))
    assert everything_in(out) == everything_in(tmp_path / "whole")
    assert run(predictor, photos, out, resume=True).images == 6
    assert everything_in(out) == everything_in(tmp_path / "whole")


def test_what_a_kill_left_in_the_middle_of_an_image_is_done_again(
    predictor: Predictor, photos: Path, tmp_path: Path
) -> None:
    run(predictor, photos, tmp_path / "whole")
    out = tmp_path / "out"
    interrupt(predictor, photos, out, 3)
    with (out / "predictions.jsonl").open("a") as file:
        file.write('{"id": 4, "picture": "3.j')
    with (out / "coco_results.jsonl").open("a") as file:
        file.write('{"image_id": 4, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}\n{"image_')
    (out / "3.jpg").write_bytes(b"half")
    run(predictor, photos, out, resume=True)
    assert everything_in(out) == everything_in(tmp_path / "whole")


def test_a_damaged_line_is_named_and_nothing_is_cut_off(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(predictor, photos, out)
    path = out / "predictions.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{", *lines[2:]]) + "\n")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"predictions.jsonl, line 2: no line of results"):
        run(predictor, photos, out, resume=True)
    assert path.read_bytes() == before


def test_an_image_that_is_listed_twice_is_done_twice_and_new_ones_are_added(
    predictor: Predictor, photos: Path, tmp_path: Path
) -> None:
    out, few = tmp_path / "out", [photos / "0.png", photos / "1.png"]
    run(predictor, few, out)
    written = run(predictor, [*few, few[0], photos / "2.png"], out, resume=True)
    assert written.images == 4
    assert [Path(row["path"]).name for row in rows(out)] == ["0.png", "1.png", "0.png", "2.png"]
    assert [row["picture"] for row in rows(out)] == ["0.jpg", "1.jpg", "0-2.jpg", "2.jpg"]
    assert [row["id"] for row in rows(out)] == [1, 2, 3, 4]


def test_other_settings_are_refused(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    interrupt(predictor, photos, out, 2)
    before = everything_in(out)
    for options, keeping in (
        (Options(conf=0.5), {}),
        (ANY, {"pictures": False}),
        (ANY, {"shard": Shard(1, 2)}),
        (ANY, {"told": {"weights": "other"}}),
    ):
        with pytest.raises(ValueError, match=r"with other settings: .*\(was .*, now .*\)"):
            run(predictor, photos, out, options, resume=True, **keeping)
    with pytest.raises(ValueError, match="is there already.* with --resume it goes on"):
        run(predictor, photos, out)
    assert everything_in(out) == before
    assert run(predictor, photos, out, Options(conf=0.0, batch_size=2, workers=1), resume=True).images == 6


def test_shards_are_a_partition(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    parts = [Shard.of(f"{number}/4") for number in range(1, 5)]
    assert [part.name for part in parts] == ["1-of-4", "2-of-4", "3-of-4", "4-of-4"]
    for part in parts:
        run(predictor, photos, tmp_path / part.name, shard=part)
    found = [row for part in parts for row in rows(tmp_path / part.name)]
    assert {row["id"]: Path(row["path"]).stem for row in found} == {i + 1: str(i) for i in range(6)}
    run(predictor, photos, tmp_path / "whole")
    together = sorted(found, key=lambda row: row["id"])
    assert together == rows(tmp_path / "whole")
    ids = {entry["image_id"] for part in parts for entry in rows(tmp_path / part.name, "coco_results")}
    assert ids == {entry["image_id"] for entry in rows(tmp_path / "whole", "coco_results")}
    assert Shard.of("3/12").name == "03-of-12"


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "-1/4", "1/0", ""])
def test_shards_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="use its number, from 1, and how many there are"):
        Shard.of(text)


def test_failures_are_listed_and_tried_again(
    predictor: Predictor, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "1.png").write_bytes(b"no image")
    (photos / "4.png").rename(tmp_path / "4.png")
    (photos / "4.png").write_bytes(b"")
    looked = []

    def tell(outcome: object) -> None:
        looked.append(outcome)
        if len(looked) == 6:  # the network's disk is there again
            (tmp_path / "4.png").replace(photos / "4.png")

    out = tmp_path / "out"
    written = write_all(predictor, images_of(photos), out, ANY, tell=tell)
    assert len(looked) == 8
    assert written.images == 5
    assert [failure.path.name for failure in written.failures] == ["1.png"]
    assert [Path(row["path"]).name for row in rows(out, "failures")] == ["1.png"]
    assert rows(out, "failures")[0]["reason"].startswith("not an image"), "its path is beside it"
    assert [Path(row["path"]).stem for row in rows(out)] == ["0", "2", "3", "5", "4"]
    (photos / "0.png").replace(photos / "1.png")  # mended, and one is gone
    written = run(predictor, [photos / f"{number}.png" for number in (1, 2)], out, resume=True)
    assert written.images == 6
    assert not (out / "failures.jsonl").exists()


def test_without_pictures_there_are_lists_only(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    run(predictor, photos, tmp_path / "whole")
    run(predictor, photos, tmp_path / "out", pictures=False)
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".jsonl"}
    expected = [{name: value for name, value in row.items() if name != "picture"} for row in rows(tmp_path / "whole")]
    assert rows(tmp_path / "out") == expected
    assert rows(tmp_path / "out", "coco_results") == rows(tmp_path / "whole", "coco_results")
    run(predictor, photos, photos, pictures=False)  # nothing can be written over


def test_workers_change_nothing(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    (photos / "2.png").write_bytes(b"no image")
    run(predictor, photos, tmp_path / "here")
    run(predictor, photos, tmp_path / "beside", Options(conf=0.0, workers=2))
    assert everything_in(tmp_path / "here") == everything_in(tmp_path / "beside")


def test_parts_and_going_on_need_files(predictor: Predictor, tmp_path: Path) -> None:
    for keeping in ({"resume": True}, {"shard": Shard(1, 2)}):
        with pytest.raises(ValueError, match="only files that are known beforehand"):
            run(predictor, [np.zeros((8, 8, 3), np.uint8)], tmp_path / "out", **keeping)


@pytest.mark.slow
def test_a_killed_process_loses_and_doubles_nothing(photos: Path, tmp_path: Path) -> None:
    model = piip.PIIP(tiny.model(), device="cpu")
    weights = model.save(tmp_path / "model")
    for number in range(6, 60):
        (photos / f"{number:02}.png").write_bytes((photos / f"{number % 6}.png").read_bytes())
    out = tmp_path / "out"
    command = [sys.executable, "-m", "piip", "predict", photos, "--weights", weights, "--conf", "0", "--resume"]
    for wanted in (7, 23, 41):
        process = subprocess.Popen([*command, "--output", out, "--workers", "2", "--quiet"])
        lines = out / "predictions.jsonl"
        while not lines.exists() or len(lines.read_bytes().splitlines()) < wanted:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, "--output", out], check=True)
    subprocess.run([*command, "--output", tmp_path / "whole"], check=True)
    assert everything_in(out) == everything_in(tmp_path / "whole")
    assert len(rows(out)) == 60
