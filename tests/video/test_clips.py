"""Clips: every frame once with its time stamp, upright, and what of a broken one is kept."""

import json
import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from tests import tiny
from tests.test_cli_predict import run

import piip
from piip.console import Terminal
from piip.data.image_files import ImageError
from piip.prediction.label_map import SegmentationResult
from piip.video.clips import Camera, Frame, FrameFolder, is_clip, opened_clip
from piip.video.drawn import drawn_clip

BASE = Fraction(1, 1000)
EVEN = tuple(range(0, 480, 40))
VARIABLE = (0, 40, 90, 300, 310, 900)


def picture(number: int, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    """Grey by its number, with a white corner at the top left."""
    pixels = np.full((*size, 3), 20 + 10 * number, dtype=np.uint8)
    pixels[: size[0] // 3, : size[1] // 3] = 250
    return pixels


def make_clip(path: Path, stamps: tuple[int, ...] = EVEN, size: tuple[int, int] = (64, 96), kind: str = "mp4") -> Path:
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], "yuv420p"
        stream.codec_context.time_base = BASE
        stream.options = {"crf": "10", "g": "1"}
        for number, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")
            frame.pts, frame.time_base = stamp, BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turned(path: Path) -> Path:
    """The clip with the note that it is to be shown a quarter to the right, as telephones write it."""
    content = path.read_bytes()
    place = content.index(struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30), content.index(b"tkhd"))
    matrix = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 64 << 16, 0, 1 << 30)
    path.write_bytes(content[:place] + matrix + content[place + len(matrix) :])
    return path


def frames_of(path: Path, every: int = 1) -> list[Frame]:
    return list(opened_clip(path).frames(every))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    return piip.PIIP(tiny.model(classes=("disc", "triangle", "cross")), device="cpu").save(folder / "model")


def test_every_frame_comes_once_with_its_own_time(tmp_path: Path) -> None:
    found = frames_of(make_clip(tmp_path / "a.mp4", VARIABLE))
    assert [frame.number for frame in found] == list(range(6))
    assert [frame.seconds for frame in found] == pytest.approx([stamp / 1000 for stamp in VARIABLE])
    for frame in found:
        assert frame.pixels[-1, -1].astype(int) == pytest.approx(picture(frame.number)[-1, -1], abs=6)
    some = frames_of(tmp_path / "a.mp4", every=4)
    assert [(frame.number, frame.seconds) for frame in some] == [(0, 0.0), (4, pytest.approx(0.31))]


def test_a_clip_that_was_held_upright_is_upright(tmp_path: Path) -> None:
    plain = frames_of(make_clip(tmp_path / "a.mp4", EVEN[:2]))[0].pixels
    (frame, _) = frames_of(turned(tmp_path / "a.mp4"))
    assert frame.pixels.shape == (96, 64, 3)
    assert np.array_equal(frame.pixels, np.rot90(plain, -1))
    assert frame.pixels[5, -5, 0] > 200  # the corner at the top left is now at the top right


def test_what_is_written_has_the_times_of_what_was_read(tmp_path: Path) -> None:
    clip = opened_clip(make_clip(tmp_path / "a.mp4", VARIABLE, size=(64, 96)))
    with drawn_clip(tmp_path / "b.mp4", clip.time_base) as drawn:
        for frame in clip.frames():
            drawn.add(frame.pixels[:63, :95], frame.stamp)  # odd sides, which the format does not have
    again = frames_of(tmp_path / "b.mp4")
    assert [frame.seconds for frame in again] == pytest.approx([stamp / 1000 for stamp in VARIABLE])
    assert again[0].pixels.shape == (64, 96, 3)


def test_the_command_writes_a_clip_and_a_line_for_each_frame(weights: Path, tmp_path: Path) -> None:
    clip, out = make_clip(tmp_path / "drive.mp4", VARIABLE), tmp_path / "out"
    common = ("predict", clip, "--weights", weights, "--conf", 0, "--detections", 3)
    done = run(*common, "--output", out, "--every", 2, "--batch-size", 2)
    assert done.exit_code == 0, done.exception
    lines = [json.loads(line) for line in (out / "drive.jsonl").read_text().splitlines()]
    assert [(line["frame"], line["seconds"]) for line in lines] == [(0, 0.0), (2, 0.09), (4, 0.31)]
    assert all(len(line["objects"]) == 3 and line["width"] == 96 for line in lines)
    assert [frame.seconds for frame in frames_of(out / "drive.mp4")] == pytest.approx([0, 0.09, 0.31])
    assert {path.name for path in out.iterdir()} == {"drive.mp4", "drive.jsonl"}
    before = clip.read_bytes()
    assert "choose another folder" in str(run(*common, "--output", tmp_path).exception)
    assert clip.read_bytes() == before
    refused = run(*common, tmp_path, "--output", tmp_path / "more")
    assert "predict on one kind after the other" in str(refused.exception)
    assert "--resume: not for clips" in str(run(*common, "--output", tmp_path / "more", "--resume").exception)


def test_a_broken_clip_keeps_what_was_before(weights: Path, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "long.mp4")
    with av.open(str(clip)) as container:
        place = [packet.pos for packet in container.demux(video=0)][6]
    content = bytearray(clip.read_bytes())
    content[place : place + 60] = b"\xff" * 60
    clip.write_bytes(content)
    done = run("predict", clip, "--weights", weights, "--output", tmp_path / "out")
    assert done.exit_code == 1
    assert "long: broken at frame 6, after 0.20 s" in done.output
    assert len((tmp_path / "out" / "long.jsonl").read_text().splitlines()) == 6
    assert len(frames_of(tmp_path / "out" / "long.mp4")) == 6
    model, seen = piip.PIIP(weights, device="cpu"), []
    with pytest.raises(ImageError, match="broken at frame 6"):
        seen.extend(result.frame for result in model.predict(clip, stream=True))
    assert seen == list(range(6))


def test_results_come_one_by_one(weights: Path, tmp_path: Path) -> None:
    model, clip = piip.PIIP(weights, device="cpu"), make_clip(tmp_path / "a.mp4", VARIABLE)
    results = model.predict(str(clip), stream=True, every=3, conf=0.0)
    assert [(result.frame, result.seconds, result.orig_shape) for result in results] == [
        (0, 0.0, (64, 96)), (3, pytest.approx(0.3), (64, 96))
    ]  # fmt: skip
    with pytest.raises(ValueError, match="is a clip: stream=True"):
        model.predict(clip)
    Image.fromarray(picture(0)).save(tmp_path / "one.png")
    (tmp_path / "two.png").write_bytes(b"broken")
    streamed = model.predict([tmp_path / "one.png", tmp_path / "two.png"], stream=True)
    assert next(streamed).frame is None
    with pytest.raises(ImageError, match=r"two\.png"):
        next(streamed)


def test_a_folder_of_frames_becomes_a_clip(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(picture(number)).save(folder / f"{number:04}.png")
    done = run("predict", folder, "--weights", weights, "--output", tmp_path / "out", "--fps", 10)
    assert done.exit_code == 0, done.exception
    assert [frame.seconds for frame in frames_of(tmp_path / "out" / "frames.mp4")] == pytest.approx([0, 0.1, 0.2])
    assert "is for folders of frames" in str(
        run("predict", folder / "0000.png", "--weights", weights, "--fps", 10).exception
    )


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (1, 2, 10, 11, 100):
        Image.fromarray(picture(0)).save(tmp_path / f"frame{number}_2x.png")
    (tmp_path / "frame007_2x.png").write_bytes((tmp_path / "frame1_2x.png").read_bytes())
    assert [file.name.split("_")[0][5:] for file in FrameFolder(tmp_path, 25).files] == [
        "1",
        "2",
        "007",
        "10",
        "11",
        "100",
    ]


def test_clips_of_one_name_are_refused_before_the_first(weights: Path, tmp_path: Path) -> None:
    clips = [make_clip(tmp_path / f"{name}.mp4") for name in ("a", "b")]
    (tmp_path / "other").mkdir()
    clips.append(make_clip(tmp_path / "other" / "a.mp4"))
    out = tmp_path / "out"
    done = run("predict", clips[0], clips[2], "--weights", weights, "--output", out)
    assert "two clips are called a" in str(done.exception)
    assert not out.exists()
    out.mkdir()
    (out / "b.jsonl").write_text("mine")
    assert "is there already" in str(run("predict", *clips[:2], "--weights", weights, "--output", out).exception)
    assert [path.name for path in out.iterdir()] == ["b.jsonl"]


@pytest.mark.parametrize(("rate", "seconds"), [(1 / 3600, 3600), (1 / 1500, 1500), (0.3, 10 / 3), (29.97, 1 / 29.97)])
def test_frames_of_hours_have_their_times(tmp_path: Path, rate: float, seconds: float) -> None:
    for number in range(2):
        Image.fromarray(picture(number)).save(tmp_path / f"{number:04}.png")
    clip = FrameFolder(tmp_path, rate)
    frames = list(clip.frames())
    assert [frame.seconds for frame in frames] == pytest.approx([0, seconds])
    with drawn_clip(tmp_path / "clip.mp4", clip.time_base) as drawn:
        for frame in frames:
            drawn.add(frame.pixels, frame.stamp)
    assert [frame.seconds for frame in frames_of(tmp_path / "clip.mp4")] == pytest.approx([0, seconds], rel=1e-3)


def test_a_colon_in_a_name_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.name == "nt":
        pytest.skip("no such name there")
    make_clip(tmp_path / "a.mp4").rename(tmp_path / "clip-12:30.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(frames_of(Path("clip-12:30.mp4"))) == len(EVEN)
    with drawn_clip(Path("b-12:30.mp4"), BASE) as drawn:
        drawn.add(picture(0), 0)
    assert len(frames_of(Path("b-12:30.mp4"))) == 1


def test_frames_of_label_maps_are_drawn_in_one_place(tmp_path: Path) -> None:
    names = ("a", "a much longer name of a class", "b")
    labels = np.zeros((64, 96), dtype=np.int32)
    with drawn_clip(tmp_path / "a.mp4", BASE) as drawn:
        for number, label in enumerate((0, 1, 2)):
            labels[:, 48:] = label
            scores = np.ones(labels.shape, dtype=np.float32)
            drawn.add(SegmentationResult(labels.copy(), scores, names, picture(0)).plot_frame(), 40 * number)
    found = [frame.pixels.astype(int) for frame in frames_of(tmp_path / "a.mp4")]
    for pixels in found[1:]:  # the left half of the image has the same label in all of them
        assert np.abs(pixels[:, :44] - found[0][:, :44]).max() < 40


def test_a_camera_that_is_unplugged_keeps_what_was_before(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unplugged:
        """A container whose stream ends in an error."""

        def __init__(self, container: Any) -> None:
            self.container, self.streams = container, container.streams

        def __enter__(self) -> "Unplugged":
            return self

        def __exit__(self, *_: object) -> None:
            self.container.close()

        def demux(self, stream: Any) -> Iterator[Any]:
            for number, packet in enumerate(self.container.demux(stream)):
                if number == 4:
                    raise av.FFmpegError(19, "No such device")
                yield packet

        def decode(self, stream: Any) -> Iterator[Any]:
            for packet in self.demux(stream):
                yield from packet.decode()

    file = make_clip(tmp_path / "a.mp4")
    monkeypatch.setattr(Camera, "_opened", lambda _: Unplugged(av.open(str(file))))
    done = run("predict", "3", "--weights", weights, "--output", tmp_path / "out")
    assert done.exit_code == 1
    assert "camera3: ended after 4 frames: No such device; what was before is kept" in done.output
    assert len((tmp_path / "out" / "camera3.jsonl").read_text().splitlines()) == 4
    assert len(frames_of(tmp_path / "out" / "camera3.mp4")) == 4


def test_names_with_braces_and_brackets_are_shown_as_they_are(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piip.cli.clips.err", Terminal(force_terminal=True, stderr=True))
    clip = make_clip(tmp_path / "a{b}[red].mp4", EVEN[:2])
    done = run("predict", clip, "--weights", weights, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.exception


def test_what_is_no_clip_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_clip("7")
    assert is_clip(0)
    assert is_clip(Path("x.MOV"))
    assert not is_clip("x.png")
    Path("7").mkdir()
    assert not is_clip("7")  # a folder of that name
    with pytest.raises(ValueError, match=r"there is no camera 93 here .* numbered from 0"):
        opened_clip(93)
    with pytest.raises(ValueError, match="nothing is fetched from the network"):
        opened_clip("https://example.org/a.mp4")
    with pytest.raises(FileNotFoundError, match=r"a\.mp4: no such file"):
        opened_clip("a.mp4")
    Path("a.mp4").write_bytes(b"no clip at all")
    with pytest.raises(ImageError, match=r"a\.mp4: no clip that can be read"):
        opened_clip("a.mp4")


def test_a_stop_keeps_what_was_done(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from piip.prediction.objects import Result

    drawn, plot = [], Result.plot

    def stop(result: Result) -> np.ndarray:
        drawn.append(result.frame)
        if result.frame == 3:
            raise KeyboardInterrupt
        return plot(result)

    monkeypatch.setattr(Result, "plot", stop)
    done = run("predict", make_clip(tmp_path / "a.mp4"), "--weights", weights, "--output", tmp_path / "out")
    assert done.exit_code == 130
    assert "stopped; what was done is kept" in done.output
    assert len((tmp_path / "out" / "a.jsonl").read_text().splitlines()) == 3
    assert len(frames_of(tmp_path / "out" / "a.mp4")) == 3
