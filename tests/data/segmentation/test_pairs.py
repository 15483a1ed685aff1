"""Masks are found by their images' names, or by one way of naming them after these."""

from pathlib import Path

import pytest
from class_folders import write_image

from piip.data.report import Findings
from piip.data.segmentation.folders import MaskSplit
from piip.data.segmentation.pairs import paired

JPEG, PNG = b"\xff\xd8\xff\xe0", b"\x89PNG"
"""beginnings of files"""


def pairs(
    root: Path, images: list[str], masks: list[str], beginnings: tuple[bytes, ...] = ()
) -> tuple[dict[str, str], Findings]:
    """`beginnings`: of the masks; nothing in the others."""
    for folder, names in (("images", images), ("masks", masks)):
        (root / folder).mkdir()
        for number, name in enumerate(names):
            (root / folder / name).parent.mkdir(exist_ok=True)
            (root / folder / name).write_bytes(b"".join(beginnings[number : number + 1]) if names is masks else b"")
    report = Findings("x")
    split = MaskSplit(root / "images", root / "masks")
    found = paired(split, report)
    return {
        file.relative_to(split.images).as_posix(): mask.relative_to(split.masks).as_posix() for file, mask in found
    }, report


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["a.jpg", "b.jpg"], ["a_mask.png", "b_mask.png"]),
        (["a.jpg"], ["a_mask.gif"]),
        (["1.jpg", "12.jpg"], ["1-seg.png", "12-seg.png"]),
        (["1_sat.jpg", "2_sat.jpg"], ["1_mask.png", "2_mask.png"]),
        (["x_0_leftImg8bit.png", "x_1_leftImg8bit.png"], ["x_0_gtFine_labelIds.png", "x_1_gtFine_labelIds.png"]),
        (["a.jpg", "b.jpg"], ["mask_a.png", "mask_b.png"]),
        (["0001_L1.png", "0002_L1.png"], ["0001_L1_L.png", "0002_L1_L.png"]),
        (["1_sat.jpg", "2_sat.jpg"], ["1_seg.png", "2_seg.png"]),
        (["1_cam.jpg", "2_cam.jpg"], ["1_cam_mask.png", "2_cam_mask.png"]),
        (["a.b.jpg"], ["a.b_mask.png"]),
        (["IMG_1.JPG"], ["img_1.PNG"]),
        (["v/a.jpg", "w/a.jpg"], ["v/a.png", "w/a.png"]),
        (["v/a.jpg", "w/a.jpg"], ["v/a_mask.png", "w/a_mask.png"]),
    ],
)  # fmt: skip
def test_ways_of_naming(tmp_path: Path, images: list[str], masks: list[str]) -> None:
    found, report = pairs(tmp_path, images, masks)
    assert found == dict(zip(images, masks, strict=True))
    assert not report.errors
    named_after = any(Path(i).with_suffix("").as_posix().lower() != Path(m).with_suffix("").as_posix().lower()
                      for i, m in found.items())  # fmt: skip
    assert len(report.findings) == named_after, "another way of naming is said, the usual one is not"


def test_of_two_masks_of_one_name_none_is_taken_by_chance(tmp_path: Path) -> None:
    _, report = pairs(tmp_path, ["a.jpg", "b.jpg"], ["a.png", "a.tif", "b.png"])
    (example,) = report.find("two masks of one name, one of which is not meant", "error").examples
    assert example.endswith("a.png and a.tif")


@pytest.mark.parametrize(("mask", "lossy"), [("a.png", "a.jpg"), ("a.gif", "a.jpeg"), ("a.tif", "a.png")])
def test_a_jpeg_beside_a_mask_gives_way_whatever_it_is_called(tmp_path: Path, mask: str, lossy: str) -> None:
    found, report = pairs(tmp_path, ["a.jpg"], [mask, lossy], (PNG, JPEG))
    assert found == {"a.jpg": mask}
    assert not report.errors
    assert len(report.find("JPEG beside a mask of its name", "left out").examples) == 1


def test_a_mask_that_is_called_like_a_jpeg_is_a_mask(tmp_path: Path) -> None:
    _, report = pairs(tmp_path, ["a.jpg"], ["a.jpg", "a.png"], (PNG, PNG))
    assert report.find("two masks of one name, one of which is not meant", "error").count == 1


def test_names_that_only_resemble_each_other_are_not_paired(tmp_path: Path) -> None:
    found, report = pairs(tmp_path, ["x_1.jpg", "x_2.jpg"], ["x_3.png", "x_4.png"])
    assert found == {}
    assert report.find("no mask has the name of an image", "error").examples == [
        "x_1.jpg, but the masks are x_3.png, x_4.png"
    ]


def test_two_masks_of_one_image_are_not_chosen_between(tmp_path: Path) -> None:
    found, report = pairs(tmp_path, ["a.jpg", "b.jpg"], ["a_one.png", "a_two.png", "b_one.png", "b_two.png"])
    assert found == {}
    assert report.errors == 1


def test_masks_of_one_name_go_first(tmp_path: Path) -> None:
    found, _ = pairs(tmp_path, ["a.jpg", "b.jpg"], ["a.png", "a_edges.png", "b.png", "b_edges.png"])
    assert found == {"a.jpg": "a.png", "b.jpg": "b.png"}


def test_a_few_masks_may_be_missing(tmp_path: Path) -> None:
    found, report = pairs(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], ["b_mask.png", "c_mask.png"])
    assert found == {"b.jpg": "b_mask.png", "c.jpg": "c_mask.png"}
    assert report.find("image without a mask").count == 1


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    found, report = pairs(tmp_path, ["a.jpg", "._a.jpg"], ["a.png", "._a.png"])
    assert found == {"a.jpg": "a.png"}
    assert report.findings == []
    assert write_image(tmp_path / "images" / "b.png", 1).is_file()
