"""Packed images are the images that they were made of, in this process and in others."""

import copy
import itertools
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest

from piip.data import shared_file
from piip.data.detection.annotations import CocoData, CocoImage, CocoObject
from piip.data.detection.packed import PackedImages
from piip.data.shared_file import SharedFile, shared, to_this_machine

OUTLINES = (
    None,
    [[0.0, 1.5, 3.0, 4.0, 5.0, 6.0]],
    [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.5, 4.0]],
    {"size": [4, 5], "counts": "123"},
    {"size": [4, 5], "counts": [3, 7, 10]},
)


def objects() -> tuple[CocoObject, ...]:
    kinds = itertools.product(OUTLINES, (False, True), (-3, 2**63 + 1))
    return tuple(CocoObject((0.0, 0.1, 2.0, 3.3), label, outline, crowd, number, 0.7)
                 for label, (outline, crowd, number) in enumerate(kinds))  # fmt: skip


@pytest.fixture
def images() -> list[CocoImage]:
    return [
        CocoImage(1, Path("a.png"), (4, 5), True, objects()),
        CocoImage(-(2**62), Path("/x/é\u0301.jpg"), (4, 5), False),
        CocoImage(2**63, Path("u/\udcff.png"), (70000, 5), True, objects()[::3]),
    ]


def test_packed_images_are_what_they_were_made_of(images):
    packed = PackedImages(iter(images))
    assert len(packed) == 3
    assert list(packed) == images
    assert packed == images
    assert images == packed
    assert packed[-1] == images[-1]
    assert packed[:2] == images[:2]
    assert packed[0].objects[3] == images[0].objects[3]
    assert packed[0].objects[1:3] == images[0].objects[1:3]
    assert packed != images[:2]
    assert packed != [*images[:2], images[0]]
    assert PackedImages() == []
    with pytest.raises(IndexError):
        packed[3]
    assert {type(image.path) for image in packed} == {type(Path())}


def test_counts_and_labels(images):
    packed = PackedImages(images)
    assert packed.object_counts().tolist() == [
        [len(image.objects), sum(not obj.crowd for obj in image.objects)] for image in images
    ]
    assert packed.labels().tolist() == [obj.label for image in images for obj in image.objects if not obj.crowd]
    assert packed.used_labels() == {obj.label for image in images for obj in image.objects}
    other = packed.relabelled([label + 5 for label in range(20)])
    assert other.labels().tolist() == [label + 5 for label in packed.labels().tolist()]
    assert packed == images
    assert PackedImages().relabelled([]) == []
    assert PackedImages().object_counts().shape == (0, 2)


def test_data_of_a_list_takes_other_labels_too(images):
    data = CocoData(images[1:], tuple("abcdefghijklmnopqrst"), tuple(range(20)), False)
    other = data.with_classes((*"tsrqponmlkjihgfedcba",))
    assert [obj.label for obj in other.images[1].objects] == [19 - obj.label for obj in images[2].objects]


def test_copies_and_pickles(images):
    packed = PackedImages(images)
    assert copy.deepcopy(packed) is packed
    assert pickle.loads(pickle.dumps(packed)) == images
    assert pickle.loads(pickle.dumps(PackedImages())) == []
    assert pickle.loads(pickle.dumps(packed[0])) == images[0]


def answer(packed: PackedImages, queue: "multiprocessing.Queue[object]") -> None:
    queue.put((len(packed), [len(image.objects) for image in packed], packed[2].objects[-1]))


@pytest.mark.slow  # another process imports everything
def test_a_spawned_process_uses_the_same_file(images):
    spawning = multiprocessing.get_context("spawn")
    packed, queue = PackedImages(images * 50), spawning.Queue()
    process = spawning.Process(target=answer, args=(packed, queue))
    process.start()
    assert queue.get(timeout=120) == (150, [len(image.objects) for image in images * 50], images[2].objects[-1])
    process.join()
    name = packed._file.name
    assert Path(name).exists()
    assert packed == images * 50
    del packed
    assert not Path(name).exists()


def test_what_goes_to_another_process_is_the_name_of_a_file(images, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    packed = PackedImages(images * 100)
    whole = len(ForkingPickler.dumps(packed))
    with to_this_machine():
        sent = bytes(ForkingPickler.dumps(packed))
        again = bytes(ForkingPickler.dumps(packed))
        other = pickle.loads(sent)
    assert len(sent) < 1000 < 100_000 < whole
    assert sent == again
    assert len(list(tmp_path.iterdir())) == 1
    assert other == packed == images * 100
    with to_this_machine():
        assert bytes(ForkingPickler.dumps(other)) == sent
    del packed
    assert list(tmp_path.iterdir()) == []
    assert other == images * 100
    with to_this_machine():
        assert pickle.loads(ForkingPickler.dumps(other)) == other  # has made a file of its own


def test_without_room_the_bytes_are_sent(images, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    packed = PackedImages(images)
    with to_this_machine():
        assert pickle.loads(ForkingPickler.dumps(packed)) == images


LEAVE = """
import os, sys, tempfile
tempfile.tempdir = sys.argv[1]
from piip.data.shared_file import shared
held = shared([b"abc"])
os._exit(0)
"""


@pytest.mark.skipif(shared_file.fcntl is None, reason="needs locks")
def test_a_file_that_a_killed_process_left_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    subprocess.run([sys.executable, "-c", LEAVE, tmp_path], check=True)
    (left,) = tmp_path.iterdir()
    held = shared([b"ab", b"", b"c"])
    assert left.exists()  # not old enough to be sure
    old = time.time() - 2 * shared_file.OLD
    os.utime(left, (old, old))
    os.utime(held.name, (old, old))
    mine = tmp_path / "piip-shared-results.bytes"
    mine.write_bytes(b"mine")
    os.utime(mine, (0, 0))
    another = shared([])
    assert not left.exists()
    assert mine.exists()
    assert SharedFile(held.name, held.lengths).parts == (b"ab", b"", b"c")
    assert SharedFile(another.name, ()).parts == ()


def test_opening_asks_for_a_file_that_is_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        SharedFile(str(tmp_path / "none"), (1,))


def test_a_read_split_is_packed(write):
    from piip.data.detection.coco import read_coco

    data, _ = read_coco(*write())
    assert isinstance(data.images, PackedImages)
    assert json.dumps(data.to_coco())


def test_sizes_and_places_are_those_of_the_records(images):
    packed = PackedImages(images)
    assert packed.sizes().tolist() == [list(image.size) for image in images]
    for index in (0, 1, 2, -1):
        objects = [(obj.label, obj.box) for obj in images[index].objects if not obj.crowd]
        assert packed.places(index) == (images[index].path, objects)
    assert PackedImages().sizes().shape == (0, 2)
    with pytest.raises(IndexError):
        packed.places(3)
