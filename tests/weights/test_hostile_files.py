"""Small files that would take much memory, or that say a thing twice, are refused before anything is built on them."""

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from piip import config
from piip.config.branch import Branch
from piip.weights import files, header
from piip.weights.branches.formats import read_branch_file
from piip.weights.branches.pretrained import fit_tensor
from piip.weights.files import WeightsError
from piip.weights.official.described import read_official


def write(path: Path, text: str, data: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<Q", len(text)) + text.encode() + data)
    return path


def entry(start: int = 0) -> str:
    return f'{{"dtype":"F32","shape":[1],"data_offsets":[{start},{start + 4}]}}'


READERS = [files.read_tensors, files.read_config, files.stored_precision, files.load_model, read_branch_file]


@pytest.mark.parametrize("read", READERS)
def test_one_name_twice(tmp_path: Path, read: Any) -> None:
    file = write(tmp_path / "a.safetensors", f'{{"a":{entry()},"a":{entry(4)}}}', b"\0" * 8)
    with pytest.raises(WeightsError, match=r"a\.safetensors: damaged: its header has 'a' twice"):
        read(file)


@pytest.mark.parametrize("read", READERS)
def test_headers_of_half_a_million_tensors(tmp_path: Path, read: Any) -> None:
    text = "{" + ",".join(f'"{number}":{entry(4 * number)}' for number in range(60_000)) + "}"
    with pytest.raises(WeightsError, match="holds 60000 tensors, of at most 50000"):
        read(write(tmp_path / "a.safetensors", text))
    file = tmp_path / "b.safetensors"
    with file.open("wb") as opened:  # sparse: only the length is looked at
        opened.write(struct.pack("<Q", header.LARGEST + 1))
        opened.truncate(header.LARGEST + 9)
    with pytest.raises(WeightsError, match="its header has 16777217 bytes"):
        read(file)


def test_headers_nested_deeply(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="a.safetensors"):
        files.read_tensors(write(tmp_path / "a.safetensors", "[" * 100_000))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64])
def test_types_that_no_model_has(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"blocks.0.norm1.weight": torch.zeros(4).to(dtype)}, tmp_path / "a.safetensors")
    for read in (files.read_tensors, read_branch_file):
        with pytest.raises(WeightsError, match=r"blocks.0.norm1.weight is of type torch\.\w+, which is not read here"):
            read(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["vit.pos_embed", "spatial_pos_embed", "a.relative_position_bias_table"])
@pytest.mark.parametrize("theirs", [torch.tensor(1.0), torch.zeros(4)])
def test_tensors_of_too_few_axes(name: str, theirs: Tensor) -> None:
    assert fit_tensor(name, theirs, torch.zeros(1, 4, 8), config.Branch.model_construct(position_prefix=0)) is None


def test_npz_that_grow(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "abc":
            archive.writestr(f"{name}.npy", bytes(1 << 20))
    with pytest.raises(WeightsError, match=r"a\.npz: refused: 3 arrays that would grow from \d+ to 3145728 bytes"):
        read_branch_file(tmp_path / "a.npz")


def test_npz_compressed_as_weights_are(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=100_000)
    np.savez_compressed(tmp_path / "a.npz", other=values)
    with pytest.raises(WeightsError, match="there is no array embedding/kernel"):
        read_branch_file(tmp_path / "a.npz")


BRANCH = {"size": 64, "depth": 2, "width": 64, "heads": 2, "groups": 1, "windows": None, "position_grid": 14}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 200_000}, "less than or equal to 1000"),
        ({"depth": 1 << 40}, "less than or equal to 1000"),
        ({"width": 1 << 40, "heads": 3}, "less than or equal to 65536"),
        ({"heads": 1 << 40}, "less than or equal to 65536"),
        ({"size": 1 << 40}, "less than or equal to 100000"),
        ({"position_grid": 1 << 40}, "less than or equal to 100000"),
        ({"mlp_ratio": 1e30}, "less than or equal to 64"),
        ({"prefix_tokens": 1 << 40}, "less than or equal to 4096"),
        ({"windows": 1 << 40}, "less than or equal to 100000"),
        ({"family": "convnext", "stages": [["a", 3]] * 4}, "needs `stages`"),
        ({"family": "convnext", "stages": [[1 << 40, 3]] * 4}, "less than or equal to 1000"),
        ({"family": "beit", "size": 16 * 65, "windows": 65, "position_grid": None}, "use at most 64"),
        ({"model": "hf-hub:someone/model"}, "is no name of timm's own models"),
        ({"model": "local-dir:/tmp"}, "is no name of timm's own models"),
    ],
)
def test_configs_beyond_all_models(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Branch.model_validate(BRANCH | changes)


def test_backbones_of_too_many_weights() -> None:
    branch = BRANCH | {"depth": 1000, "width": 65536}
    with pytest.raises(ValueError, match="branches of about 5e[+]13 weights; at most 2e[+]11 are built"):
        config.Backbone.model_validate({"branches": [branch]})
    with pytest.raises(ValueError, match="at most 16 items"):
        config.Backbone.model_validate({"branches": [BRANCH] * 17})


def test_a_config_in_weights_is_refused_before_a_model_is_built(tmp_path: Path) -> None:
    described = {"name": "x", "backbone": {"branches": [BRANCH | {"depth": 1 << 40}]}, "classes": ["a"],
                 "preprocess": {"long_side": 64, "short_side": 64}}  # fmt: skip
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {files.CONFIG_KEY: json.dumps(described)})
    with pytest.raises(WeightsError, match=r"its config is not valid: .*depth: Input should be less than or equal"):
        files.load_model(tmp_path / "a.safetensors")


def test_official_configs_nested_deeply(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 100_000)
    (tmp_path / "a.py").write_text("model = " + "[" * 100_000)
    for name in ("a.json", "a.py"):
        with pytest.raises(WeightsError, match=f"{name}.*(nested too deeply|not Python|not readable)"):
            read_official(tmp_path / name)
