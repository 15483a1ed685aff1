"""Boxes that are two corners are told by the outlines beside them."""

from coco_records import annotation

from piip.data.detection.coco import read_coco

KIND = "box written as two corners, as the outlines show"


def test_outlines_prove_that_boxes_are_corners(write):
    outlined = [annotation(1, bbox=[4, 6, 16, 16]), annotation(2, bbox=["4", 6, 16, 16.5])]
    data, report = read_coco(*write([*outlined, annotation(3, bbox=[10, 10, 30, 20], segmentation=[])]))
    assert [obj.box for obj in data.images[0].objects] == [(4, 6, 16, 16), (4, 6, 16, 16.5), (10, 10, 30, 20)]
    assert report.find(KIND).count == 3


def test_one_box_that_fits_as_it_is_written_keeps_all(write):
    data, report = read_coco(*write([annotation(1, bbox=[4, 6, 16, 16]), annotation(2)]))
    assert data.images[0].objects[0].box == (4, 6, 20, 22)
    assert report.find(KIND) is None


def test_boxes_that_fit_either_way_or_neither_stay(write):
    at_the_corner = annotation(1, bbox=[0, 0, 12, 10], segmentation=[[0, 0, 12, 0, 12, 10, 0, 10]])
    for records in ([at_the_corner], [annotation(1, bbox=[1, 1, 30, 25])], [annotation(1, segmentation=[["x"] * 6])]):
        _, report = read_coco(*write(records))
        assert report.find(KIND) is None


def test_most_outlined_boxes_must_be_corners(write):
    loose = [annotation(i, bbox=[1, 1, 30, 25 + i / 9]) for i in (2, 3)]
    _, report = read_coco(*write([annotation(1, bbox=[4, 6, 16, 16]), *loose]))
    assert report.find(KIND) is None
