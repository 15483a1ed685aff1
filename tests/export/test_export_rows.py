"""The rows of the table in docs/export.md: what is written can be opened and says what the model says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.export.models import SIDE, photo, small

import piip
from piip.export import export
from piip.export.exported import RUNTIMES

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

ROWS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("mask_rcnn", "onnx", {"batch": 2}),
    ("mask_rcnn", "openvino", {}),
    ("mask_rcnn", "pt2", {"half": True, "image_size": (64, 96)}),
    ("dino", "onnx", {"dynamic": True}),
    ("dino", "openvino", {}),  # half weights move the boxes of a random DINO too far
    ("dino", "pt2", {}),
    ("upernet", "onnx", {"half": True}),
    ("upernet", "openvino", {"dynamic": True}),
    ("upernet", "pt2", {"image_size": 96}),
    ("classifier", "onnx", {"dynamic": True}),
    ("classifier", "openvino", {"half": True}),
    ("classifier", "pt2", {"dynamic": True}),
    ("upernet", "onnx", {"part": "backbone"}),
    ("mask_rcnn", "openvino", {"part": "backbone"}),
    ("dino", "pt2", {"part": "backbone"}),
)


def row(head: str, format: str, options: dict[str, Any]) -> str:
    return " ".join([head, format, *(f"{name}={value}" for name, value in options.items())])


@pytest.mark.slow
@pytest.mark.parametrize(("head", "format", "options"), [pytest.param(*one, id=row(*one)) for one in ROWS])
def test_a_file_says_what_its_model_says(head: str, format: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = small(head)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    done = export(model, tmp_path / "made", format, images=[photo(90, 120), photo(64, 50)], licence="mit", **options)
    assert done.check.passed, done.check.problems
    assert done.check.figures.get("objects", 1) > 0
    assert done.path == tmp_path / f"made{RUNTIMES[format].suffix}"
    assert set(done.files) == set(tmp_path.iterdir())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    opened = piip.load_exported(done.path)
    described = opened.description
    assert (described.format, described.half) == (format, options.get("half", False))
    assert described.licences == {"weights": "mit"}
    assert described.classes == model.config.classes
    assert described.config.backbone == model.config.backbone
    if described.part == "backbone":
        maps = opened.maps(torch.randn(1, 3, *described.size))
        assert list(maps) == ["map_4", "map_8", "map_16", "map_32"]
        with pytest.raises(ValueError, match="predicts nothing"):
            opened.predict(photo(SIDE, SIDE))
        return
    images = [photo(SIDE, SIDE, seed) for seed in range(3)]
    results = opened.predict(images, conf=0.1, batch_size=3 if described.dynamic else None)
    for found, wanted in zip(results, piip.PIIP(model, "cpu").predict(images, conf=0.1), strict=True):
        assert type(found) is type(wanted)
        if options:  # other sizes and precisions give other numbers
            continue
        assert found.count == wanted.count
