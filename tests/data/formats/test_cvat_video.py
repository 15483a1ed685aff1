"""Tracks of a video become the objects of its frames."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from piip.data.detection.annotations import CocoData
from piip.data.detection.coco import read_split
from piip.data.detection.splits import find_splits
from piip.data.report import CheckReport, DataError

META = ("<meta><task><size>{size}</size><labels><label><name>dog</name></label><label><name>car</name></label>"
        "</labels><original_size><width>60</width><height>40</height></original_size></task></meta>")  # fmt: skip


def box(frame: int, x: float, outside: int = 0, **more: object) -> str:
    extra = "".join(f' {name}="{value}"' for name, value in more.items())
    return (f'<box frame="{frame}" outside="{outside}" keyframe="1" xtl="{x}" ytl="4" xbr="{x + 10}" ybr="14"{extra}>'
            "</box>")  # fmt: skip


def track(shapes: str, label: str = "car", **more: object) -> str:
    extra = "".join(f' {name}="{value}"' for name, value in more.items())
    return f'<track id="0" label="{label}"{extra}>{shapes}</track>'


def video(root: Path, tracks: str, frames: range = range(10), size: int = 10) -> tuple[CocoData, CheckReport]:
    (root / "images").mkdir(parents=True, exist_ok=True)
    for number in frames:
        pixels = np.full((40, 60, 3), number, np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"frame_{number:06d}.png")
    (root / "annotations.xml").write_text(f"<annotations>{META.format(size=size)}{tracks}</annotations>")
    return read_split(find_splits(root)["train"])


def left_sides(data: CocoData) -> dict[int, list[float]]:
    """By the frame's number."""
    return {int(image.path.stem[-6:]): [obj.box[0] for obj in image.objects] for image in data.images}


def test_boxes_go_straight_from_keyframe_to_keyframe_and_end_where_they_are_outside(tmp_path: Path) -> None:
    shapes = box(1, 10) + box(5, 18) + box(6, 30, outside=1) + box(8, 2)
    data, report = video(tmp_path, track(shapes))
    assert report.format == "CVAT for video"
    assert data.classes == ("dog", "car")
    assert left_sides(data) == {0: [], 1: [10], 2: [12], 3: [14], 4: [16], 5: [18], 6: [], 7: [], 8: [2], 9: [2]}
    assert {image.size for image in data.images} == {(40, 60)}
    assert not report.errors


def test_a_turned_box_turns_on_the_shorter_side(tmp_path: Path) -> None:
    data, _ = video(tmp_path, track(box(0, 10, rotation=350) + box(2, 10, rotation=10)), range(3), 3)
    assert data.images[1].objects[0].box == pytest.approx((10, 4, 20, 14))


def test_outlines_between_keyframes_are_regions_that_do_not_count(tmp_path: Path) -> None:
    polygons = ('<polygon frame="0" outside="0" points="1,1;9,1;1,9"></polygon>'
                '<polygon frame="2" outside="0" points="11,1;19,1;11,9"></polygon>'
                '<polygon frame="3" outside="1" points="11,1;19,1;11,9"></polygon>')  # fmt: skip
    data, _ = video(tmp_path, track(polygons), range(4), 4)
    first, between, third, fourth = (image.objects for image in data.images)
    assert [obj.segmentation for obj in (*first, *third)] == [[[1, 1, 9, 1, 1, 9]], [[11, 1, 19, 1, 11, 9]]]
    assert [(obj.crowd, obj.box) for obj in between] == [(True, (1, 1, 19, 9))]
    assert not fourth


def test_frames_that_were_numbered_from_one_are_taken_in_their_order(tmp_path: Path) -> None:
    data, _ = video(tmp_path, track(box(2, 10) + box(3, 20, outside=1)), range(1, 5), 4)
    assert left_sides(data) == {1: [], 2: [], 3: [10], 4: []}


def test_missing_frames_are_counted_and_all_missing_is_an_error(tmp_path: Path) -> None:
    data, report = video(tmp_path / "some", track(box(0, 10) + box(4, 20, outside=1)), range(2), 5)
    assert left_sides(data) == {0: [10], 1: [12.5]}
    found = report.find("frame without an image file")
    assert found is not None
    assert (found.count, found.examples) == (2, ["frame 2", "frame 3"])
    with pytest.raises(DataError, match=r"its frames are not in .*numbered from 0.*ffmpeg"):
        video(tmp_path / "none", track(box(0, 10)), range(0))


def test_several_videos_and_strange_shapes(tmp_path: Path) -> None:
    points = '<points frame="0" points="1,1"></points>'
    _, report = video(tmp_path / "a", track(points + box(0, 10)), range(1), 1)
    assert report.find("shape of a track that is no box, polygon, ellipse or mask of a frame") is not None
    with pytest.raises(DataError, match="tracks of several videos"):
        video(tmp_path / "b", track(box(0, 10), task_id=1) + track(box(0, 10), task_id=2), range(1), 1)
