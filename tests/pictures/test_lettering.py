"""Text in pictures: no boxes in place of letters."""

from pathlib import Path

import matplotlib
import pytest

from piip.pictures import lettering
from piip.pictures.lettering import one_line


@pytest.fixture(params=[True, False])
def only_dejavu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the system has a font for European letters; there is none for others."""
    font = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    monkeypatch.setattr(lettering, "EUROPEAN_FONTS", (str(font),) if request.param else ())
    monkeypatch.setattr(lettering, "EAST_ASIAN_FONTS", ())
    return bool(request.param)


def test_letters_that_no_font_here_has_are_written_out(only_dejavu: bool) -> None:
    assert one_line("a \n cat") == "a cat"
    assert one_line("ключ") == ("ключ" if only_dejavu else r"\u043a\u043b\u044e\u0447")
    assert one_line("猫 1") == r"\u732b 1"
    assert one_line("é猫") == (r"é\u732b" if only_dejavu else r"\xe9\u732b")
