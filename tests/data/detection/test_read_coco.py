"""One fault per case: it is named, and the rest of the data is as it should be."""

import copy
import json
import random
from typing import Any

import numpy as np
import pytest
from coco_records import HEIGHT, WIDTH, annotation, image
from PIL import Image

from piip.data.detection.coco import CocoData, read_coco
from piip.data.report import CheckReport, DataError

BOX = (4.0, 6.0, 16.0, 16.0)


def objects_of(data: CocoData) -> list[Any]:
    return [obj for image in data.images for obj in image.objects]


def has(report: CheckReport, severity: str, kind: str) -> bool:
    return any(f.severity == severity and kind in f.kind and f.count and f.examples for f in report.findings)


def test_good_data_as_it_is(write):
    crowd = annotation(8, iscrowd=1, category_id=7, segmentation={"size": [HEIGHT, WIDTH], "counts": [600, 600]})
    data, report = read_coco(*write([annotation(5), crowd]))
    assert data.classes == ("cat", "dog")
    assert data.category_ids == (3, 7)
    assert data.has_masks
    assert [(image.id, image.path.name, image.size, image.upright) for image in data.images] == [
        (1, "1.png", (HEIGHT, WIDTH), True),
        (2, "2.png", (HEIGHT, WIDTH), True),
    ]
    first, second = data.images[0].objects
    assert (first.box, first.label, first.crowd, first.annotation_id, first.area) == (BOX, 0, False, 5, 120)
    assert (second.label, second.crowd) == (1, True)
    assert (report.images, report.objects, report.crowds, report.masks) == (2, 1, 1, True)
    assert report.class_counts == {"cat": 1, "dog": 0}
    assert [(f.severity, f.kind) for f in report.sorted_findings()] == [
        ("note", "class without objects"),
        ("note", "image without objects"),
    ]


def polygon(*values: Any) -> dict[str, Any]:
    return {"segmentation": [list(values)]}


BOX_ONLY: dict[str, Any] = {"segmentation": []}
LEFT_OUT = {
    "negative width": ({"bbox": [10, 10, -5, 5]} | BOX_ONLY, "negative side"),
    "negative height": ({"bbox": [10, 10, 5, -5]} | BOX_ONLY, "negative side"),
    "zero size": ({"bbox": [10, 10, 0, 0]} | BOX_ONLY, "zero size"),
    "one side zero": ({"bbox": [10, 10, 5, 0]} | BOX_ONLY, "zero size"),
    "wholly outside": ({"bbox": [100, 10, 5, 5]} | BOX_ONLY, "wholly outside"),
    "outside above": ({"bbox": [10, -10, 5, 5]} | BOX_ONLY, "wholly outside"),
    "not a number": ({"bbox": [10, 10, float("nan"), 5]} | BOX_ONLY, "not four finite numbers"),
    "infinite": ({"bbox": [10, 10, float("inf"), 5]} | BOX_ONLY, "not four finite numbers"),
    "beyond floats": ({"bbox": [10, 10, 10**400, 5]} | BOX_ONLY, "not four finite numbers"),
    "words": ({"bbox": ["a", "b", "c", "d"]} | BOX_ONLY, "not four finite numbers"),
    "booleans": ({"bbox": [True, True, True, True]} | BOX_ONLY, "not four finite numbers"),
    "three numbers": ({"bbox": [10, 10, 5]} | BOX_ONLY, "not four finite numbers"),
    "nested": ({"bbox": [[1, 2], [3, 4]]} | BOX_ONLY, "not four finite numbers"),
    "text": ({"bbox": "1 2 3 4"} | BOX_ONLY, "not four finite numbers"),
    "no box": ({"bbox": None} | BOX_ONLY, "without a box"),
    "unknown category": ({"category_id": 99}, "unknown category"),
    "no category": ({"category_id": None}, "unknown category"),
    "category as a list": ({"category_id": [3]}, "unknown category"),
    "unknown image": ({"image_id": 99}, "unknown image"),
    "no image": ({"image_id": None}, "unknown image"),
}


@pytest.mark.parametrize("fault", LEFT_OUT)
def test_objects_that_are_left_out(write, fault):
    changes, kind = LEFT_OUT[fault]
    data, report = read_coco(*write([annotation(1) | BOX_ONLY, annotation(2, **changes)]))
    assert [obj.annotation_id for obj in objects_of(data)] == [1]
    assert has(report, "left out", kind)
    assert report.objects == 1


OUTLINE_TO_THE_RESCUE = [[10, 10, float("nan"), 5], [10, 10, -5, 5], [10, 10, 0, 0], [500, 500, 5, 5], None, "x"]


@pytest.mark.parametrize("bbox", OUTLINE_TO_THE_RESCUE)
def test_a_useless_box_is_taken_from_a_good_outline(write, bbox):
    data, report = read_coco(*write([annotation(bbox=bbox)]))
    assert objects_of(data)[0].box == BOX
    assert has(report, "repaired", "(taken from the outline)")


FAULTY_OUTLINES = {
    "two points": polygon(1, 2, 3, 4),
    "odd": polygon(1, 2, 3, 4, 5, 6, 7),
    "NaN": polygon(1, 2, 3, 4, 5, float("nan")),
    "text": polygon(1, 2, 3, 4, 5, "x"),
    "a line": polygon(1, 1, 5, 5, 9, 9),
    "far away": polygon(1e8, 1e8, 2e8, 1e8, 2e8, 2e8),
    "sum": {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [100, 100]}},
    "negative": {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [1300, -100]}},
    "other size": {"segmentation": {"size": [WIDTH, HEIGHT], "counts": [600, 600]}},
    "damaged": {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "\x01\x02"}},
    "a number": {"segmentation": 12},
}


@pytest.mark.parametrize("fault", FAULTY_OUTLINES)
def test_without_a_usable_outline_the_box_is_the_mask(write, fault):
    data, report = read_coco(*write([annotation(1), annotation(2, **FAULTY_OUTLINES[fault])]))
    assert data.has_masks
    assert objects_of(data)[1].segmentation == [[4, 6, 16, 6, 16, 16, 4, 16]]
    assert has(report, "repaired", "without a usable outline")
    assert any(f.severity == "left out" for f in report.findings)


def test_some_good_polygons_are_enough(write):
    good = [4, 6, 16, 6, 16, 16]
    data, report = read_coco(*write([annotation(segmentation=[good, [1, 2, 3]])]))
    assert objects_of(data)[0].segmentation == [good]
    assert has(report, "repaired", "odd number")


def test_mostly_boxes_is_boxes_only(write):
    data, report = read_coco(*write([annotation(1), annotation(2, **BOX_ONLY), annotation(3, **BOX_ONLY)]))
    assert not data.has_masks
    assert has(report, "note", "outlines not used")


def test_boxes_reaching_outside_are_clipped_beyond_the_tolerance(write):
    records = [annotation(1, bbox=[30, 20, 20, 20]) | BOX_ONLY, annotation(2, bbox=[-0.4, 20, 40.9, 10]) | BOX_ONLY]
    data, report = read_coco(*write(records))
    clipped, rounding = objects_of(data)
    assert clipped.box == (30, 20, 40, 30)
    assert rounding.box == (-0.4, 20, 40.5, 30)
    assert report.find("box that reaches outside the image (clipped)").count == 1


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"bbox": ["4", "6", "12", "10"]}, "box written as text"),
        ({"area": None}, "without an area"),
        ({"area": float("nan")}, "without an area"),
        ({"area": -3}, "without an area"),
        ({"iscrowd": "yes"}, "iscrowd"),
        ({"iscrowd": 7}, "iscrowd"),
        ({"id": None}, "without an integer id"),
        ({"id": "abc"}, "without an integer id"),
    ],
)
def test_objects_that_are_repaired(write, changes, kind):
    data, report = read_coco(*write([annotation(1, **changes)]))
    obj = objects_of(data)[0]
    assert (obj.box, obj.area, obj.crowd) == (BOX, 120, False)
    assert has(report, "repaired", kind)


def test_annotation_ids(write):
    same, other = annotation(1), annotation(1, category_id=7)
    data, report = read_coco(*write([same, same, other, annotation(2)]))
    ids = [obj.annotation_id for obj in objects_of(data)]
    assert ids == [1, 3, 2]
    assert has(report, "left out", "annotation record repeated")
    assert has(report, "repaired", "annotation id used twice")
    assert report.objects == 3
    assert has(report, "note", "annotated twice")


def test_missing_fields_have_the_usual_meaning(write):
    record = annotation()
    del record["iscrowd"], record["segmentation"]
    data, report = read_coco(*write([record]))
    obj = objects_of(data)[0]
    assert (obj.crowd, obj.segmentation) == (False, None)
    assert not any(f.severity != "note" for f in report.findings)


IMAGES_LEFT_OUT = {
    "missing file": (image(2, file_name="nowhere.png"), "missing or cannot be read"),
    "other size": (image(2, width=100, height=100), "size disagrees"),
    "no name": (image(2, file_name=""), "without a file name"),
    "name is a number": (image(2, file_name=2), "without a file name"),
    "no id": (image(None), "without an integer id"),
    "not an object": ("2.png", "without an integer id"),
    "outside the folder": (image(2, file_name="../secret.png"), "missing or cannot be read"),
    "absolute": (image(2, file_name="/etc/hostname"), "missing or cannot be read"),
    "NUL": (image(2, file_name="2\0.png"), "missing or cannot be read"),
    "lone surrogate": (image(2, file_name="\ud800.png"), "missing or cannot be read"),
    "too long": (image(2, file_name="a" * 5000), "missing or cannot be read"),
    "the folder itself": (image(2, file_name="."), "missing or cannot be read"),
}


@pytest.mark.parametrize("fault", IMAGES_LEFT_OUT)
def test_images_that_are_left_out(write, tmp_path, fault):
    record, kind = IMAGES_LEFT_OUT[fault]
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "secret.png")
    data, report = read_coco(*write([annotation(1), annotation(2, image_id=2)], images=[image(1), record]))
    assert [image.id for image in data.images] == [1]
    assert has(report, "left out", kind)
    assert any("annotation 2" in example for f in report.findings for example in f.examples)
    json.dumps(report.to_dict()).encode("utf-8")


def test_a_file_that_is_not_an_image(write, tmp_path):
    paths = write()
    (tmp_path / "train" / "2.png").write_text("<html>")
    data, report = read_coco(*paths)
    assert len(data.images) == 1
    assert has(report, "left out", "missing or cannot be read")


def test_image_ids_used_twice(write):
    repeated = [image(1), image(1), image(2)]
    data, report = read_coco(*write([annotation()], images=repeated))
    assert [len(image.objects) for image in data.images] == [1, 0]
    assert has(report, "repaired", "image record repeated")
    data, report = read_coco(*write(images=[image(1), image(1, file_name="2.png"), image(2)]))
    assert [image.id for image in data.images] == [2], "whose objects are whose cannot be told"
    assert has(report, "left out", "image id used for different files")


def test_one_file_under_two_ids(write):
    data, report = read_coco(*write(images=[image(1), image(2, file_name="1.png")]))
    assert len(data.images) == 2
    assert has(report, "note", "image file listed twice")
    data, report = read_coco(*write(images=[image(1, file_name="a/1.png"), image(3, file_name="b/1.png"), image(2)]))
    assert [image.id for image in data.images] == [2], "which of the two it really is cannot be told"
    assert has(report, "left out", "two file names")


@pytest.mark.parametrize("name", ["train/1.png", "C:\\data\\1.png", "/home/me/set/1.png", "../train/1.png", "./1.png"])
def test_names_from_other_machines(write, name):
    data, _ = read_coco(*write(images=[image(1, file_name=name)]))
    assert data.images[0].path.name == "1.png"
    assert data.images[0].path.parent.name == "train"


def test_sizes_missing_in_the_record(write):
    record = {"id": 1, "file_name": "1.png"}
    for sizes in ({}, {"width": 0, "height": 0}, {"width": None, "height": "?"}):
        data, report = read_coco(*write(images=[record | sizes]))
        assert data.images[0].size == (HEIGHT, WIDTH)
        assert has(report, "repaired", "without width and height")


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("frame", ["stored", "upright"])
def test_which_way_up_the_annotations_are(write, tmp_path, orientation, frame):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path, folder = write(files=())
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "1.jpg", exif=exif)
    size = (WIDTH, HEIGHT) if frame == "stored" or orientation != 6 else (HEIGHT, WIDTH)
    path, folder = write(images=[image(1, file_name="1.jpg", width=size[0], height=size[1])], files=())
    data, report = read_coco(path, folder)
    assert data.images[0].size == size[::-1]
    assert data.images[0].upright == (frame == "upright" or orientation != 6)
    assert has(report, "note", "stored frame") == (frame == "stored" and orientation == 6)
    assert has(report, "note", "cannot confirm") == (orientation == 3)


def rotated(write: Any, boxes: dict[int, list[list[int]]], **outlines: Any) -> tuple[Any, Any]:
    """Photos stored on their side, 40 x 30, with these boxes by image, and the sizes that are stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    placed = [(image_id, box) for image_id, group in boxes.items() for box in group]
    path, folder = write(
        [
            annotation(number, image_id=image_id, bbox=box, **{"segmentation": [], **outlines})
            for number, (image_id, box) in enumerate(placed, start=1)
        ],
        images=[image(image_id, file_name=f"{image_id}.jpg") for image_id in boxes],
        files=(),
    )
    for image_id in boxes:
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"{image_id}.jpg", exif=exif)
    return read_coco(path, folder)


LOW, RIGHT, ANYWHERE = [4, 32, 10, 6], [32, 4, 6, 10], [4, 6, 12, 10]
"""boxes that fit only in an upright photo, only in a stored one, and in both"""


def test_boxes_tell_which_way_up_a_photo_with_a_stored_size_is(write):
    data, report = rotated(write, {1: [LOW, ANYWHERE], 2: [ANYWHERE]})
    assert [(item.size, item.upright) for item in data.images] == [((WIDTH, HEIGHT), True)] * 2
    assert [obj.box for obj in data.images[0].objects] == [(4, 32, 14, 38), (4, 6, 16, 16)]
    assert has(report, "repaired", "size of a rotated image as stored, with boxes of the upright one")
    assert not has(report, "note", "stored frame")
    assert not has(report, "left out", "outside")


@pytest.mark.parametrize("first", [[RIGHT], [ANYWHERE], [RIGHT, LOW], []])
def test_without_such_boxes_the_stored_size_is_believed(write, first):
    data, report = rotated(write, {1: first, 2: [ANYWHERE]})
    assert [(item.size, item.upright) for item in data.images] == [((HEIGHT, WIDTH), False)] * 2
    assert has(report, "note", "stored frame")


def test_where_photos_disagree_each_is_taken_by_its_own_boxes(write):
    data, _ = rotated(write, {1: [LOW], 2: [RIGHT], 3: [ANYWHERE]})
    assert [item.upright for item in data.images] == [True, False, False]


@pytest.mark.parametrize(
    ("outline", "upright"),
    [([[4, 6, 14, 6, 14, 38]], True), ([[4, 6, 38, 6, 14, 12]], False),
     ({"size": [WIDTH, HEIGHT], "counts": [100, 20, 1080]}, True),
     ([{"size": [HEIGHT, WIDTH], "counts": [100, 20, 1080]}], False)],
)  # fmt: skip
def test_outlines_tell_it_too(write, outline, upright):
    data, _ = rotated(write, {1: [ANYWHERE]}, segmentation=outline)
    assert data.images[0].upright == upright
    assert data.images[0].objects[0].segmentation is not None


def test_categories(write):
    categories = [{"id": 9, "name": "z"}, {"id": 3, "name": "a"}, {"id": 3, "name": "a"}, {"id": 4}, {"name": "x"}, 5]
    data, report = read_coco(*write(categories=categories))
    assert data.category_ids == (3, 4, 9)
    assert data.classes == ("a", "4", "z")
    assert has(report, "repaired", "category repeated")
    assert has(report, "repaired", "category without a name")
    assert has(report, "left out", "category without an integer id")
    data, report = read_coco(*write(categories=[{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]))
    assert data.classes == ("a",)
    assert report.errors == 1
    data, report = read_coco(*write(categories=[{"id": 3, "name": "a"}, {"id": 4, "name": "a"}]))
    assert data.classes == ("a", "a")
    assert len(report.class_counts) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a whole JSON file"),
        (b'{"images": [', "not a whole JSON file"),
        (b"[" * 100_000, "nested too deeply|not a whole JSON"),
        (b"\xff\xfe\x00\xd8", "not a whole JSON file"),
        (b"[]", "found a list"),
        (b"12", "found a int"),
        (b'{"shapes": []}', "not COCO annotations"),
        (b'{"images": 5, "categories": []}', '"images" must be a list'),
        (b'{"images": [], "categories": []}', "lists no images"),
        (b'{"images": [{}], "categories": []}', "no usable categories"),
        (b'{"images": [{}], "categories": [{"id": 1, "name": "a"}]}', "none of its 1 images can be used"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_coco(tmp_path / "a.json", tmp_path)
    assert "a.json" in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"a\.json: cannot be read"):
        read_coco(tmp_path / "a.json", tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_encodings(write, encoding):
    path, folder = write(categories=[{"id": 3, "name": "Kätzchen"}])
    path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False), encoding=encoding)
    assert read_coco(path, folder)[0].classes == ("Kätzchen",)


def test_no_objects_at_all_is_an_error_and_no_exception(write):
    data, report = read_coco(*write([]))
    assert objects_of(data) == []
    assert not data.has_masks
    assert report.errors == 1
    path, folder = write([])
    content = json.loads(path.read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    assert objects_of(read_coco(path, folder)[0]) == []


def test_many_objects_on_one_image(write):
    data, report = read_coco(*write([annotation(i, bbox=[1, 1, 1 + i / 1000, 5], **BOX_ONLY) for i in range(1, 3001)]))
    assert report.objects == len(objects_of(data)) == 3000
    assert has(report, "note", "more than 1000 objects")


def test_labels_follow_a_models_classes(write):
    data, _ = read_coco(*write([annotation(1), annotation(2, category_id=7)]))
    other = data.with_classes(("bird", "dog", "cat"), (10, 20, 30))
    assert [obj.label for obj in objects_of(other)] == [2, 1]
    assert other.category_ids == (10, 20, 30)
    assert data.with_classes(("bird", "dog", "cat")).category_ids == (8, 7, 3)
    with pytest.raises(DataError, match="cat"):
        data.with_classes(("bird", "dog"))
    with pytest.raises(DataError, match="same name"):
        data.with_classes(("cat", "dog", "dog"))


def test_to_coco_gives_the_files_own_ids(write):
    records = [annotation(0), annotation(1, category_id=7, iscrowd=1)]
    data, _ = read_coco(*write(records))
    coco = data.to_coco()
    assert [image["id"] for image in coco["images"]] == [1, 2]
    assert coco["categories"] == [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    assert [a["id"] for a in coco["annotations"]] == [1, 2], "an id of 0 would count as no match"
    for ours, theirs in zip(coco["annotations"], records, strict=True):
        for key in ("image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"):
            assert ours[key] == theirs[key]


def test_random_damage_to_the_json_never_escapes_as_another_exception(write):
    """Values replaced by others, anywhere: a result or a DataError, and boxes inside their images."""
    path, folder = write([annotation(i, image_id=1 + i % 2) for i in range(1, 5)])
    original = path.read_text()
    rng = random.Random(0)
    junk = [None, True, -1, 0, 1e400, -1e308, float("nan"), 10**30, "", "x", "1", "../x", [], {}, [[]], [1], {"id": 1}]
    for _ in range(300):
        content = json.loads(original)
        for _ in range(rng.randint(1, 3)):
            _replace_one(content, rng, junk)
        path.write_text(json.dumps(content))
        try:
            data, report = read_coco(path, folder)
        except DataError:
            continue
        json.dumps(report.to_dict())
        for image_ in data.images:
            for obj in image_.objects:
                box = np.array(obj.box)
                assert np.isfinite(box).all()
                assert (box[2:] > box[:2]).all()
                assert (box >= -1).all()
                assert (box <= [WIDTH + 1, HEIGHT + 1] * 2).all()


def _replace_one(content: Any, rng: random.Random, junk: list[Any]) -> None:
    while True:
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(content[key], dict | list) and rng.random() < 0.85:
            content = content[key]
        else:
            content[key] = copy.deepcopy(rng.choice(junk))
            return


@pytest.mark.parametrize(("split", "objects", "crowds"), [("train2017", 465, 5), ("val2017", 377, 5)])
def test_coco_itself_has_nothing_to_repair(coco100, split, objects, crowds):
    data, report = read_coco(coco100 / "annotations" / f"instances_{split}.json", coco100 / split)
    assert (report.images, report.objects, report.crowds) == (50, objects, crowds)
    assert len(data.classes) == 80
    assert data.category_ids[-1] == 90
    assert data.has_masks
    assert {f.severity for f in report.findings} == {"note"}
    given = json.loads((coco100 / "annotations" / f"instances_{split}.json").read_text())["annotations"]
    ours = {obj.annotation_id: obj for image in data.images for obj in image.objects}
    for record in given:
        x, y, w, h = record["bbox"]
        assert ours[record["id"]].box == (x, y, x + w, y + h)
        assert ours[record["id"]].area == record["area"]


@pytest.mark.parametrize(("split", "images", "objects"), [("train", 205, 2804), ("val", 87, 1137)])
def test_bccd_has_one_empty_box_per_split(bccd, split, images, objects):
    data, report = read_coco(bccd / "annotations" / f"instances_{split}.json", bccd / split)
    assert (report.images, report.objects) == (images, objects)
    assert not data.has_masks
    assert [(f.severity, f.kind, f.count) for f in report.findings] == [("left out", "box of zero size", 1)]


# -- variants of the format that people have --------------------------------------------------------------------------


def test_records_as_a_mapping_from_their_ids(write):
    good, _ = read_coco(*write())
    path, folder = write(
        annotations={
            "5": annotation() | {"id": 5},
            "6": {k: v for k, v in annotation(image_id=2).items() if k != "id"},
        },
        categories={"3": "cat", "7": {"name": "dog"}},
        images={"1": {k: v for k, v in image(1).items() if k != "id"}, "2": image(2)},
    )
    data, report = read_coco(path, folder)
    assert (data.classes, data.category_ids) == (good.classes, good.category_ids)
    assert [[obj.annotation_id for obj in record.objects] for record in data.images] == [[5], [6]]
    assert not [finding for finding in report.findings if finding.severity != "note"]


def test_ids_that_are_words(write):
    images = [image("first", file_name="1.png"), image(8, file_name="2.png")]
    records = [annotation(1, image_id="first", category_id="c"), annotation(2, image_id=8, category_id="d")]
    categories = [{"id": "c", "name": "cat"}, {"id": "d", "name": "dog"}]
    data, report = read_coco(*write(records, images, categories))
    assert [(record.id, record.path.name) for record in data.images] == [(9, "1.png"), (8, "2.png")]
    assert [[data.classes[obj.label] for obj in record.objects] for record in data.images] == [["cat"], ["dog"]]
    assert has(report, "note", "image id that is a word")


@pytest.mark.parametrize("key", ["coco_url", "flickr_url", "filename"])
def test_images_named_in_another_way(write, key):
    record = {k: v for k, v in image(1).items() if k != "file_name"}
    address = "1.png" if key == "filename" else "http://images.example/train/1.png?size=large"
    data, _ = read_coco(*write(images=[record | {key: address}]))
    assert data.images[0].path.name == "1.png"


def test_names_that_are_numbers(write):
    data, report = read_coco(*write(categories=[{"id": 3, "name": 7}, {"id": 7, "name": 3.5}, {"id": 8, "name": True}]))
    assert data.classes == ("7", "3.5", "true")
    assert not has(report, "repaired", "category without a name")


def test_a_category_that_only_groups_others_of_its_name(write):
    group = {"id": 0, "name": "cat", "supercategory": "none"}
    cat, dog = ({"id": i, "name": name, "supercategory": "cat"} for i, name in ((3, "cat"), (7, "dog")))
    data, report = read_coco(*write(categories=[group, cat, dog]))
    assert data.classes == ("cat", "dog")
    assert has(report, "note", "only groups others")
    data, _ = read_coco(*write([annotation(category_id=0)], categories=[group, cat, dog]))
    assert data.classes == ("cat", "cat", "dog"), "with objects it is a class"
    data, _ = read_coco(*write(categories=[group | {"name": "animal"}, cat, dog]))
    assert data.classes == ("animal", "cat", "dog"), "models were trained with these"


def test_run_lengths_inside_a_list(write):
    runs = {"size": [HEIGHT, WIDTH], "counts": [600, 600]}
    data, _ = read_coco(*write([annotation(segmentation=[runs])]))
    assert data.images[0].objects[0].segmentation == runs


def test_outlines_that_are_cut_are_counted(write):
    data, report = read_coco(*write([annotation(segmentation=[[-50, 6, 16, 6, 16, 16, -50, 16]])]))
    assert has(report, "repaired", "polygon that reaches outside the image (cut)")
    assert data.images[0].objects[0].segmentation is not None


@pytest.mark.parametrize("form", ["/{0}", "//{0}", "\\\\{0}", "../{0}", "C:/{0}"])
def test_no_name_leads_out_of_the_folder(write, tmp_path, form):
    path, folder = write(images=[image(1), image(2, file_name="")])
    (folder / "1.png").rename(tmp_path / "secret.png")
    content = json.loads(path.read_text())
    content["images"] = [image(2), image(1, file_name=form.format(str(tmp_path / "secret.png").lstrip("/")))]
    path.write_text(json.dumps(content))
    data, report = read_coco(path, folder)
    assert [record.path.name for record in data.images] == ["2.png"]
    assert has(report, "left out", "missing or cannot be read")
    assert "never followed" in report.find("image file that is missing or cannot be read").examples[0]
