import json
import shutil

import numpy as np
import pytest
from PIL import Image
from tests.mask_sets import CLASSES, IGNORE, make_masks

from piip import PIIP
from piip.data.image_files import ImageError
from piip.data.names.ade20k import ADE20K_CLASSES
from piip.data.report import DataError
from piip.data.segmentation.folders import find_mask_splits, read_description
from piip.data.segmentation.masks import check_masks, load_pair, open_masks
from piip.structures import IGNORED
from piip.tasks import segmentation


@pytest.fixture
def masks(tmp_path):
    return make_masks(tmp_path / "set")


def rewrite(path, values, mode=None):
    """Replace a mask's values, saved as another kind of image."""
    image = Image.fromarray(values)
    if mode == "P":
        image = Image.fromarray(values.astype(np.uint8), mode="L")
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    image.save(path)


def values_of(path):
    return np.array(Image.open(path))


def test_a_split_is_opened_with_its_figures(masks):
    data = open_masks(masks, "train")
    assert data.classes == CLASSES
    assert [image.path.name for image in data.images] == ["000.png", "001.png", "002.png", "003.png"]
    every = np.concatenate([values_of(image.mask).ravel() for image in data.images])
    assert data.pixels == tuple(int((every == label).sum()) for label in range(3))
    assert data.containing == tuple(4 * 64 * 80 for _ in range(3))
    pixels, labels = load_pair(data.images[0], data.description)
    assert pixels.shape == (64, 80, 3)
    assert labels[0, 0] == IGNORED
    assert set(np.unique(labels)) == {IGNORED, 0, 1, 2}


@pytest.mark.parametrize("kind", ["palette", "16 bit", "grey as RGB", "grey with alpha"])
def test_the_values_count_however_they_are_stored(masks, kind):
    path = masks / "masks" / "train" / "000.png"
    before = load_pair(open_masks(masks, "train").images[0], read_description(masks))[1]
    values = values_of(path)
    if kind == "palette":
        rewrite(path, values, "P")
        assert Image.open(path).mode == "P"
    elif kind == "16 bit":
        rewrite(path, values.astype(np.uint16))
    elif kind == "grey as RGB":
        rewrite(path, np.repeat(values[..., None], 3, axis=2))
    else:
        rewrite(path, np.stack([values, np.full_like(values, 255)], axis=-1))
    assert np.array_equal(load_pair(open_masks(masks, "train").images[0], read_description(masks))[1], before)


def test_one_bit_masks_are_two_classes(tmp_path):
    folder = make_masks(tmp_path, description=["background", "thing"])
    for path in (folder / "masks").rglob("*.png"):
        Image.fromarray(values_of(path) == 1).save(path)
    data = open_masks(folder, "train")
    assert data.pixels[1] > 0
    assert set(np.unique(load_pair(data.images[0], data.description)[1])) == {0, 1}


def test_ids_with_gaps_become_labels(tmp_path):
    folder = make_masks(tmp_path)
    table = np.full(256, 255)
    table[:3] = (7, 300, 11)
    for path in (folder / "masks").rglob("*.png"):
        rewrite(path, table[values_of(path)].astype(np.uint16))
    description = {"classes": {"7": "ground", "300": "square", "11": "disc"}, "ignore_index": [255, 9]}
    (folder / "classes.json").write_text(json.dumps(description))
    data = open_masks(folder, "train")
    assert data.description.values == (7, 300, 11)
    assert set(np.unique(load_pair(data.images[0], data.description)[1])) == {IGNORED, 0, 1, 2}


def test_reduce_zero_label(tmp_path):
    (tmp_path / "data.yaml").write_text("names: [wall, floor]\nreduce_zero_label: true\nignore_index: 255\n")
    description = read_description(tmp_path)
    assert description.labels == {1: 0, 2: 1}
    assert description.ignored == {0, 255}


@pytest.mark.parametrize(
    "colours",
    ['["#0a0B0c", [1, 2, 3]]', '{"wall": [10, 11, 12], "floor": "#010203"}', '{"5": [10, 11, 12], "6": [1, 2, 3]}'],
)
def test_classes_have_colours(tmp_path, colours):
    (tmp_path / "classes.json").write_text(f'{{"classes": {{"5": "wall", "6": "floor"}}, "colors": {colours}}}')
    assert read_description(tmp_path).colours == ((10, 11, 12), (1, 2, 3))


def test_colours_follow_their_classes_into_the_model(masks):
    described = json.loads((masks / "classes.json").read_text())
    (masks / "classes.json").write_text(json.dumps(described | {"colors": {described["classes"][1]: [1, 2, 3]}}))
    data = open_masks(masks, "train")
    turned = data.with_classes((*reversed(data.classes), "more"))
    assert turned.description.colours == (None, (1, 2, 3), None, None)
    adapted = segmentation.adapted(PIIP("piip_nano_upernet").config, data)
    assert adapted.colours == (None, (1, 2, 3), None)


def test_ade20k_s_own_folder_needs_no_description(tmp_path):
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (tmp_path / kind / split).mkdir(parents=True)
        Image.new("RGB", (20, 10)).save(tmp_path / "images" / split / "ADE_1.jpg")
        rewrite(
            tmp_path / "annotations" / split / "ADE_1.png", np.arange(200).reshape(10, 20).clip(0, 150).astype(np.uint8)
        )
    assert set(find_mask_splits(tmp_path)) == {"train", "val"}
    data = open_masks(tmp_path, "val")
    assert data.classes == ADE20K_CLASSES
    labels = load_pair(data.images[0], data.description)[1]
    assert labels[0, 0] == IGNORED
    assert labels[0, 1] == 0
    assert labels.max() == 149


@pytest.mark.parametrize("layout", ["train/images", "images", "train2017", "JPEGImages"])
def test_other_layouts(masks, tmp_path, layout):
    other = tmp_path / "other"
    if layout == "train/images":
        for kind in ("images", "masks"):
            shutil.copytree(masks / kind / "train", other / "train" / kind)
            shutil.copytree(masks / kind / "val", other / "valid" / kind)
    elif layout == "images":
        for kind in ("images", "masks"):
            shutil.copytree(masks / kind / "train", other / kind)
    elif layout == "train2017":
        for kind, name in (("images", "images"), ("masks", "annotations")):
            shutil.copytree(masks / kind / "train", other / name / "train2017")
    else:
        for kind, name in (("images", "JPEGImages"), ("masks", "SegmentationClass")):
            shutil.copytree(masks / kind / "train", other / name)
    shutil.copy(masks / "classes.json", other)
    assert len(open_masks(other, "train").images) == 4
    assert set(find_mask_splits(other)) == ({"train", "val"} if layout == "train/images" else {"train"})


def test_a_strange_value_is_named_with_its_file(masks):
    path = masks / "masks" / "train" / "002.png"
    values = values_of(path)
    values[5, 5:9] = 77
    rewrite(path, values)
    with pytest.raises(DataError, match=r"002\.png: 77"):
        open_masks(masks, "train")
    assert open_masks(masks, "val")
    finding = check_masks(masks)["train"].find("mask values that are no class and not ignored")
    assert finding.severity == "error"
    assert finding.examples == [f"{path}: 77"]


def test_the_ignored_value_must_be_said(masks):
    (masks / "classes.json").write_text(json.dumps({"classes": CLASSES, "ignore_index": None}))
    with pytest.raises(DataError, match="255"):
        open_masks(masks, "train")


def test_a_mask_of_another_size_is_named(masks):
    path = masks / "masks" / "val" / "001.png"
    rewrite(path, values_of(path)[:-1])
    with pytest.raises(DataError, match=r"001\.png: 80 x 63, 001\.png: 80 x 64"):
        open_masks(masks, "val")


def test_masks_follow_an_image_s_exif_orientation_or_not(masks):
    image = masks / "images" / "train" / "000.png"
    mask = masks / "masks" / "train" / "000.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(image).save(image, exif=exif)
    as_stored = open_masks(masks, "train").images[0]
    assert not as_stored.upright
    rewrite(mask, np.rot90(values_of(mask), -1).copy())
    upright = open_masks(masks, "train").images[0]
    assert upright.upright
    assert load_pair(upright, read_description(masks))[0].shape[:2] == (80, 64)


def test_unusable_files_are_left_out(masks):
    (masks / "masks" / "train" / "000.png").unlink()
    (masks / "images" / "train" / "001.png").write_bytes(b"no image")
    (masks / "masks" / "train" / "002.png").write_bytes(b"no image")
    Image.new("L", (3, 3)).save(masks / "masks" / "train" / "other.png")
    assert [image.path.name for image in open_masks(masks, "train").images] == ["003.png"]
    report = check_masks(masks)["train"]
    assert report.errors == 0
    assert report.find("image without a mask").examples == [str(masks / "images" / "train" / "000.png")]
    assert report.find("file cannot be read").count == 2
    assert report.find("mask without an image").count == 1
    assert json.dumps(report.to_dict())


def test_coloured_masks_are_refused(masks):
    path = masks / "masks" / "train" / "000.png"
    rewrite(path, np.random.default_rng(0).integers(0, 255, (64, 80, 3)).astype(np.uint8))
    assert "in colours" in check_masks(masks)["train"].find("file cannot be read").examples[0]


def test_nothing_usable_is_an_error(masks):
    for path in (masks / "masks" / "train").glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no image with a mask is usable"):
        open_masks(masks, "train")


def test_without_a_description_the_error_shows_one_and_the_values(masks):
    (masks / "classes.json").unlink()
    with pytest.raises(DataError, match=r"0, 1, 2, 255.*classes\.json.*ignore_index"):
        open_masks(masks, "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"classes": ["a", "b"], "ignore_index": 1}', "stand for two things"),
        ('{"classes": {"1": "a", "01": "b"}}', "stand for two things"),
        ('{"classes": {"x": "a"}}', "'x' is no mask value"),
        ('{"classes": [], "ignore_index": 1}', 'no "classes"'),
        ('{"classes": ["a"], "ignore_index": -1}', "'?-1'? is no mask value"),
        ('{"classes": ["a"], "colors": [[1, 2, 256]]}', "no colour"),
        ('{"classes": ["a"], "colors": ["red"]}', "no colour"),
        ('{"classes": ["a"], "colors": [[1, 2, 3], [4, 5, 6]]}', "2 colors for 1 classes"),
        ('{"classes": ["a"], "colors": {"b": [1, 2, 3]}}', "'b' is no class"),
        ("{", "not readable"),
        ("3", 'no "classes"'),
    ],
)
def test_wrong_descriptions_name_the_file(masks, content, message):
    (masks / "classes.json").write_text(content)
    with pytest.raises(DataError, match=message) as error:
        open_masks(masks, "train")
    assert "classes.json" in str(error.value)


def test_a_missing_split_names_those_that_are_there(masks):
    with pytest.raises(DataError, match="train, val"):
        open_masks(masks, "test")


def test_a_mask_that_changes_after_the_check_is_an_error(masks):
    data = open_masks(masks, "train")
    rewrite(data.images[0].mask, np.full((64, 80), 9, dtype=np.uint8))
    with pytest.raises(ImageError, match=r"000\.png.*9"):
        load_pair(data.images[0], data.description)
    rewrite(data.images[0].mask, np.zeros((64, 81), dtype=np.uint8))
    with pytest.raises(ImageError, match="changed"):
        load_pair(data.images[0], data.description)


def test_labels_follow_the_model_s_classes(masks):
    data = open_masks(masks, "train")
    other = data.with_classes(("disc", "sky", "ground", "square"))
    first, second = (load_pair(one.images[0], one.description)[1] for one in (data, other))
    assert np.array_equal(second == 0, first == 2)
    assert np.array_equal(second == 2, first == 0)
    assert np.array_equal(second == IGNORED, first == IGNORED)
    assert other.pixels == (data.pixels[2], 0, data.pixels[0], data.pixels[1])
    with pytest.raises(DataError, match="square, disc"):
        data.with_classes(("ground", "sky"))


def test_camvid_is_clean():
    from tests.conftest import shared_folder

    reports = check_masks(shared_folder("data", "camvid"))
    assert {name: report.images for name, report in reports.items()} == {"train": 367, "val": 101}
    assert not any(report.findings for report in reports.values())


def test_ignored_values_are_labelled_ignored(masks):
    data = open_masks(masks, "train")
    values = values_of(data.images[0].mask)
    labels = load_pair(data.images[0], data.description)[1]
    assert np.array_equal(labels == IGNORED, values == IGNORE)
