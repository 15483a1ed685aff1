"""Records that are looked at by the thousand give what they give one by one, and the same is said of them."""

import json
import random
from typing import Any

import numpy as np
import pytest
from coco_records import HEIGHT, WIDTH, annotation, image

from piip.data.detection import objects
from piip.data.detection.coco import read_coco
from piip.data.detection.packed_objects import FIELDS, OBJECT
from piip.data.detection.plain_objects import PlainObjects, Rows
from piip.data.json_records import Records, read_json_lists
from piip.data.report import DataError
from piip.data.text_files import read_json

NUMBERS = [0, -1, -0.9, 0.5, 1, 3, 7.25, 12, 29, 30, 31, 31.5, 40, 41.0, 41.01, 1e4, -1e300, 1e300, 2**53 + 1, 10**30]
ODD = [None, True, "3", "x", "12.5", [], {}, [1], "\ud800"]


def changed(draw: random.Random, number: int) -> Any:
    """A record that perhaps has something odd."""

    def side() -> Any:
        return draw.choice(NUMBERS) if draw.random() < 0.03 else draw.uniform(0, 25)

    def value(usual: Any) -> Any:
        return draw.choice([*ODD, *NUMBERS]) if draw.random() < 0.01 else usual

    def polygon() -> list[Any]:
        return [value(side()) for _ in range(draw.choice([2, 4, 5, *[6, 8, 20] * 9]))]

    box = [draw.uniform(0, 20), draw.uniform(0, 15), draw.choice([0.5, 4, 9, 15.5]), draw.choice([1, 4, 9.25, 14])]
    record = annotation(
        value(number if draw.random() < 0.9 else draw.randint(1, 40)),
        image_id=value(draw.choice([1, 2, 2, 9])),
        category_id=value(draw.choice([3, 3, 7, 8]) if draw.random() < 0.3 else 3),
        bbox=value([value(side) for side in box] if draw.random() < 0.9 else [side() for _ in range(4)]),
        area=value(draw.choice([12, 3.5])),
        iscrowd=value(draw.choice([0, 0, 0, 1, 2]) if draw.random() < 0.3 else 0),
        segmentation=value([polygon() for _ in range(draw.choice([0, 1, 1, 1, 2, 3]))]),
    )
    for key in list(record):
        if draw.random() < 0.01:
            del record[key]
    return draw.choice([record] * 60 + [7, None, [record], "text"])


def one_by_one(self: PlainObjects, block: Any, texts: bytearray) -> Rows:
    none = np.zeros(0, np.int64)
    return Rows(none, none, np.zeros(0, FIELDS))


@pytest.mark.parametrize("seed", range(12))
def test_the_same_data_and_findings_one_by_one(write, monkeypatch, seed):
    draw = random.Random(seed)
    records = [changed(draw, number) for number in range(1, 60)]
    records += [dict(record) for record in records[::7] if isinstance(record, dict)]
    monkeypatch.setattr(objects, "BLOCK", 16)
    place = write(records)
    data, report = read_coco(*place)
    taken = []
    rows = PlainObjects.rows
    monkeypatch.setattr(PlainObjects, "rows", lambda *a: taken.append(len(rows(*a).places)) or one_by_one(*a))
    slow, slow_report = read_coco(*place)
    assert 2 < sum(taken) < 60
    assert data.images == slow.images
    assert data == slow
    assert report.to_dict() == slow_report.to_dict()


def test_numpy_and_struct_have_one_row():
    assert FIELDS.itemsize == OBJECT.size
    row = np.frombuffer(OBJECT.pack(1, 2, 3, 4, 5, 6, -1, 7, 8, True, 9, 10), FIELDS)[0]
    assert row["box"].tolist() == [1, 2, 3, 4]
    assert row.item()[1:] == (5, 6, -1, 7, 8, True, 9, 10)


def test_a_list_of_records_is_read_when_it_is_asked_for(tmp_path):
    records = [annotation(), {"note": "\ud800", "large": 10**40}, 3, [1.5, "é"], None]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"records": records, "info": {"a": [1]}, "named": {"1": 2}}))
    content = read_json_lists(path, ("records", "named", "missing"))
    assert isinstance(content["records"], Records)
    assert list(content["records"]) == records
    assert content["records"][1] == records[1]
    assert content["info"] == {"a": [1]}
    assert content["named"] == {"1": 2}
    assert content.keys() == {"records", "info", "named"}
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_text(json.dumps(records[0] | {"records": records}), encoding=encoding)
        assert list(read_json_lists(path, ("records",))["records"]) == records


@pytest.mark.parametrize(
    "text",
    [
        b'{"records": [{"a": 1}, {"a": 2',
        b'{"records": [{"a": 01}]}',
        b'{"records": [{"a": "\xff"}]}',
        b'{"records": [{"a": "\\q"}]}',
        b'{"records": [], "other": "\\q"}',
        b'{"records": [1,]}',
        b'{"records": []} x',
        b'{"records": [' + b"[" * 100_000,
        b"",
    ],
)
def test_what_is_no_json_is_refused_with_the_same_words(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(DataError) as usual:
        read_json(path)
    with pytest.raises(DataError) as refused:
        list(read_json_lists(path, ("records",))["records"])
    assert str(refused.value) == str(usual.value)


@pytest.mark.parametrize(
    "text", [b'{"records": [NaN, 1e400, {"a": Infinity}]}', b'[{"records": 1}]', b"null", b'{"records": [1e400]}']
)
def test_what_json_allows_beyond_the_standard(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    content = read_json_lists(path, ("records",))
    plain = content | {"records": list(content["records"])} if isinstance(content, dict) else content
    assert repr(plain) == repr(read_json(path))


def test_ids_of_whatever_stands_there():
    records = Records([annotation(5), {"id": "7"}, 3, None, {"category_id": [1]}])
    assert [(ids.id, ids.category_id) for ids in records.ids()] == [(5, 3), ("7", None), (None, [1])]


def test_outlines_of_many_objects_go_to_their_own(write):
    """Of some blocks, with images in turns."""
    draw = random.Random(1)
    records = []
    for number in range(1, 40):
        xs, ys = [[round(draw.uniform(0, side), 2) for _ in range(5)] for side in (WIDTH, HEIGHT)]
        outline = [side for point in zip(xs, ys, strict=True) for side in point]
        outlines = [outline, [1, 1, 9, 1, 9, 9]] if number % 5 == 0 else [outline]
        records.append(annotation(number, image_id=1 + number % 2, segmentation=outlines))
    data, _ = read_coco(*write(records))
    for each in data.images:
        wanted = [record for record in records if record["image_id"] == each.id]
        assert [obj.annotation_id for obj in each.objects] == [record["id"] for record in wanted]
        assert [obj.segmentation for obj in each.objects] == [record["segmentation"] for record in wanted]


def test_images_of_many_objects_are_in_the_order_of_the_file(write):
    records = [annotation(number, image_id=2 - number % 2) for number in range(1, 9)]
    data, report = read_coco(*write(records, images=[image(2), image(1)]))
    assert [[obj.annotation_id for obj in each.objects] for each in data.images] == [[2, 4, 6, 8], [1, 3, 5, 7]]
    repeated = report.find("object annotated twice (same class and box)")
    assert repeated.count == 6
    assert repeated.examples[0] == "annotation 3 of image 1"
