"""Every kind of source becomes the same image; broken files are skipped, wrong arguments are refused."""

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tests import tiny
from tests.heads import dino_models
from torch import Tensor, nn

from piip.config import Preprocess
from piip.model import PIIPModel
from piip.prediction.objects import Result
from piip.prediction.predictor import Failure, Predictor
from piip.structures import Batch, Prediction, Size
from piip.training.freeze import train_mode


class StandIn(nn.Module):
    """Finds three objects in every image, with scores 0.2, 0.9 and 0.6; notes what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 3))
        preprocess = Preprocess(long_side=64, short_side=64, pad_multiple=32)
        self.config = SimpleNamespace(
            task="detection",
            preprocess=preprocess,
            classes=("cat", "dog", "cow"),
            category_ids=None,
            backbone=SimpleNamespace(smallest_image=1),
        )
        self.batches: list[Tensor] = []
        self.products: list[torch.dtype] = []

    def predict(self, batch: Batch) -> list[Prediction]:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.batches.append(batch.images.clone())
        self.products.append((self.weight @ self.weight.T).dtype)
        return [self.found(size) for size in batch.original_sizes]

    def found(self, size: Size) -> Prediction:
        height, width = size
        masks = torch.zeros(3, height, width, dtype=torch.bool)
        masks[1] = True
        boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, width, height], [1, 1, 2, 2]])
        return {"boxes": boxes, "scores": torch.tensor([0.2, 0.9, 0.6]), "labels": torch.arange(3), "masks": masks}


@pytest.fixture
def model() -> StandIn:
    return StandIn()


@pytest.fixture
def predictor(model) -> Predictor:
    return Predictor(model, device="cpu")


def noise(height: int = 30, width: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_objects_come_best_first_and_above_the_threshold(predictor):
    (result,) = predictor.predict(noise(), score_threshold=0.5).results
    assert result.scores.tolist() == pytest.approx([0.9, 0.6])
    assert result.labels.tolist() == [1, 2]
    assert result.class_names == ["dog", "cow"]
    assert result.boxes[0].tolist() == [0, 0, 40, 30]
    assert result.masks.shape == (2, 30, 40)
    assert result.masks[0].all()
    assert len(predictor.predict(noise(), score_threshold=0.0).results[0]) == 3
    assert len(predictor.predict(noise(), score_threshold=1.0).results[0]) == 0


def test_every_kind_of_source_is_the_same_image(predictor, model, tmp_path):
    pixels = noise()
    file = png(tmp_path / "a.png", pixels)
    as_tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    sources = [file, str(file), file.read_bytes(), Image.fromarray(pixels), pixels, as_tensor, as_tensor / 255]
    results = predictor.predict(sources).results
    for result, images in zip(results, model.batches, strict=True):
        assert np.array_equal(result.image, pixels)
        assert torch.equal(images, model.batches[0])
    assert [result.path for result in results] == [file, file, None, None, None, None, None]


def test_the_network_gets_the_resized_normalised_and_padded_image(predictor, model):
    white = np.full((20, 40, 3), 255, dtype=np.uint8)
    predictor.predict(white)
    (images,) = model.batches
    assert images.shape == (1, 3, 32, 64)
    assert torch.equal(images, torch.ones(1, 3, 32, 64))  # (255 - 127.5) / 127.5

    black = np.zeros((20, 20, 3), dtype=np.uint8)
    low = np.full((15, 40, 3), 255, dtype=np.uint8)
    predictor.predict([white, black, low], batch_size=3)
    together, alone = model.batches[-2:]
    assert together.shape == (2, 3, 32, 64)
    assert torch.equal(together[0], images[0])
    assert (together[1, :, 24:] == 0).all()  # padding
    assert (together[1, :, :24] == 1).all()
    assert alone.shape == (1, 3, 64, 64)
    assert (alone == -1).all()


def test_results_do_not_depend_on_the_batch() -> None:
    model = PIIPModel(tiny.model(2)).eval()
    with torch.no_grad():
        model.head.box.scores.bias[0] += 3  # so that something is found
    shapes = [(60, 160), (160, 60), (120, 120), (60, 158), (160, 60), (120, 118), (64, 160)]
    images = [noise(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    predictor = Predictor(model, "cpu")
    single = predictor.predict(images, 0.0).results
    for together in (predictor.predict(images, 0.0, batch_size=4).results, predictor.predict(images[::-1], 0.0, 2)):
        results = together if isinstance(together, list) else together.results[::-1]
        for one, other in zip(single, results, strict=True):
            assert np.array_equal(one.image, other.image)
            assert len(one) == len(other) > 0
            torch.testing.assert_close(one.scores, other.scores, atol=1e-5, rtol=0)
            torch.testing.assert_close(one.boxes, other.boxes, atol=1e-2, rtol=0)


def test_images_of_a_rare_shape_hold_up_a_few_batches_only(predictor, model) -> None:
    read = []

    def frames():
        for number in range(20):
            read.append(number)
            yield noise(40, 20) if number == 0 else noise(20, 40)

    first = next(predictor.stream(frames(), batch_size=2))
    assert first.orig_size == (40, 20)
    assert len(read) == 8


def test_grey_arrays(predictor):
    grey = noise()[:, :, 0]
    for source in (grey, grey[:, :, None]):
        (result,) = predictor.predict(source).results
        assert np.array_equal(result.image, np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 10])
def test_order_and_batches(predictor, model, batch_size):
    images = [noise(seed=seed) for seed in range(5)]
    results = predictor.predict(images, batch_size=batch_size).results
    assert all(np.array_equal(r.image, image) for r, image in zip(results, images, strict=True))
    assert [len(batch) for batch in model.batches] == {1: [1] * 5, 2: [2, 2, 1], 3: [3, 2], 10: [5]}[batch_size]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_broken_files_are_reported_and_skipped(predictor, tmp_path, batch_size):
    for name in ("a.png", "c.png", "d.png"):
        png(tmp_path / name, noise())
    (tmp_path / "b.jpg").write_bytes(b"this is no image")
    (tmp_path / "e.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    (tmp_path / "notes.txt").write_text("not looked at")
    report = predictor.predict(tmp_path, batch_size=batch_size)
    assert [result.path.name for result in report.results] == ["a.png", "c.png", "d.png"]
    assert [failure.path.name for failure in report.failures] == ["b.jpg", "e.png"]
    assert all(failure.reason and str(failure.path) not in failure.reason for failure in report.failures)
    outcomes = list(predictor.stream(tmp_path, batch_size=batch_size))
    assert [isinstance(outcome, Failure) for outcome in outcomes] == [False, True, False, False, True]


def test_only_broken_files(predictor, model, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    report = predictor.predict(tmp_path / "a.jpg")
    assert report.results == []
    assert len(report.failures) == 1
    assert model.batches == []


def test_folders_and_patterns(predictor, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "folder.png").mkdir()
    for name in ("b.PNG", "a.png", "deep/c.jpg", "odd[1].png"):
        Image.fromarray(noise()).save(tmp_path / name)

    def names(source):
        return [result.path.name for result in predictor.predict(source).results]

    assert names(tmp_path) == ["a.png", "b.PNG", "odd[1].png"]
    assert names(str(tmp_path / "?.*")) == ["a.png", "b.PNG"]
    assert names(str(tmp_path / "**" / "c*")) == ["c.jpg"]
    assert names(tmp_path / "odd[1].png") == ["odd[1].png"]
    assert names([tmp_path / "deep", tmp_path / "a.png"]) == ["c.jpg", "a.png"]


@pytest.mark.parametrize("name", ["missing.jpg", "missing*.jpg", "empty"])
def test_nothing_behind_a_path_is_an_error_before_any_image_is_run(predictor, model, tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no such file or folder|no images there"):
        predictor.stream([noise(), str(tmp_path / name)])
    assert model.batches == []


def test_a_generator_is_read_as_it_goes(predictor):
    read = []

    def frames():
        for seed in range(4):
            read.append(seed)
            yield noise(seed=seed)

    stream = predictor.stream(frames(), batch_size=2)
    assert read == []
    first = next(stream)
    assert isinstance(first, Result)
    assert read == [0, 1]
    assert len(list(stream)) == 3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (noise().astype(np.float32), r"array of float32: use uint8"),
        (np.zeros((30, 40, 4), np.uint8), r"array of shape \(30, 40, 4\): use \[H, W, 3\]"),
        (np.zeros((2, 30, 40, 3), np.uint8), r"several images go in a list"),
        (np.zeros((0, 40, 3), np.uint8), r"array of shape \(0, 40, 3\)"),
        (torch.zeros(1, 3, 30, 40), r"tensor of shape \(1, 3, 30, 40\).*several images go in a list"),
        (torch.zeros(30, 40, 3), r"tensor of shape \(30, 40, 3\): use \[3, H, W\]"),
        (torch.zeros(3, 30, 40, dtype=torch.int64), r"tensor of torch.int64"),
        (torch.full((3, 30, 40), float("nan")), r"NaN or infinite"),
        (torch.full((3, 30, 40), 200.0), r"values from 200 to 200: use 0 to 1"),
        (torch.full((3, 30, 40), -1.0), r"not normalised"),
        (b"no image", r"image of 8 bytes"),
    ],
)
def test_wrong_images_are_refused(predictor, source, message):
    with pytest.raises(ValueError, match=message):
        predictor.predict(source)


@pytest.mark.parametrize("source", [None, 3, [None]])
def test_things_that_are_no_images_are_refused(predictor, source):
    with pytest.raises(TypeError, match="is no image"):
        predictor.predict(source)


@pytest.mark.parametrize("arguments", [{"score_threshold": 1.5}, {"score_threshold": -0.1}, {"batch_size": 0}])
def test_wrong_arguments_are_refused_at_once(predictor, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        predictor.stream(noise(), **arguments)


def test_a_float_image_may_leave_the_range_by_rounding(predictor):
    (result,) = predictor.predict(torch.full((3, 8, 8), 1.0 + 1e-6)).results
    assert (result.image == 255).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (15, 15)])
def test_small_and_narrow_images(predictor, model, size):
    (result,) = predictor.predict(noise(*size)).results
    assert result.orig_size == size
    assert model.batches[0].isfinite().all()


def test_the_mode_of_the_model_is_left_as_it_was(predictor, model):
    for training in (True, False):
        model.train(training)
        predictor.predict(noise())
        assert model.training is training


def test_frozen_parts_of_a_model_that_trains_stay_frozen():
    """As where a callback of a training predicts: norms and dropout of frozen parts are as in predictions."""
    model = PIIPModel(tiny.model(2, masks=False))
    train_mode(model, ("backbone",))
    before = [module.training for module in model.modules()]
    assert len(set(before)) == 2
    Predictor(model, "cpu").predict(noise())
    assert [module.training for module in model.modules()] == before


@pytest.mark.parametrize(("precision", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_that_of_the_matrix_products(model, precision, expected):
    Predictor(model, device="cpu", precision=precision).predict(noise())
    assert model.products == [expected]


def test_a_read_only_array_is_copied(predictor):
    array = noise()
    array.flags.writeable = False
    (result,) = predictor.predict(array).results
    assert result.image.flags.writeable
    assert (result.image == array).all()


def test_callers_may_use_their_array_again(predictor):
    def frames():
        buffer = np.zeros((20, 30, 3), dtype=np.uint8)
        for value in (10, 200):
            buffer[:] = value
            yield buffer

    first, second = predictor.predict(frames(), batch_size=2).results
    assert (first.image.mean(), second.image.mean()) == (10, 200)


def test_an_image_too_small_for_the_coarsest_branch_is_padded():
    model = PIIPModel(tiny.model(2))
    model.config = model.config.model_copy(
        update={"preprocess": Preprocess(long_side=64, short_side=64, pad_multiple=1)}
    )
    report = Predictor(model, "cpu").predict([noise(9, 64), noise(40, 64)], batch_size=2)
    assert [result.image.shape[:2] for result in report.results] == [(9, 64), (40, 64)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "gpu"}, "device 'gpu' is not available here; use one of cpu"),
        ({"device": "cuda:77"}, "device 'cuda:77' is not available here"),
        ({"device": "cpu", "precision": "half"}, "precision 'half': use one of fp32, bf16, fp16"),
    ],
)
def test_devices_and_precisions_that_are_not_there(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        Predictor(model, **arguments)


def test_a_model_in_double_precision():
    exact = PIIPModel(tiny.model(2)).eval()
    with torch.no_grad():
        exact.head.box.scores.bias[0] += 3  # so that something is found
    single = Predictor(exact, "cpu").predict(noise()).results[0]
    double = Predictor(copy.deepcopy(exact).double(), "cpu").predict(noise()).results[0]
    assert len(single) > 0
    assert double.boxes.dtype == torch.float32
    torch.testing.assert_close(double.boxes[0], single.boxes[0], atol=1e-2, rtol=0)


@pytest.fixture
def double_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("make", [lambda: PIIPModel(tiny.model()), dino_models.tiny_model])
def test_another_default_of_torch_changes_nothing(make, double_by_default):
    torch.manual_seed(0)
    built = make()
    assert {parameter.dtype for parameter in built.parameters()} == {torch.float32}
    found = Predictor(built).predict(noise(90, 120), score_threshold=0).results[0]
    assert torch.get_default_dtype() == torch.float64
    torch.set_default_dtype(torch.float32)
    expected = Predictor(built).predict(noise(90, 120), score_threshold=0).results[0]
    assert len(found)
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)


def test_results_are_ordinary_tensors(predictor):
    (result,) = predictor.predict(noise()).results
    result.boxes[:, 0] += 1
    result.scores.mul_(0.5)
    assert result.boxes[0].tolist() == [1, 0, 40, 30]


def test_a_model_without_masks(predictor, model, monkeypatch):
    def found(size):
        return {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}

    monkeypatch.setattr(model, "found", found)
    (result,) = predictor.predict(noise()).results
    assert result.masks is None
    assert len(result) == 0


def test_real_images(predictor, coco100):
    report = predictor.predict(coco100 / "val2017", batch_size=4)
    assert len(report.results) == 50
    assert report.failures == []
    for result in report.results[:3]:
        with Image.open(result.path) as image:
            assert result.orig_size == (image.height, image.width)
        assert result.plot().shape == result.image.shape


def test_hidden_files_of_a_folder_are_no_images(predictor, tmp_path):
    for name in ("b.png", "._b.png", ".a.png"):
        png(tmp_path / name, noise())
    (tmp_path / ".DS_Store").write_bytes(b"")
    report = predictor.predict(tmp_path)
    assert [result.path for result in report.results] == [tmp_path / "b.png"]
    assert not report.failures
    assert len(predictor.predict(tmp_path / ".a.png").results) == 1  # which somebody asked for
