"""Images with labels or masks as bytes are what they were made of, and other processes use the same bytes."""

import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest

from piip.data.classification.images import ClassData, ClassImage, PackedClassImages
from piip.data.packed import Packed
from piip.data.segmentation.masks import LabelledImage, PackedLabelledImages
from piip.data.shared_file import to_this_machine

NAMES = [Path(name) for name in ("a.png", "/x/é\u0301.jpg", "deep/er/u\udcff.png", "z" * 300, "a.png")]
IMAGES: dict[type[Packed], list] = {
    PackedClassImages: [ClassImage(path, label) for label, path in enumerate(NAMES)],
    PackedLabelledImages: [
        LabelledImage(path, Path("masks", path.name), (70000 + number, 5), number % 2 == 0)
        for number, path in enumerate(NAMES)
    ],
}


@pytest.mark.parametrize("kind", IMAGES)
def test_they_are_what_they_were_made_of(kind: type[Packed]) -> None:
    images = IMAGES[kind]
    packed = kind(iter(images))
    assert list(packed) == images == packed
    assert packed[-1] == images[-1]
    assert packed[1:3] == images[1:3]
    assert isinstance(packed[1:3], kind)
    assert packed != images[:3]
    assert packed != [*images[:4], images[0]._replace(path=Path("b.png"))]
    assert kind() == []
    assert kind.of(packed) is packed
    with pytest.raises(IndexError):
        packed[5]
    assert {type(image) for image in packed} == {type(images[0])}


@pytest.mark.parametrize("kind", IMAGES)
def test_what_goes_to_another_process_is_the_name_of_a_file(
    kind: type[Packed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    images = IMAGES[kind] * 100
    packed = kind(images)
    assert pickle.loads(pickle.dumps(packed)) == images
    with to_this_machine():
        sent = bytes(ForkingPickler.dumps(packed))
        other = pickle.loads(sent)
    assert len(sent) < 1000 < len(pickle.dumps(packed))
    assert other == packed == images
    assert len(list(tmp_path.iterdir())) == 1
    del packed
    assert list(tmp_path.iterdir()) == []
    assert other == images


def test_labels_are_counted_and_changed_together() -> None:
    data = ClassData(Path("here"), IMAGES[PackedClassImages][:3], ("a", "b", "c"))
    packed = ClassData(data.source, PackedClassImages(data.images), data.classes)
    for one in (data, packed):
        assert one.counts == (1, 1, 1)
        other = one.with_classes(("c", "x", "b", "a"))
        assert [image.label for image in other.images] == [3, 2, 0]
        assert [image.path for image in other.images] == NAMES[:3]
        assert other.counts == (1, 0, 1, 1)
        assert [image.label for image in one.images] == [0, 1, 2]
    assert ClassData(Path("here"), PackedClassImages(), ("a",)).with_classes(("b", "a")).counts == (0, 0)
