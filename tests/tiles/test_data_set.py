"""A data set in tiles says of every tile what the source says of that part of the image."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.mask_sets import make_masks
from typer.testing import CliRunner

import piip
from piip.cli import app
from piip.data.detection.annotations import CocoData
from piip.data.detection.coco import read_split
from piip.data.detection.outlines import rasterise
from piip.data.detection.splits import find_splits
from piip.data.image_files import ImageError
from piip.data.report import DataError
from piip.data.run_lengths import encode_mask
from piip.data.segmentation.masks import load_pair, open_masks
from piip.tiles import object_tiles
from piip.tiles.object_tiles import EMPTY, NOWHERE, PIECE, PIECES_ONLY

HEIGHT, WIDTH = 90, 150
DISC = np.hypot(*(np.mgrid[:HEIGHT, :WIDTH] - np.array([45, 60])[:, None, None])) < 20
BAND = np.zeros((HEIGHT, WIDTH), bool)
BAND[10:14, 5:145] = True
LETTER_C = [70.0, 20, 110, 20, 110, 30, 80, 30, 80, 70, 110, 70, 110, 80, 70, 80]
"""concave: a cut through it leaves two parts"""


def pixels(name: str) -> np.ndarray:
    rng = np.random.default_rng(sum(map(ord, name)))
    return rng.integers(0, 256, (HEIGHT // 10, WIDTH // 10, 3), np.uint8).repeat(10, 0).repeat(10, 1)


def record(number: int, box: list[float], outline: object, category: int = 5, **more: object) -> dict[str, object]:
    return {"id": number, "image_id": 7, "category_id": category, "iscrowd": 0, "bbox": box, "area": box[2] * box[3],
            "segmentation": outline} | more  # fmt: skip


RECORDS = [
    record(11, [41, 26, 39, 39], encode_mask(DISC), area=int(DISC.sum())),
    record(12, [70, 20, 40, 60], [LETTER_C], category=9),
    record(13, [5, 10, 140, 4], encode_mask(BAND), iscrowd=1),
    record(14, [2, 80, 6, 6], [[2, 80, 8, 80, 8, 86, 2, 86]]),
]


def write(root: Path, records: list[dict[str, object]], names: tuple[str, ...] = ("a.png",), split: str = "train",
          **image: object) -> Path:  # fmt: skip
    (root / split).mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(pixels(name)).save(root / split / name)
    images = [{"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT} | image
              for i, name in enumerate(names, start=7)]  # fmt: skip
    content = {"images": images, "annotations": records,
               "categories": [{"id": 5, "name": "cat"}, {"id": 9, "name": "dog"}]}  # fmt: skip
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def opened(path: Path, split: str = "train") -> CocoData:
    return read_split({str(name): place for name, place in find_splits(path).items()}[split])[0]


def written(out: Path, split: str = "train") -> dict:
    return json.loads((out / "annotations" / f"instances_{split}.json").read_text())


def test_every_tile_shows_its_part_of_image_and_outlines(tmp_path: Path) -> None:
    source = write(tmp_path / "in", RECORDS)
    done = piip.tile_data(source, tmp_path / "out", size=50, overlap=0.2, keep=0, empty=1)
    before, after, file = opened(source), opened(tmp_path / "out"), written(tmp_path / "out")
    assert done.folder == tmp_path / "out"
    assert (after.classes, after.category_ids) == (before.classes, before.category_ids) == (("cat", "dog"), (5, 9))
    masks = {obj.annotation_id: rasterise(obj.segmentation, (HEIGHT, WIDTH)) for obj in before.images[0].objects}
    met = dict.fromkeys(masks, 0)
    sources = iter(file["annotations"])
    for image, said in zip(after.images, file["images"], strict=True):
        left, top = said["tile_of"]["left"], said["tile_of"]["top"]
        assert (said["tile_of"]["id"], said["tile_of"]["file_name"]) == (7, "a.png")
        assert image.size == (50, 50)
        part = (slice(top, top + 50), slice(left, left + 50))
        assert np.array_equal(np.asarray(Image.open(image.path)), pixels("a.png")[part])
        for obj in image.objects:
            number = next(sources)["part_of"]
            met[number] += 1
            assert obj.crowd == (number == 13)
            assert isinstance(obj.segmentation, list) == (number in (12, 14)), "polygons stay polygons"
            expected, found = masks[number][part], rasterise(obj.segmentation, image.size)
            assert (found != expected).sum() <= (3 if number == 12 else 0), "a column where a polygon is cut"
            rows, columns = np.nonzero(expected)
            around = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert np.abs(np.subtract(obj.box, around)).max() <= 1
    assert all(met.values())
    assert next(sources, None) is None


def test_what_is_below_the_share_is_left_out_and_counted(tmp_path: Path) -> None:
    large = record(15, [0, 0, 150, 90], [[0, 0, 150, 0, 150, 90, 0, 90]])
    near = record(16, [44, 2, 10, 10], [[44, 2, 54, 2, 54, 12, 44, 12]])
    source = write(tmp_path / "in", [large, near])
    report = piip.tile_data(source, tmp_path / "out", size=50, overlap=0, keep=0.5, empty=0).reports["train"]
    file = written(tmp_path / "out")
    assert [one["part_of"] for one in file["annotations"]] == [16], "60 % of it are in the first tile, 40 in the next"
    assert file["annotations"][0]["bbox"] == [44, 2, 6, 10]
    assert file["annotations"][0]["area"] == 60
    assert report.find(NOWHERE).count == 1
    assert "annotation 15" in report.find(NOWHERE).examples[0]
    assert report.find(PIECE).count == 1
    assert report.find(PIECES_ONLY).count == 5
    assert (report.images, report.objects, report.class_counts) == (1, 1, {"cat": 1, "dog": 0})
    assert json.loads((tmp_path / "out" / "tiles.json").read_text())["splits"]["train"]["objects"] == 1


def test_empty_tiles_are_kept_in_proportion(tmp_path: Path) -> None:
    records = [record(i, [10 * i, 40, 8, 8], []) for i in range(1, 5)]
    source = write(tmp_path / "in", records, names=("a.png", "b.jpg"))
    counts = {}
    for empty in (0, 0.25, 1):
        out = tmp_path / f"out{empty}"
        report = piip.tile_data(source, out, size=30, overlap=0, empty=empty).reports["train"]
        file = written(out)
        used = {one["image_id"] for one in file["annotations"]}
        counts[empty] = (len(used), len(file["images"]) - len(used))
        assert (report.find(EMPTY) is None) == (empty == 1)
    full = counts[0][0]
    assert counts == {0: (full, 0), 0.25: (full, round(full / 3)), 1: (full, 2 * 15 - full)}
    assert {Path(image["file_name"]).suffix for image in file["images"]} == {".png", ".jpg"}
    again = piip.tile_data(source, tmp_path / "again", size=30, overlap=0, empty=0.25)
    assert written(again.folder) == written(tmp_path / "out0.25")


def test_all_splits_small_images_as_they_are_and_broken_ones_left_out(tmp_path: Path) -> None:
    source = write(tmp_path / "in", RECORDS)
    write(source, [record(1, [1, 1, 9, 9], []), record(2, [1, 1, 9, 9], [], image_id=8)], ("b.jpg", "c.png"), "val")
    broken = source / "val" / "c.png"
    broken.write_bytes(broken.read_bytes()[:150])
    done = piip.tile_data(source, tmp_path / "out", size=100, overlap=0.1)
    assert set(done.reports) == {"train", "val"}
    assert done.reports["val"].find("image file that cannot be decoded").count == 1
    assert {one["tile_of"]["id"] for one in written(tmp_path / "out", "val")["images"]} == {7}
    whole = piip.tile_data(source, tmp_path / "whole", size=150)
    assert (whole.folder / "train" / "a.png").read_bytes() == (source / "train" / "a.png").read_bytes()
    assert opened(whole.folder).images[0].objects[0].box == opened(source).images[0].objects[0].box


def test_an_image_that_is_called_like_another_one_s_tile_keeps_its_pixels(tmp_path: Path) -> None:
    source = write(tmp_path / "in", RECORDS)
    folder = source / "train"
    Image.fromarray(pixels("b")[:40, :40]).save(folder / "a_0_0.png")
    content = json.loads((source / "annotations" / "instances_train.json").read_text())
    content["images"].append({"id": 8, "file_name": "a_0_0.png", "width": 40, "height": 40})
    content["annotations"].append(record(21, [1, 1, 9, 9], [], image_id=8))
    (source / "annotations" / "instances_train.json").write_text(json.dumps(content))
    out = piip.tile_data(source, tmp_path / "out", size=60, empty=1).folder
    images = written(out)["images"]
    assert len({image["file_name"] for image in images}) == len(images)
    (small,) = (image for image in images if image["tile_of"]["id"] == 8)
    assert (out / "train" / small["file_name"]).read_bytes() == (folder / "a_0_0.png").read_bytes()
    assert (out / "train" / "a_0_0-2.png").is_file()

    masks = make_masks(tmp_path / "masks", val=0)
    name = f"{open_masks(masks, 'train').images[0].path.stem}_0_0.png"
    for kind in ("images", "masks"):
        Image.new("L", (20, 20), 1).save(masks / kind / "train" / name)
    out = piip.tile_data(masks, tmp_path / "tiles", size=20, overlap=0).folder
    assert (out / "masks" / "train" / name).read_bytes() == (masks / "masks" / "train" / name).read_bytes()


def test_nothing_is_written_over_or_left_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "in", RECORDS)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is there already"):
        piip.tile_data(source, tmp_path / "taken")
    with pytest.raises(ValueError, match="lies within"):
        piip.tile_data(source, source / "tiles")
    for wrong in ({"size": 0}, {"overlap": 1}, {"keep": 1.5}, {"empty": -0.1}):
        with pytest.raises(ValueError, match=r"share|1 pixel"):
            piip.tile_data(source, tmp_path / "out", **wrong)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(object_tiles, "save_tile", fail)
    with pytest.raises(OSError, match="disk full"):
        piip.tile_data(source, tmp_path / "out", size=50)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "taken"]

    def undecodable(*_: object) -> None:
        raise ImageError("broken")

    monkeypatch.setattr(object_tiles, "load_image", undecodable)
    with pytest.raises(DataError, match="no tile could be written"):
        piip.tile_data(source, tmp_path / "out", size=50)


def test_label_masks_are_cut_with_their_images(tmp_path: Path) -> None:
    source = make_masks(tmp_path / "in")
    before = open_masks(source, "train")
    report = piip.tile_data(source, tmp_path / "out", size=20, overlap=0).reports["train"]
    after = open_masks(tmp_path / "out", "train")
    assert after.classes == before.classes
    assert report.images == len(after.images) > len(before.images)
    parts = {image.path.stem: load_pair(image, after.description) for image in after.images}
    for image in before.images:
        whole, labels = load_pair(image, before.description)
        found = [name for name in parts if name.rsplit("_", 2)[0] == image.path.stem]
        assert found
        for name in found:
            left, top = map(int, name.rsplit("_", 2)[1:])
            assert np.array_equal(parts[name][1], labels[top : top + 20, left : left + 20])
            if image.path.suffix == ".png":
                assert np.array_equal(parts[name][0], whole[top : top + 20, left : left + 20])


def test_the_verb(tmp_path: Path) -> None:
    source = write(tmp_path / "in", RECORDS)
    options = ["--size", "60", "--overlap", "0.1", "--keep", "0.5", "--empty", "1"]
    result = CliRunner().invoke(app, ["data", "tile", str(source), str(tmp_path / "out"), *options])
    assert result.exit_code == 0, result.output
    assert "written to" in result.output
    assert json.loads((tmp_path / "out" / "tiles.json").read_text())["size"] == 60


def test_images_that_are_too_large_to_be_decoded_are_cut_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same tiles with a limit below the image's size as without."""
    source = tmp_path / "source"
    (source / "train").mkdir(parents=True)
    (source / "annotations").mkdir()
    Image.fromarray(pixels("large")).save(source / "train" / "large.png")
    content = {
        "images": [{"id": 7, "file_name": "large.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": [record(1, [20, 20, 60, 50], None)],
        "categories": [{"id": 5, "name": "disc"}],
    }
    del content["annotations"][0]["segmentation"]
    (source / "annotations" / "instances_train.json").write_text(json.dumps(content))
    piip.tile_data(source, tmp_path / "usual", size=64)
    monkeypatch.setattr("piip.data.image_files.MAX_PIXELS", HEIGHT * WIDTH - 1)
    with pytest.raises(DataError):
        piip.tile_data(source, tmp_path / "refused", size=64)
    assert not (tmp_path / "refused").exists()
    arguments = ("data", "tile", str(source), str(tmp_path / "large"), "--size", "64", "--max-pixels", "20000")
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.exception
    names = sorted(path.name for path in (tmp_path / "usual" / "train").iterdir())
    assert len(names) > 2
    for name in names:
        usual, large = (np.asarray(Image.open(tmp_path / kind / "train" / name)) for kind in ("usual", "large"))
        assert np.array_equal(usual, large), name
    one, other = (tmp_path / kind / "annotations" / "instances_train.json" for kind in ("usual", "large"))
    assert one.read_text() == other.read_text()
    with pytest.raises(DataError, match="more than max_pixels"):
        piip.tile_data(source, tmp_path / "still", size=64, max_pixels=HEIGHT * WIDTH - 1)
