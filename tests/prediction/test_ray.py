"""The recipe for Ray in docs/bulk.md, with two actors of which one dies."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests import tiny

import piip

DOCS = Path(__file__).resolve().parents[2] / "docs" / "bulk.md"


def recipe() -> dict[str, Any]:
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(code, names)  # noqa: S102 # our own documentation
    return names


@pytest.mark.slow
def test_actors_find_what_one_process_finds_though_one_of_them_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # nothing is written into anybody's home
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    weights = str(piip.PIIP(tiny.model(), device="cpu").save(tmp_path / "model"))
    for number in range(200):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32 + number % 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number:03}.png")
    (tmp_path / "100.png").write_bytes(b"no image")
    names, died = recipe(), tmp_path / "died"
    found = names["Found"]

    class Mortal(found):  # type: ignore[misc, valid-type]
        def __call__(self, batch: Any) -> Any:
            if "070.png" in " ".join(batch["path"]) and not died.exists():
                died.touch()
                os._exit(1)
            return found.__call__(self, batch)

    names["Found"] = Mortal
    ray.init(num_cpus=3, include_dashboard=False, object_store_memory=200 << 20)
    try:
        rows = names["find"](weights, tmp_path, actors=2).take_all()
    finally:
        ray.shutdown()
    assert died.exists()
    lines = {row["path"]: json.loads(row["found"]) for row in rows}
    assert len(rows) == len(lines) == 200
    assert "not an image" in lines.pop(str(tmp_path / "100.png"))["failure"]
    plain = piip.PIIP(weights, device="cpu").predict_report(tmp_path)
    assert len(plain.results) == 199
    for result in plain.results:
        one, other = lines[str(result.path)]["objects"], result.to_dict()["objects"]
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert a["label"] == b["label"]
            assert a["box"] == pytest.approx(b["box"], abs=0.05)
            assert a["score"] == pytest.approx(b["score"], abs=1e-3)
