"""What an exported graph says becomes the results that the model itself gives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.export.models import SIDE, eager, photo, small

import piip
from piip import config
from piip.export import is_exported
from piip.export.description import read_description
from piip.prediction.objects import Result
from piip.weights.errors import WeightsError


def own(model: piip.PIIPModel) -> piip.PIIP:
    return piip.PIIP(model, device="cpu")


def test_objects_are_the_models_own_and_what_fills_up_a_batch_is_left_out() -> None:
    model = small("mask_rcnn")
    exported = eager(model, batch=2)
    images = [photo(SIDE, SIDE, seed) for seed in range(3)]
    found, wanted = exported.predict(images, conf=0.1), own(model).predict(images, conf=0.1)
    assert exported.runtime.batches == [2, 2]  # type: ignore[attr-defined]
    for one, other in zip(found, wanted, strict=True):
        assert isinstance(one, Result)
        assert len(one) == len(other) > 0
        torch.testing.assert_close(one.boxes, other.boxes, atol=5e-3, rtol=0)
        torch.testing.assert_close(one.scores, other.scores, atol=1e-4, rtol=0)
        assert (one.masks == other.masks).float().mean() > 0.999


def test_folders_within_a_folder_are_taken_where_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "within").mkdir()
    for place in (tmp_path / "0.png", tmp_path / "within" / "1.png"):
        Image.fromarray(photo(SIDE, SIDE)).save(place)
    exported = eager(small("dino"))
    assert [len(exported.predict(tmp_path, recursive=deep)) for deep in (False, True)] == [1, 2]  # type: ignore[arg-type]


def test_boxes_are_in_pixels_of_the_photo() -> None:
    model = small("dino")
    result = eager(model).predict(photo(3 * SIDE, 2 * SIDE), conf=0.0)
    assert result.orig_size == (3 * SIDE, 2 * SIDE)
    assert result.boxes[:, 3].max() > 1.2 * SIDE
    assert (result.boxes[:, 2] <= 2 * SIDE).all()


@pytest.mark.parametrize("size", [(64, 96), (96, 64)])
def test_a_graph_that_is_no_square_takes_photos_of_both_orientations(size: tuple[int, int]) -> None:
    exported = eager(small("mask_rcnn"), size=size)
    for shape in ((60, 90), (90, 60), (200, 20)):
        assert exported.predict(photo(*shape), conf=0.0).orig_size == shape


def test_labels_are_the_models_own_in_windows_too() -> None:
    model = small("upernet")
    images = [photo(SIDE, SIDE), photo(48, SIDE + 30)]
    for window in (None, SIDE):
        changed = model.head.config.model_copy(update={"window": window})
        short = {"short_side": SIDE, "long_side": 4 * SIDE if window else SIDE}
        preprocess = model.config.preprocess.model_copy(update=short)
        model.config = model.config.model_copy(update={"head": changed, "preprocess": preprocess})
        model.head.config = changed
        exported = eager(model)
        for image in images if window else images[:1]:
            found, wanted = exported.predict(image), own(model).predict(image)
            assert np.asarray(found.labels == wanted.labels).mean() > 0.995


def test_probabilities_are_the_models_own() -> None:
    model, image = small("classifier"), photo(80, 70)
    torch.testing.assert_close(eager(model).predict(image).probs, own(model).predict(image).probs, atol=1e-5, rtol=0)


def test_pictures_are_saved_and_a_list_gives_a_list(tmp_path) -> None:
    exported = eager(small("classifier"))
    assert len(exported.predict([photo(40, 40)] * 2, save=tmp_path / "out")) == 2
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_what_is_settled_in_the_file_cannot_be_asked_for() -> None:
    exported = eager(small("classifier"))
    with pytest.raises(ValueError, match="has its own"):
        exported.predict(photo(40, 40), half=True)
    with pytest.raises(ValueError, match="has its own"):
        exported.predict(photo(40, 40), imgsz=128)
    with pytest.raises(ValueError, match="this graph takes 64 x 64"):
        exported.model.outputs(torch.zeros(1, 3, 65, 64))


def test_any_number_of_images_goes_at_once_where_the_graph_takes_it() -> None:
    exported = eager(small("classifier"), dynamic=True)
    assert len(exported.predict([photo(40, 40)] * 3, batch=3)) == 3
    assert exported.runtime.batches == [3]  # type: ignore[attr-defined]


def test_a_description_goes_through_its_text() -> None:
    described = eager(small("dino"), licences={"weights": "mit"}).description
    assert read_description(described.text(), "x") == described
    assert described.config.classes == described.classes
    assert isinstance(described.preprocess, config.Preprocess)


@pytest.mark.parametrize("text", [None, "{", "{}", "[]", '{"format": "onnx"}'])
def test_a_file_of_others_is_refused(text: str | None) -> None:
    with pytest.raises(WeightsError, match="their.onnx"):
        read_description(text, "their.onnx")


def test_files_are_known_by_their_ends() -> None:
    assert [is_exported(name) for name in ("a.onnx", "a.xml", "a.pt2", "a.safetensors", "piip_nano_dino")] == [
        True, True, True, False, False
    ]  # fmt: skip
    with pytest.raises(ValueError, match="end in"):
        piip.load_exported("a.engine")
    with pytest.raises(FileNotFoundError):
        piip.load_exported("nothing.onnx")


def test_photos_are_not_changed() -> None:
    image = photo(40, 40)
    before = image.copy()
    eager(small("classifier")).predict(image)
    assert np.array_equal(image, before)
