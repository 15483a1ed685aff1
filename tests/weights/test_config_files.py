"""Config files are read as data: what mmcv makes of them, and an error with its line for everything that would run."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from piip.weights.files import WeightsError
from piip.weights.official.config_files import merge, read_config_file, read_config_text

SOURCES = os.environ.get("PIIP_OFFICIAL_CODE")
"""a checkout of the official code, whose configs are then compared with their resolved twins"""


def values(text: str) -> dict[str, Any]:
    return read_config_text(text, "x.py")


def test_values() -> None:
    found = values(
        '''"""A config."""
# a comment
size = 1120
scale = (size, (size * 800) // 1333)
half = [-1.5, 1e-4, +2, None, True, not True, 7 / 2, 2 ** 3, 7 % 4, int(7 / 2), max(3, size)]
norm = dict(mean=[127.5] * 3, std=[127.5, *[1.0] * 2], to_rgb=True)
steps = [dict(type='Normalize', **norm), {'type': 'Pad', **dict(size=size)}]
both = half[:2] + half[-1:]
name = f'vit_{size}_' + 'b'
last = steps[1]['size'] if size > 1000 and not None else 0
deepspeed = True
if deepspeed:
    hook = 'a'
elif undefined:
    hook = 'b'
else:
    hook = other = 'c'
again = dict(norm, to_rgb=False)
groups = set([1]) if False else {2}
a = b = list((1, 2))
__hidden__ = 1
'''
    )
    assert found["scale"] == (1120, 672)
    assert found["half"] == [-1.5, 1e-4, 2, None, True, False, 3.5, 8, 3, 3, 1120]
    assert found["steps"] == [
        {"type": "Normalize", "mean": [127.5] * 3, "std": [127.5, 1.0, 1.0], "to_rgb": True},
        {"type": "Pad", "size": 1120},
    ]
    assert (found["both"], found["name"], found["last"]) == ([-1.5, 1e-4, 1120], "vit_1120_b", 1120)
    assert (found["hook"], "other" in found, "__hidden__" in found) == ("a", False, False)
    assert found["again"] == {"mean": [127.5] * 3, "std": [127.5, 1.0, 1.0], "to_rgb": False}
    assert found["norm"]["to_rgb"] is True
    assert found["groups"] == {2}
    assert found["a"] == found["b"] == [1, 2]


def test_values_are_not_shared() -> None:
    found = values("a = dict(x=[1])\nb = a\n")
    found["a"]["x"].append(2)
    assert found["b"] == {"x": [1]}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a = 1\nimport os\n", 2, "an import is not run"),
        ("from os import system\n", 1, "an import is not run"),
        ("a = 1\n\nprint(a)\n", 3, "a call is not run"),
        ("a = open('x')\n", 1, "open(...) is not called"),
        ("a = __import__('os').system('x')\n", 1, "is not called"),
        ("a = (lambda: 1)()\n", 1, "is not called"),
        ("a = [x for x in (1, 2)]\n", 1, "ListComp is no plain data"),
        ("a = ''.__class__\n", 1, "Attribute is no plain data"),
        ("a = b\n", 1, "'b' is not set above"),
        ("def f(): pass\n", 1, "a function is not run"),
        ("class A: pass\n", 1, "a class is not run"),
        ("for i in (1,): pass\n", 1, "a loop is not run"),
        ("with a: pass\n", 1, "a `with` block is not run"),
        ("a = {}\na['b'] = 1\n", 2, "only names are set"),
        ("a = 1\na += 1\n", 2, "AugAssign"),
        ("a = '%1000000000d' % 1\n", 1, "not worked out"),
        ("a = f'{1.5:.100f}'\n", 1, "f-string"),
        ("a = f'{1!r}'\n", 1, "f-string"),
        ("a = '{}'.format(1)\n", 1, "is not called"),
        ("a = 1\nb = (\n    1 / 0)\n", 3, "no such value (division by zero)"),
        ("a = [1][2]\n", 1, "no such value"),
        ("a = 'b' + 1\n", 1, "no such value"),
        ("a = dict(**[1])\n", 1, "`**` needs a dictionary"),
        ("a = int('9' * 9)\n", 1, "int(...) is not called"),
        ("a = [0] * 10 ** 9\n", 1, "more than 100000 items"),
        ("a = 10 ** 9 * 'ab'\n", 1, "more than 100000 items"),
        ("a = 9 ** 9 ** 9\n", 1, "too large"),
        ("a = 2 ** 200 * 2 ** 200\n", 1, "too large"),
        ("a = 1\nb = 2 +\n", 2, "not Python"),
        ("a = ...\n", 1, "no plain data"),
        ("a = 1 << 9\n", 1, "not worked out"),
        ("a = {[]: 1}\n", 1, "no such value"),
    ],
)
def test_what_is_no_data_is_an_error_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(WeightsError) as caught:
        values(text)
    assert f"x.py, line {line}: " in str(caught.value)
    assert said in str(caught.value)


def test_sizes_are_bounded() -> None:
    doubling = "a = [1, 2]\n" + "".join(f"a = [a, a]  # {i}\n" for i in range(40))
    with pytest.raises(WeightsError, match="more than 100000 values"):
        values(doubling)
    with pytest.raises(WeightsError, match="not readable as a config|not Python"):
        values("a = " + "(" * 5000 + ")" * 5000)
    with pytest.raises(WeightsError, match="not readable as a config|not Python"):
        values("a = " + "-" * 50000 + "1")


def test_merging() -> None:
    base = {"model": {"backbone": {"type": "A", "depth": 5}, "neck": {"n": 1}}, "lr": [1]}
    changes = {
        "model": {"backbone": {"_delete_": True, "type": "B"}, "neck": {"m": 2}},
        "lr": 2,
        "new": {"x": {"y": 1}},
    }
    assert merge(base, changes, "x") == {
        "model": {"backbone": {"type": "B"}, "neck": {"n": 1, "m": 2}}, "lr": 2, "new": {"x": {"y": 1}},
    }  # fmt: skip
    assert base["model"]["neck"] == {"n": 1}
    with pytest.raises(WeightsError, match="lr is a dictionary here and a list in its _base_ file; write _delete_"):
        merge(base, {"lr": {"a": 1}}, "x")
    assert merge(base, {"lr": {"a": 1, "_delete_": True}}, "x")["lr"] == {"a": 1}


def test_bases(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.py").write_text("model = dict(type='MaskRCNN', backbone=dict(type='R', depth=50))\n")
    (tmp_path / "base" / "both.py").write_text("_base_ = './model.py'\ndata = dict(n=2)\nname = 'b'\n")
    (tmp_path / "a.py").write_text(
        "_base_ = ['base/both.py']\nmodel = dict(backbone=dict(_delete_=True, type='P'))\nname = 'a'\n"
    )
    assert read_config_file(tmp_path / "a.py") == {
        "model": {"type": "MaskRCNN", "backbone": {"type": "P"}}, "data": {"n": 2}, "name": "a",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("_base_ = 'no.py'\n", r"no\.py: no such file, a _base_ of .*a\.py"),
        ("_base_ = 'a.py'\n", "a _base_ file of itself"),
        ("_base_ = ['b.py', 'c.py']\n", "set x twice"),
        ("_base_ = 'mmdet::x.py'\n", r"is no \.py file"),
        ("_base_ = '/etc/passwd'\n", r"is no \.py file"),
        ("_base_ = 3\n", "must be a file name"),
        ("_base_ = 'b.py'\ny = x\n", "a.py, line 2: the name 'x' is not set above"),
    ],
)
def test_bases_that_cannot_be(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(text)
    (tmp_path / "b.py").write_text("x = 1\n")
    (tmp_path / "c.py").write_text("x = 1\n")
    with pytest.raises(WeightsError, match=said):
        read_config_file(tmp_path / "a.py")


def test_a_text_alone_has_no_bases() -> None:
    with pytest.raises(WeightsError, match="only a resolved config can stand alone"):
        values("_base_ = 'x.py'\n")


@pytest.mark.skipif(SOURCES is None, reason="set PIIP_OFFICIAL_CODE to a checkout of the official code")
def test_official_configs_are_their_resolved_twins(goldens: Path) -> None:
    twins = sorted((goldens.parent / "configs").rglob("*.json"))
    assert twins
    for twin in twins:
        (source,) = (path for path in Path(str(SOURCES)).rglob(f"{twin.stem}.py") if "configs" in path.parts)
        found = json.loads(json.dumps(read_config_file(source)))
        expected = json.loads(twin.read_text())
        found = found["model"] if twin.parent.name == "classification" else found
        assert found == expected, twin.stem
