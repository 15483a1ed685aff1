"""Honest files of every kind are read without their software; what would run code is refused by its name."""

import argparse
import builtins
import functools
import importlib
import io
import operator
import os
import pickle
import runpy
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.weights import strangers

from piip.weights.files import WeightsError
from piip.weights.pickles import find_checkpoint, load_untrusted, read_checkpoint, read_state_dict
from piip.weights.untrusted import layouts, machine
from piip.weights.untrusted.inert import Inert

PROTOCOLS = (0, 1, 2, 3, 4, 5)
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])


def saved(path: Path, value: Any, protocol: int = 2, zipped: bool = True) -> Path:
    torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    return path


# -- honest ----------------------------------------------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize("protocol", PROTOCOLS[2:])
def test_tensors_are_what_torch_reads(zipped: bool, protocol: int, tmp_path: Path) -> None:
    base = torch.randn(6, 8)
    state = {
        "plain": torch.randn(3, 4), "half": torch.randn(5).half(), "bf16": torch.randn(5).bfloat16(),
        "ints": torch.arange(7), "bytes": torch.arange(7, dtype=torch.uint8), "flags": torch.tensor([True, False]),
        "double": torch.randn(2, 2, dtype=torch.float64), "scalar": torch.tensor(1.5), "empty": torch.zeros(0, 3),
        "view": base[1:4, 2:5], "turned": base.t(), "same": base, "repeated": torch.ones(1).expand(4),
        "parameter": torch.nn.Parameter(torch.randn(2)), "complex": torch.randn(2, dtype=torch.complex64),
    }  # fmt: skip
    if zipped:  # torch's old format does not know the type
        state["wide"] = torch.tensor([1, 65535], dtype=torch.uint16)
    path = saved(tmp_path / "a.pth", state, protocol, zipped)
    ours, theirs = read_state_dict(path), torch.load(path, weights_only=False)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert ours[name].stride() == tensor.stride()
        assert torch.equal(ours[name], tensor), name
    assert ours["view"].data_ptr() - ours["same"].data_ptr() == (8 + 2) * 4  # shared, as in the file


@FORMATS
def test_module_states_keep_no_attributes(zipped: bool, tmp_path: Path) -> None:
    state = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).state_dict()
    assert hasattr(state, "_metadata")
    found = read_state_dict(saved(tmp_path / "a.pth", {"state_dict": state}, zipped=zipped))
    assert list(found) == list(state)


@FORMATS
@pytest.mark.parametrize("protocol", PROTOCOLS[2:])
def test_plain_things_come_through(zipped: bool, protocol: int, tmp_path: Path) -> None:
    things = strangers.plain_things()
    found = load_untrusted(saved(tmp_path / "a.pth", things, protocol, zipped))
    assert found.keys() == things.keys()
    for name in ("best", "epoch", "flag", "counts", "counter", "ordered", "set", "frozen", "bytes", "array", "complex",
                 "big", "size", "text", "none", "nested"):  # fmt: skip
        assert found[name] == things[name], name
        assert not isinstance(found[name], np.generic)
    for name in ("history", "fortran"):
        assert np.array_equal(found[name].array, things[name]), name
    assert found["objects"].array is None
    for name, of in (("path", "pathlib.PosixPath"), ("when", "datetime.datetime"), ("took", "datetime.timedelta"),
                     ("args", "argparse.Namespace"), ("id", "uuid.UUID"), ("device", "torch.device")):  # fmt: skip
        assert isinstance(found[name], Inert)
        assert str(found[name].of) == of
    assert found["args"].state["lr"] == 0.1
    assert found["deque"].items == [1, 2] or found["deque"].arguments[0] == [1, 2]


@FORMATS
@pytest.mark.parametrize("protocol", PROTOCOLS[2:])
def test_checkpoints_of_mmdetection(zipped: bool, protocol: int, tmp_path: Path) -> None:
    state = {"backbone.w": torch.randn(2, 2)}
    path = tmp_path / "a.pth"
    with (
        strangers.pretended("mmcv.utils.config", strangers.ConfigDict) as kind,
        strangers.pretended("mmcv_custom.hooks", strangers.LossScaler) as scaler,
    ):
        meta = {"CLASSES": ["cat", "dog"], "config": "a = 1\n", "cfg": kind(a=kind(b=1)), "scaler": scaler()}
        saved(path, strangers.of_mmdet_2(state, **meta), protocol, zipped)
    found = read_checkpoint(path)
    assert torch.equal(found.state["backbone.w"], state["backbone.w"])
    assert found.classes == ("cat", "dog")
    assert found.config == "a = 1\n"
    whole = load_untrusted(path)["meta"]
    assert whole["cfg"] == {"a": {"b": 1}}
    assert whole["scaler"].state == {"cur_scale": 1024.0}
    assert "mmcv" not in sys.modules

    with (
        strangers.pretended("mmengine.config.config", strangers.CalledConfigDict, "ConfigDict") as kind,
        strangers.pretended("mmengine.logging.history_buffer", strangers.HistoryBuffer) as history,
    ):
        three = {"state_dict": state, "message_hub": {"log_scalars": OrderedDict(loss=history())},
                 "meta": {"dataset_meta": kind(classes=("a", "b"), palette=[(1, 2, 3)]), "cfg": "b = 2\n"}}  # fmt: skip
        saved(path, three, protocol, zipped)
    found = read_checkpoint(path)
    assert (found.classes, found.config) == (("a", "b"), "b = 2\n")
    loss = load_untrusted(path)["message_hub"]["log_scalars"]["loss"]
    assert np.array_equal(loss.state["_log_history"].array, [0.5, 0.25])


def test_one_class_that_was_written_without_a_comma(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"state_dict": {"w": torch.zeros(1)}, "meta": {"CLASSES": "person"}})
    assert read_checkpoint(path).classes == ("person",)


@FORMATS
def test_second_sets_of_weights(zipped: bool, tmp_path: Path) -> None:
    raw, mean = {"a.w": torch.zeros(2), "b": torch.zeros(1)}, {"a.w": torch.ones(2)}
    hook = {"state_dict": {**raw, "ema_a_w": mean["a.w"], "ema_head": torch.ones(3)}}
    found = read_checkpoint(saved(tmp_path / "hook.pth", hook, zipped=zipped))
    assert found.state.keys() == {"a.w", "b", "ema_head"}  # the last one is of no weight of this model
    assert torch.equal(found.average["a.w"], mean["a.w"])
    trained = {"model": raw, "model_ema": {f"module.{k}": v + 1 for k, v in raw.items()}, "args": argparse.Namespace()}
    found = read_checkpoint(saved(tmp_path / "trained.pth", trained, zipped=zipped))
    assert found.average.keys() == raw.keys() == found.state.keys()


def test_folders_of_deepspeed(tmp_path: Path) -> None:
    with strangers.pretended("deepspeed.runtime.fp16.loss_scaler", strangers.LossScaler) as scaler:
        content = {"module": {"module.w": torch.ones(1)}, "ds_config": {"train_batch_size": 16}, "scaler": scaler(),
                   "param_shapes": [OrderedDict(w=torch.Size((1,)))], "ds_version": "0.8.0"}  # fmt: skip
        folder = tmp_path / "iter_90.pth" / "global_step90"
        folder.mkdir(parents=True)
        file = saved(folder / "mp_rank_00_model_states.pt", content)
    for source in (file, folder, folder.parent):
        assert read_state_dict(source).keys() == {"w"}
    (folder.parent / "global_step91").mkdir()
    with pytest.raises(WeightsError, match="give one of the checkpoints in it: global_step90, global_step91"):
        find_checkpoint(folder.parent)
    (folder.parent / "latest").write_text("global_step90\n")
    assert find_checkpoint(folder.parent) == file
    (folder / "mp_rank_01_model_states.pt").touch()
    with pytest.raises(WeightsError, match="in parts"):
        find_checkpoint(folder)


# -- malicious -------------------------------------------------------------------------------------------------------


class Runs:
    """Unpickled the ordinary way, runs something that leaves a file behind."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.call


def attacks(mark: Path) -> dict[str, tuple[Any, str]]:
    """What is pickled, and what of it the refusal must name."""
    touch, code = f"touch {mark}", f"open({str(mark)!r}, 'w').close()"
    calling = Runs(os.system, touch)
    return {
        "system": (calling, f"{os.name}.system"),
        "popen": (Runs(os.popen, touch), "os.popen"),
        "subprocess": (Runs(subprocess.check_call, ["touch", str(mark)]), "subprocess.check_call"),
        "Popen": (Runs(subprocess.Popen, ["touch", str(mark)]), "subprocess.Popen"),
        "eval": (Runs(eval, code), "builtins.eval"),
        "exec": (Runs(exec, code), "builtins.exec"),
        "compile": (Runs(compile, code, "x", "exec"), "builtins.compile"),
        "open": (Runs(open, str(mark), "w"), "open"),
        "import": (Runs(__import__, "antigravity"), "builtins.__import__"),
        "importlib": (Runs(importlib.import_module, "antigravity"), "importlib.import_module"),
        "getattr of a module": (
            Runs(getattr, Runs(importlib.import_module, "os"), "system"),
            "importlib.import_module",
        ),
        "getattr of a text": (Runs(getattr, "x", "upper"), "builtins.getattr"),
        "getattr of a class": (Runs(getattr, dict, "__subclasses__"), "builtins.getattr"),
        "setattr": (Runs(setattr, torch.nn.Module, "x", 1), "builtins.setattr"),
        "map": (Runs(map, eval, [code]), "builtins.map"),
        "operator": (Runs(operator.methodcaller, "system"), "operator.methodcaller"),
        "partial": (Runs(functools.partial, eval, code), "functools.partial"),
        "runpy": (Runs(runpy.run_path, str(mark)), "runpy.run_path"),
        "nested pickle": (Runs(pickle.loads, pickle.dumps(calling)), "pickle.loads"),
        "nested torch file": (Runs(torch.storage._load_from_bytes, b""), "torch.storage._load_from_bytes"),
        "torch.load": (Runs(torch.load, str(mark)), "torch.serialization.load"),
        "hub": (Runs(torch.hub.load, "x", "y"), "torch.hub.load"),
        "numpy": (Runs(np.load, str(mark)), "numpy.load"),
        "a function of the user's": (Runs(strangers.pretended, "x", int), "tests.weights.strangers.pretended"),
        "a class that is called": (Runs(zipfile.ZipFile, str(mark)), "zipfile.ZipFile"),
        "a tensor's place": ({"w": Runs(eval, code)}, "builtins.eval"),
        "a list in meta": ({"state_dict": {}, "meta": [{"x": [calling]}]}, "system"),
        "arguments": ({"model": {}, "args": argparse.Namespace(x=Runs(eval, code))}, "builtins.eval"),
        "a state": (Runs(OrderedDict, state={"x": Runs(eval, code)}), "builtins.eval"),
        "numpy objects": ({"x": np.array([Runs(eval, code)], dtype=object)}, "builtins.eval"),
        "a default factory": ({"x": Runs(dict, [("a", Runs(exec, code))])}, "builtins.exec"),
        "a name alone": ({"x": os.system}, "system"),
        "a dangerous name alone": ({"x": builtins.eval}, "builtins.eval"),
    }


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """A file that must not come to be."""
    path = tmp_path / "pwned"
    yield path
    assert not path.exists()
    assert "antigravity" not in sys.modules


@FORMATS
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("attack", list(attacks(Path("x"))))
def test_code_is_refused_by_name(attack: str, protocol: int, zipped: bool, tmp_path: Path, mark: Path) -> None:
    value, name = attacks(mark)[attack]
    path = saved(tmp_path / "evil.pth", value, protocol, zipped)
    with pytest.raises(WeightsError, match="refused: it holds") as caught:
        read_state_dict(path)
    assert name in str(caught.value).split(", which is neither")[0]
    assert "nothing of it was run" in str(caught.value)


def zip_of(path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED, **records: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        for name, content in records.items():
            file.writestr(f"archive/data/{name.removeprefix('_')}", content)
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


HAND_WRITTEN = {
    "protocol 0": (b"cos\nsystem\n(S'touch {}'\ntR.", "os.system"),
    "INST": (b"(S'touch {}'\nios\nsystem\n.", "os.system"),
    "OBJ": (b"(cos\nsystem\nS'touch {}'\no.", "os.system"),
    "Python 2's names": (b"c__builtin__\neval\n(S'1'\ntR.", "builtins.eval"),
    "STACK_GLOBAL out of the memo": (b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94h\x00h\x01\x93.", "posix.system"),
    "dotted name": (b"\x80\x04\x8c\x02io\x8c\x0eopen.__class__\x93.", "io.open.__class__"),
    "EXT1": (b"\x80\x02\x82\x01.", "extension 1"),
    "EXT4": (b"\x80\x02\x84\x01\x02\x00\x00.", "extension 513"),
    "persistent text": (b"Pevil\n.", "persistent id"),
    "persistent tuple": (b"\x80\x02(X\x06\x00\x00\x00moduleK\x01K\x01K\x01K\x01tQ.", "persistent id"),
    "a call of a text": (b"\x80\x02X\x01\x00\x00\x00a)R.", "call of a str"),
    "an object of a text": (b"\x80\x02X\x01\x00\x00\x00a)\x81.", "object of a str"),
    "a class is changed": (b"\x80\x02cfoo\nBar\n}b.", "foo.Bar"),
    "reconstructor of a class": (b"ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.", "os.system"),
    "reconstructor as a class": (b"\x80\x02ccopyreg\n_reconstructor\n)\x81.", "copyreg._reconstructor"),
    "codec": (b"\x80\x02c_codecs\ndecode\n" + text("x") + text("rot13") + b"\x86R.", "_codecs.decode"),
}


@pytest.mark.parametrize("attack", list(HAND_WRITTEN))
def test_hand_written_pickles_are_refused(attack: str, tmp_path: Path, mark: Path) -> None:
    code, name = HAND_WRITTEN[attack]
    path = zip_of(tmp_path / "evil.pth", code.replace(b"{}", str(mark).encode()))
    with pytest.raises(WeightsError, match="refused: it holds") as caught:
        load_untrusted(path)
    assert name in str(caught.value)


def bomb(levels: int) -> bytes:
    """A tuple of tuples of tuples, each twice: small to hold, endless to hash."""
    return b"\x80\x02}" + b")" + b"2\x86" * levels + b"K\x01s."


def tensor(size: str, stride: str, offset: str = "K\x00", elements: int = 4, key: str = "0") -> bytes:
    """A pickle of one float tensor; size, stride and offset are opcodes."""
    numbers = (offset + size + stride).encode("latin-1")
    count = b"J" + struct.pack("<i", elements)
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + count + b"tQ"
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + numbers + b"\x89}tR."


DAMAGED = {
    "hash": (bomb(64), "as a key"),
    "unhashable key": (b"\x80\x02}]K\x01s.", "as a key"),
    "memo without entry": (b"\x80\x02j\xff\xff\xff\x7f.", ""),
    "stack": (b"\x80\x02\x86.", "stack"),
    "two values": (b"\x80\x02K\x01K\x02.", ""),
    "no end": (b"\x80\x02K\x01", ""),
    "length beyond the file": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b".", ""),
    "bytearray of a number": (b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "bytearray"),
    "codec of a codec": (b"\x80\x02c_codecs\nencode\n" + text("x") + text("rot13") + b"\x86R.", "rot13"),
    "out of band": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "beyond the storage": (tensor("K\x05\x85", "K\x01\x85"), "beyond its storage"),
    "offset": (tensor("K\x04\x85", "K\x01\x85", "K\x01"), "beyond its storage"),
    "negative offset": (tensor("K\x01\x85", "K\x01\x85", "J\xff\xff\xff\xff"), "impossible size"),
    "negative stride": (tensor("K\x02\x85", "J\xff\xff\xff\xff\x85"), "impossible size"),
    "stride": (tensor("K\x02\x85", "K\x04\x85"), "beyond its storage"),
    "a size without a stride": (tensor("K\x02\x85", ")"), "without size and stride"),
    "endless repetition": (tensor("J\xff\xff\xff\x7f\x85", "K\x00\x85"), "out of 4 elements"),
    "storage that is shorter": (tensor("K\x05\x85", "K\x01\x85", elements=5), "16 bytes instead of 20"),
    "no such storage": (tensor("K\x01\x85", "K\x01\x85", key="../1"), "no storage"),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(DAMAGED))
def test_impossible_pickles(kind: str, tmp_path: Path) -> None:
    code, said = DAMAGED[kind]
    path = zip_of(tmp_path / "bad.pth", code, _0=bytes(16))
    with pytest.raises(WeightsError, match="damaged") as caught:
        load_untrusted(path)
    assert said in str(caught.value)


def test_what_the_hand_written_tensor_is_without_a_fault(tmp_path: Path) -> None:
    found = load_untrusted(
        zip_of(tmp_path / "a.pth", tensor("K\x04\x85", "K\x01\x85"), _0=struct.pack("<4f", 1, 2, 3, 4))
    )
    assert found.tolist() == [1, 2, 3, 4]


def test_a_far_place_in_the_memo_costs_nothing(tmp_path: Path) -> None:
    code = b"\x80\x02K\x05r\xff\xff\xff\x7f0j\xff\xff\xff\x7f."
    assert load_untrusted(zip_of(tmp_path / "a.pth", code)) == 5


def test_too_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MOST_OPCODES", 1000)
    with pytest.raises(WeightsError, match="more than 1000 steps"):
        load_untrusted(zip_of(tmp_path / "a.pth", b"\x80\x02" + b"}" * 2000 + b"."))


def test_a_pickle_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "LARGEST_PICKLE", 1000)
    with pytest.raises(WeightsError, match="a pickle of 2003 bytes"):
        load_untrusted(zip_of(tmp_path / "a.pth", b"\x80\x02" + b"}" * 2000 + b"."))


def test_compressed_archives_but_not_bombs(tmp_path: Path) -> None:
    values = torch.randn(500).numpy().tobytes()
    code = tensor("M\xf4\x01\x85", "K\x01\x85", elements=500)
    found = load_untrusted(zip_of(tmp_path / "a.pth", code, zipfile.ZIP_DEFLATED, _0=values))
    assert found.numpy().tobytes() == values
    with pytest.raises(WeightsError, match="would grow from"):
        load_untrusted(zip_of(tmp_path / "b.pth", code, zipfile.ZIP_DEFLATED, _0=bytes(1 << 22)))
    with pytest.raises(WeightsError, match="would grow from"):
        load_untrusted(zip_of(tmp_path / "c.pth", b"\x80\x02N0" * (1 << 20) + b"N.", zipfile.ZIP_DEFLATED))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_many_small_records_that_grow(tmp_path: Path) -> None:
    """Each may, as half a megabyte is nothing; all of them may not."""
    records = {f"_{number}": bytes(1 << 19) for number in range(8)}
    with pytest.raises(WeightsError, match=r"its records would grow from \d+ to 41\d+ bytes"):
        load_untrusted(zip_of(tmp_path / "a.pth", tensor("K\x02\x85", "K\x01\x85"), zipfile.ZIP_DEFLATED, **records))


def test_archives_that_are_none(tmp_path: Path) -> None:
    two = io.BytesIO()
    with zipfile.ZipFile(two, "w") as file:
        file.writestr("archive/data.pkl", b"N.")
        file.writestr("archive/data.pkl", b"N.")
    with zipfile.ZipFile(tmp_path / "script.pth", "w") as file:
        file.writestr("archive/data.pkl", b"N.")
        file.writestr("archive/constants.pkl", b"N.")
    with zipfile.ZipFile(tmp_path / "big.pth", "w") as file:
        file.writestr("archive/data.pkl", b"N.")
        file.writestr("archive/byteorder", b"big")
    (tmp_path / "two.pth").write_bytes(two.getvalue())
    (tmp_path / "bare.pth").write_bytes(pickle.dumps({"w": 1}))
    (tmp_path / "text.pth").write_text("hello")
    for name, said in (("two", "two records"), ("script", "TorchScript"), ("big", "byte order"), ("bare", "torch.save"),
                       ("text", "")):  # fmt: skip
        with pytest.raises(WeightsError, match=f"not a PyTorch checkpoint.*{said}"):
            load_untrusted(tmp_path / f"{name}.pth")
