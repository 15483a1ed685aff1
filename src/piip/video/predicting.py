"""Predict on clips: one frame's result after the other, and files of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from piip.files import json_text, refuse_taken
from piip.prediction.files import REMEDY
from piip.prediction.options import Options
from piip.prediction.predictor import Predictor
from piip.prediction.results import AnyResult
from piip.prediction.sources import Failure
from piip.video.clips import Clip, Frame
from piip.video.drawn import drawn_clip

PICTURE, LINES = ".mp4", ".jsonl"
GONE = np.zeros((0, 0, 3), dtype=np.uint8)
"""pixels of a frame that the model has"""


@dataclass
class Written:
    """What was predicted of one clip, and where it is."""

    lines: Path
    """a line for each frame"""
    picture: Path | None
    """the annotated clip; None where none was asked for, or no frame was there"""
    frames: int = 0
    objects: int | None = None
    """found in all frames; None for tasks without objects"""
    stopped: bool = False
    """from the keyboard"""
    damage: str | None = None
    """what ended the clip early"""


def results_of(predictor: Predictor, clip: Clip, options: Options, every: int = 1) -> Iterator[tuple[Frame, AnyResult]]:
    """Every so many frames of a clip (without their pixels, which the results have) with their results, in order.

    No more than a few batches are in memory at a time. `clip.damage` says afterwards what ended it early.

    Raises ValueError for a number of frames below 1.
    """
    if every < 1:
        raise ValueError(f"every {every}: use a whole number, 1 or more")
    ahead: deque[Frame] = deque()

    def images() -> Iterator[np.ndarray]:
        for frame in clip.frames(every):
            ahead.append(frame._replace(pixels=GONE))
            yield frame.pixels

    for outcome in predictor.outcomes(images(), replace(options, bgr=False)):
        assert not isinstance(outcome, Failure)  # arrays are none
        frame = ahead.popleft()
        yield frame, outcome.of_frame(frame.number, frame.seconds)


def check_names(clips: Sequence[Clip], folder: Path) -> None:
    """ValueError where two clips are of one name, or one of their files is there already: said before any is begun."""
    names = [clip.name for clip in clips]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two clips are called {twice[0]}, as their results would be: predict on one after the other, "
                         "into folders of their own")  # fmt: skip
    refuse_taken((path for name in names for path in _files_of(name, folder)), REMEDY)


def _files_of(name: str, folder: Path) -> tuple[Path, Path]:
    return folder / (name + LINES), folder / (name + PICTURE)


def write_clip(
    predictor: Predictor,
    clip: Clip,
    folder: Path,
    options: Options,
    every: int = 1,
    pictures: bool = True,
    tell: Callable[[Written], None] = lambda written: None,
) -> Written:
    """Write NAME.jsonl, a line for each frame as it is done, and the annotated NAME.mp4 into `folder`.

    A stop from the keyboard (the usual end of a camera's) and a broken clip keep what was done.

    Raises ValueError where one of the files is there already.
    """
    predictor.check(options)
    paths = _files_of(clip.name, folder)
    refuse_taken(paths, REMEDY)
    folder.mkdir(parents=True, exist_ok=True)
    written = Written(paths[0], paths[1] if pictures else None)
    with ExitStack() as stack:
        lines = stack.enter_context(written.lines.open("x", encoding="utf-8"))
        drawn = None if written.picture is None else stack.enter_context(drawn_clip(written.picture, clip.time_base))
        try:
            for frame, result in results_of(predictor, clip, options, every):
                if drawn is not None:
                    drawn.add(result.plot_frame(), frame.stamp)
                lines.write(json_text({"frame": frame.number, "seconds": round(frame.seconds, 6), **result.to_dict()}))
                lines.write("\n")
                lines.flush()
                written.frames += 1
                if result.count is not None:
                    written.objects = (written.objects or 0) + result.count
                tell(written)
        except KeyboardInterrupt:
            written.stopped = True
    if written.picture is not None and not written.frames:
        written.picture.unlink()  # which holds nothing
        written.picture = None
    written.damage = clip.damage
    return written
