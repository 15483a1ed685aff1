"""A server of an exported file answers as the file itself predicts."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.export.models import photo, small

import piip
from piip.serve.model import loaded
from piip.serve.wanted import Image, Wanted


@pytest.mark.slow
def test_an_exported_file_is_served(tmp_path: Path) -> None:
    path = piip.PIIP(small("classifier"), "cpu").export(tmp_path / "small.pt2", images=[photo(70, 60)]).path
    answers = loaded(path, None, "fp32", 8, 1)
    assert answers.facts["task"] == "classification"
    image = photo(90, 80)
    (answer,) = answers([Image(np.asarray(image), Wanted())])
    expected = piip.load_exported(path).predict(image).to_dict()
    assert json.loads(answer.body)["top"] == expected["top"]
    for device, precision in (("cuda", "fp32"), (None, "bf16")):
        with pytest.raises(ValueError, match="in its own precision"):
            loaded(path, device, precision, 8, 1)  # type: ignore[arg-type]
