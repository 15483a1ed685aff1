"""Names in scripts that few machines have a font for: by a font that has them, and written out without one."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from fontTools.ttLib import TTFont
from matplotlib import font_manager
from PIL import Image

from piip.evaluation.plots import plot_confusion
from piip.pictures import lettering
from piip.pictures.lettering import one_line
from piip.prediction.objects import Result

NAMES = ("猫", "犬 walked")
STAND_INS = {"猫": "☃", "犬": "♞"}
"""signs of DejaVu Sans that a made font draws in their places: none is on every machine that has them"""


@pytest.fixture
def made_font(tmp_path: Path) -> Path:
    """DejaVu Sans with two characters more, under the name of a font that is looked for."""
    font = TTFont(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
    known = font.getBestCmap()
    for table in font["cmap"].tables:
        if table.isUnicode() and table.format != 14:
            table.cmap.update({ord(letter): known[ord(sign)] for letter, sign in STAND_INS.items()})
    for record in font["name"].names:
        if record.nameID in (1, 3, 4, 6, 16):
            record.string = "Noto Sans CJK SC"
    font.save(tmp_path / "made.ttf")
    return tmp_path / "made.ttf"


def result(names: tuple[str, ...] = NAMES) -> Result:
    boxes = torch.tensor([[20.0, 40, 160, 200], [200, 40, 380, 220]])
    return Result(boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 1]), names, np.full((240, 400, 3), 120, np.uint8))


def test_a_picture_has_the_letters_of_a_font_that_knows_them(
    made_font: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lettering, "EUROPEAN_FONTS", ())
    monkeypatch.setattr(lettering, "EAST_ASIAN_FONTS", ())
    assert [one_line(name) for name in NAMES] == ["\\u732b", "\\u72ac walked"]
    without = np.array(Image.open(result().save(tmp_path / "without.png")))
    assert np.array_equal(without, result(("\\u732b", "\\u72ac walked")).readable())
    monkeypatch.setattr(lettering, "EAST_ASIAN_FONTS", ("missing.otf", str(made_font)))
    assert [one_line(name) for name in NAMES] == list(NAMES)
    drawn = np.array(Image.open(result().save(tmp_path / "with.png")))
    assert not np.array_equal(drawn, without)
    monkeypatch.setattr(lettering, "EUROPEAN_FONTS", (str(made_font),))
    assert np.array_equal(drawn, result(tuple(STAND_INS.get(n[0], "") + n[1:] for n in NAMES)).readable())


def test_a_plot_has_the_letters_of_a_font_that_knows_them(
    made_font: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    matrix = np.array([[3, 1], [0, 2]])
    without = plot_confusion(np.pad(matrix, (0, 1)), list(NAMES), tmp_path / "without.png").read_bytes()
    font_manager.fontManager.addfont(made_font)
    drawn = plot_confusion(np.pad(matrix, (0, 1)), list(NAMES), tmp_path / "with.png").read_bytes()
    assert drawn != without
