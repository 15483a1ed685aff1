"""`piip predict` of clips: an annotated clip and a line for each frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from piip.cli.options import err, out
from piip.console import say

if TYPE_CHECKING:
    from piip.prediction.options import Options
    from piip.prediction.predictor import Predictor
    from piip.video.clips import Clip
    from piip.video.predicting import Written

STOPPED = 130
"""exit code after a stop from the keyboard, as shells have it"""


def clips_of(sources: Sequence[str], fps: float | None) -> list[Clip] | None:
    """The clips among sources, or folders of frames where their number per second is given; None: images.

    Raises ValueError where there are both, or a number that is no rate.
    """
    from piip.video.clips import FrameFolder, is_clip, opened_clip

    if fps is not None:
        if not 0 < fps <= 1000:
            raise ValueError(f"--fps {fps:g}: use the frames per second of a folder of frames, up to 1000")
        folders = [Path(source).expanduser() for source in sources]
        if wrong := [str(folder) for folder in folders if not folder.is_dir()]:
            raise ValueError(f"--fps is for folders of frames, which {wrong[0]} is not; clips have their own")
        return [FrameFolder(folder, fps) for folder in folders]
    found = [source for source in sources if is_clip(source)]
    if not found:
        return None
    if len(found) < len(sources):
        raise ValueError(f"{found[0]} is a clip, and there are images beside it: predict on one kind after the other")
    return [opened_clip(source) for source in found]


def refuse_with_clips(**given: object) -> None:
    """ValueError for options that clips do not have."""
    if wrong := [f"--{name}" for name, value in given.items() if value]:
        raise ValueError(f"{', '.join(wrong)}: not for clips, which are predicted from their beginning to their end")


def predict_clips(
    predictor: Predictor,
    clips: Sequence[Clip],
    folder: Path,
    options: Options,
    every: int,
    pictures: bool,
    quiet: bool,
) -> None:
    """Write the files of each clip into `folder`, and say what is in them."""
    from piip.video.predicting import check_names, write_clip

    check_names(clips, folder)
    broken = stopped = False
    for clip in clips:
        total = None if clip.count is None else -(-clip.count // every)
        name = TextColumn("{task.description}", markup=False)
        columns = (name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as bar:
            task = bar.add_task(clip.name, total=total)

            def tell(written: Written, bar: Progress = bar, task: object = task) -> None:
                bar.update(task, completed=written.frames)  # type: ignore[arg-type]

            written = write_clip(predictor, clip, folder, options, every, pictures, tell)
        objects = "" if written.objects is None else f", {written.objects} objects"
        places = " and ".join(str(path) for path in (written.lines, written.picture) if path is not None)
        say(out, f"{clip.name}: {written.frames} frames{objects}; {places}")
        if written.damage is not None:
            say(err, f"{clip.name}: {written.damage}; what was before is kept", "yellow")
            broken = True
        if written.stopped:
            say(err, f"{clip.name}: stopped; what was done is kept")
            stopped = clip.count is not None or clip is not clips[-1]
            break
    if broken or stopped:
        raise typer.Exit(STOPPED if stopped else 1)
