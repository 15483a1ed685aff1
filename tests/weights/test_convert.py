"""Official checkpoints in and out, and what files that cannot be used get. Models are official ones made small."""

import argparse
import json
import os
import subprocess
import sys
import textwrap
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import piip
from piip import cli
from piip.weights import opengvlab
from piip.weights.files import WeightsError
from piip.weights.official.convert import to_official, to_ours
from piip.weights.pickles import read_state_dict
from piip.weights.streams import write_stream

Official = dict[str, Any]


def branch(size: int, width: int, **fields: Any) -> Official:
    return {"real_size": size, "pretrain_img_size": 64, "patch_size": 16, "depth": 2, "embed_dim": width,
            "num_heads": 2, "mlp_ratio": 2, "qkv_bias": True, "interaction_indexes": [[0, 0], [1, 1]],
            "init_scale": 1.0, "pretrained": "deit.pth", **fields}  # fmt: skip


def backbone(kind: str | None = "PIIPTwoBranch", **fields: Any) -> Official:
    small = {"n_points": 4, "deform_num_heads": 4, "cffn_ratio": 0.25, "deform_ratio": 0.5, "with_cffn": True,
             "interact_attn_type": "deform", "branch1": branch(64, 64), "branch2": branch(128, 32)}  # fmt: skip
    return ({"type": kind} if kind else {}) | small | fields


def detector(goldens: Path, **fields: Any) -> Official:
    """The official TSB Mask R-CNN with two small branches."""
    path = goldens.parent / "configs/mmdetection/mask_rcnn_deit_tsb_1120_896_448_fpn_1x_coco_bs16.json"
    official: Official = json.loads(path.read_text())
    official["model"]["backbone"] = backbone(**fields)
    official["model"]["neck"]["out_channels"] = 16
    official["model"]["roi_head"]["bbox_head"]["fc_out_channels"] = 16
    return official


def segmentor(goldens: Path) -> Official:
    (path,) = goldens.parent.glob("configs/mmsegmentation/*h6b_256*.json")
    official: Official = json.loads(path.read_text())
    official["model"]["backbone"] = backbone()
    for head in ("decode_head", "auxiliary_head"):
        official["model"][head]["channels"] = 16
    return official


def classifier(goldens: Path) -> Official:
    sizes = {"branch1": branch(64, 64), "branch2": branch(128, 32)}
    for fields in sizes.values():
        fields["img_size"], fields["use_cls_token"] = fields.pop("real_size"), True
    return {"backbone": backbone(None, separate_head=True, **sizes)}


KINDS = {"detector": detector, "segmentor": segmentor, "classifier": classifier}


def state_dict(official: Official, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    torch.manual_seed(1)
    module = opengvlab.build(official)
    state = opengvlab.to_official(module)
    return {k: torch.randn_like(v, dtype=dtype) if v.is_floating_point() else v for k, v in state.items()}


def written(tmp_path: Path, official: Official, saved: Any, name: str = "theirs.pth") -> tuple[Path, Path]:
    (tmp_path / "official.json").write_text(json.dumps(official))
    torch.save(saved, tmp_path / name)
    return tmp_path / name, tmp_path / "official.json"


def same_bits(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for key, tensor in left.items():
        assert tensor.dtype == right[key].dtype
        assert tensor.shape == right[key].shape
        assert torch.equal(tensor.reshape(-1).view(torch.uint8), right[key].reshape(-1).view(torch.uint8)), key


def untouched(tmp_path: Path, before: set[Path]) -> None:
    assert set(tmp_path.rglob("*")) == before


# -- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_round_trip_is_bit_exact(kind: str, dtype: torch.dtype, goldens: Path, tmp_path: Path) -> None:
    official = KINDS[kind](goldens)
    theirs = state_dict(official, dtype)
    if kind == "classifier":
        saved: Any = {"model": theirs, "args": argparse.Namespace(lr=1e-4, data="x"), "epoch": 3}
    else:
        saved = {"meta": {"CLASSES": ("a",), "time": "now"}, "state_dict": OrderedDict(theirs)}
    source, config = written(tmp_path, official, saved)
    done = to_ours(source, tmp_path / "ours", config)
    assert done.parameters == sum(t.numel() for t in theirs.values())
    model = piip.PIIP(tmp_path / "ours", device="cpu")
    assert model.config.task == {"detector": "detection", "segmentor": "segmentation"}.get(kind, "classification")
    back = to_official(tmp_path / "ours", tmp_path / "back.pth")
    same_bits(read_state_dict(back.path), theirs)
    assert ("model" if kind == "classifier" else "state_dict") in torch.load(back.path, weights_only=True)


def test_converted_model_computes_what_the_official_weights_do(goldens: Path, tmp_path: Path) -> None:
    official = detector(goldens)
    theirs = state_dict(official)
    source, config = written(tmp_path, official, {"state_dict": theirs})
    to_ours(source, tmp_path / "ours.safetensors", config)
    images = torch.randn(1, 3, 128, 96)
    expected = opengvlab.load(official, theirs).backbone(images)
    loaded = piip.PIIP(tmp_path / "ours.safetensors", device="cpu").model.eval().backbone(images)
    for one, other in zip(expected, loaded, strict=True):
        assert torch.equal(one, other)


def test_deepspeed_and_parallel_files(goldens: Path, tmp_path: Path) -> None:
    official = detector(goldens)
    theirs = state_dict(official)
    source, config = written(tmp_path, official, {"module": theirs, "ds_version": "0.8.0", "dp_world_size": 8})
    to_ours(source, tmp_path / "a", config)
    source, _ = written(tmp_path, official, {"state_dict": {f"module.{k}": v for k, v in theirs.items()}}, "b.pth")
    to_ours(source, tmp_path / "b", config)
    one, other = ((tmp_path / x / "model.safetensors").read_bytes() for x in "ab")
    assert one == other


def test_beit_buffers_come_back(goldens: Path, tmp_path: Path) -> None:
    beit = {"branch1": branch(64, 64, pretrained="beit.pth", init_values=1e-6, use_abs_pos_emb=False,
                              use_rel_pos_bias=True, window_attn=[True] * 2, window_size=[2] * 2)}  # fmt: skip
    del beit["branch1"]["init_scale"]
    official = detector(goldens, **beit)
    theirs = state_dict(official)
    assert any("relative_position_index" in key for key in theirs)
    source, config = written(tmp_path, official, {"state_dict": theirs})
    to_ours(source, tmp_path / "ours", config)
    to_official(tmp_path / "ours", tmp_path / "back.pth")
    same_bits(read_state_dict(tmp_path / "back.pth"), theirs)


def test_old_file_format(goldens: Path, tmp_path: Path) -> None:
    official = detector(goldens)
    (tmp_path / "official.json").write_text(json.dumps(official))
    torch.save({"state_dict": state_dict(official)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    to_ours(tmp_path / "old.pth", tmp_path / "ours", tmp_path / "official.json")
    assert piip.PIIP(tmp_path / "ours", device="cpu").config.task == "detection"


def test_zoo_name_follows_from_the_official_file_name(goldens: Path, tmp_path: Path) -> None:
    official = detector(goldens)
    source, _ = written(tmp_path, official, {"state_dict": state_dict(official)})
    config = tmp_path / "mask_rcnn_deit_tsb_1120_896_448_fpn_1x_coco_bs16.json"
    config.write_text(json.dumps(official))
    assert to_ours(source, tmp_path / "ours", config).model.name == "piip_tsb_1120_896_448_mask_rcnn"
    other = source.rename(tmp_path / "mask_rcnn_deit_tsb_1568_896_448_fpn_1x_coco_bs16.pth")  # of the same shapes
    message = "by its name this is piip_tsb_1568_896_448_mask_rcnn, not piip_tsb_1120_896_448_mask_rcnn"
    for described in ({"official": config}, {"model": "piip_tsb_1120_896_448_mask_rcnn"}):
        with pytest.raises(WeightsError, match=message):
            to_ours(other, tmp_path / "again", **described)
    assert not (tmp_path / "again").exists()


# -- refused ---------------------------------------------------------------------------------------------------------


class Runs:
    """Unpickled the ordinary way, runs something that leaves a file behind."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def attacks(mark: Path) -> dict[str, Any]:
    touch = f"open({str(mark)!r}, 'w').close()"
    return {
        "os.system": Runs(os.system, f"touch {mark}"),
        "builtins.eval": Runs(eval, touch),
        "builtins.exec": Runs(exec, touch),
        "subprocess": Runs(subprocess.check_call, ["touch", str(mark)]),
        "in a tensor's place": {"backbone.w1": Runs(eval, touch)},
        "in a list in the meta data": {"state_dict": {}, "meta": [{"x": [Runs(os.system, f"touch {mark}")]}]},
        "in the arguments": {"model": {}, "args": argparse.Namespace(x=Runs(eval, touch))},
        "getattr": Runs(getattr, "x", "upper"),
    }


@pytest.mark.parametrize("attack", list(attacks(Path("x"))))
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_malicious_pickles_are_refused_and_run_nothing(attack: str, zipped: bool, goldens: Path, tmp_path: Path,
                                                       capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    mark = tmp_path / "pwned"
    config = tmp_path / "official.json"
    config.write_text(json.dumps(classifier(goldens)))  # the kind that may hold a Namespace
    source = tmp_path / "evil.pth"
    torch.save(attacks(mark)[attack], source, _use_new_zipfile_serialization=zipped)
    before = set(tmp_path.rglob("*"))
    assert run_cli("convert", str(source), str(tmp_path / "ours"), "--config", str(config)) == 2
    message = capsys.readouterr().err
    assert "refused: it holds" in message.replace("\n", " ")
    assert "nothing of it was run" in message.replace("\n", " ")
    assert "weights_only" not in message
    assert not mark.exists()
    untouched(tmp_path, before)


def test_missing_unknown_and_misshapen_weights_are_listed(goldens: Path, tmp_path: Path) -> None:
    official = detector(goldens)
    state = state_dict(official)
    del state["backbone.branch1.pos_embed"]
    state["backbone.extra.weight"] = torch.zeros(1)
    state["backbone.w1"] = torch.zeros(3)
    source, config = written(tmp_path, official, {"state_dict": state})
    before = set(tmp_path.rglob("*"))
    with pytest.raises(WeightsError) as caught:
        to_ours(source, tmp_path / "deep" / "ours", config)
    for part in ("backbone.branch1.pos_embed", "backbone.extra.weight", "backbone.w1", "1 missing", "1 unknown"):
        assert part in str(caught.value)
    untouched(tmp_path, before)


def test_nan_is_named_and_nothing_stays(goldens: Path, tmp_path: Path) -> None:
    official = detector(goldens)
    state = state_dict(official)
    state["backbone.branch1.blocks.1.mlp.fc1.weight"][3, 4] = float("nan")
    source, config = written(tmp_path, official, {"state_dict": state})
    before = set(tmp_path.rglob("*"))
    with pytest.raises(
        WeightsError, match=r"NaN or infinite weights in backbone\.branches\.1\.vit\.blocks\.1\.mlp\.fc1\.weight"
    ):
        to_ours(source, tmp_path / "ours", config)
    untouched(tmp_path, before)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_truncated_files(zipped: bool, part: float, goldens: Path, tmp_path: Path) -> None:
    official = detector(goldens)
    (tmp_path / "official.json").write_text(json.dumps(official))
    torch.save({"state_dict": state_dict(official)}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    data = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(data[: int(len(data) * part)])
    before = set(tmp_path.rglob("*"))
    with pytest.raises(WeightsError, match=r"a\.pth: .*(cut off|damaged)"):
        to_ours(tmp_path / "a.pth", tmp_path / "ours", tmp_path / "official.json")
    untouched(tmp_path, before)


def test_wrong_config_for_a_checkpoint(goldens: Path, tmp_path: Path) -> None:
    source, _ = written(tmp_path, {}, {"state_dict": state_dict(detector(goldens))})
    other = tmp_path / "other.json"
    other.write_text(json.dumps(segmentor(goldens)))
    with pytest.raises(WeightsError, match=r"decode_head.*own config"):
        to_ours(source, tmp_path / "ours", other)
    with pytest.raises(WeightsError, match="own config"):
        to_ours(source, tmp_path / "ours", model="piip_nano_mask_rcnn")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not a whole JSON file"),
        ("[]", "not an official config"),
        ('{"model": {"type": "MaskRCNN"}}', "lacks or misnames 'backbone'"),
        ('{"model": {"type": "YOLO", "backbone": {}}}', "'YOLO' is not supported"),
        ('{"type": "PIIPTwoBranch"}', "branch2"),
    ],
)
def test_broken_configs(content: str, reason: str, goldens: Path, tmp_path: Path) -> None:
    source, config = written(tmp_path, {}, {"state_dict": {"a": torch.zeros(1)}})
    config.write_text(content)
    with pytest.raises(ValueError, match=reason):
        to_ours(source, tmp_path / "ours", config)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"branch2": branch(8, 32)}, "branch2: size 8 has no token grid with patches of 16: use at least 16"),
        ({"branch1": branch(64, 63)}, "branch1: width 63 is not divisible by 2 heads"),
        ({"branch3": branch(32, 32)}, "unknown keys in an official backbone config: .*branch3"),
        ({"kind": "PIIPThreeBranch"}, r"without \['branch3'\]"),
    ],
)
def test_configs_of_no_model(fields: Official, reason: str, goldens: Path, tmp_path: Path) -> None:
    source, config = written(tmp_path, detector(goldens, **fields), {"state_dict": {"a": torch.zeros(1)}})
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=reason) as error:
        to_ours(source, tmp_path / "ours", config)
    assert "\n" not in str(error.value)
    untouched(tmp_path, before)


def test_groups_are_those_of_the_weights_where_a_dumped_config_has_lost_them(goldens: Path, tmp_path: Path) -> None:
    official = detector(goldens)
    state = state_dict(official)
    for name in ("branch1", "branch2"):
        del official["model"]["backbone"][name]["interaction_indexes"]
    source, config = written(tmp_path, official, {"state_dict": state})
    converted = to_ours(source, tmp_path / "ours", config)
    assert [branch.groups for branch in converted.model.backbone.branches] == [((0, 0), (1, 1))] * 2


def test_sources_and_targets_that_cannot_be(goldens: Path, tmp_path: Path) -> None:
    official = detector(goldens)
    source, config = written(tmp_path, official, {"state_dict": state_dict(official)})
    with pytest.raises(WeightsError, match=r"no\.pth: no such file"):
        to_ours(tmp_path / "no.pth", tmp_path / "ours", config)
    with pytest.raises(WeightsError, match="a folder; give the checkpoint file"):
        to_ours(tmp_path, tmp_path / "ours", config)
    with pytest.raises(WeightsError, match="say which model this is"):
        to_ours(source, tmp_path / "ours")
    with pytest.raises(WeightsError, match="not both"):
        to_ours(source, tmp_path / "ours", config, "piip_nano_mask_rcnn")
    with pytest.raises(ValueError, match="did you mean"):
        to_ours(source, tmp_path / "ours", model="piip_nano_mask_rcn")
    with pytest.raises(WeightsError, match=r"give a folder .* or a \.safetensors file"):
        to_ours(source, tmp_path / "ours.pt", config)
    to_ours(source, tmp_path / "ours", config)
    with pytest.raises(WeightsError, match="exists already"):
        to_ours(source, tmp_path / "ours", config)
    with pytest.raises(WeightsError, match="a model of ours already; --to-official"):
        to_ours(tmp_path / "ours", tmp_path / "again", config)
    with pytest.raises(WeightsError, match="exists already"):
        to_official(tmp_path / "ours", source)
    for saved in ([1, 2], {"state_dict": {"a": 1}}, {}):
        torch.save(saved, source)
        with pytest.raises(WeightsError, match="not a state dict|holds no state dict"):
            to_ours(source, tmp_path / "new", config)


def test_command_line(goldens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    official = detector(goldens)
    source, config = written(tmp_path, official, {"state_dict": state_dict(official)})
    assert run_cli("convert", str(source), str(tmp_path / "ours"), "--config", str(config)) == 0
    assert "written to" in capsys.readouterr().out
    assert run_cli("convert", str(tmp_path / "ours"), str(tmp_path / "back.pth"), "--to-official") == 0
    assert (tmp_path / "back.pth").is_file()
    assert run_cli("convert", str(tmp_path / "ours"), str(tmp_path / "b.pth"), "--to-official", "--model", "x") == 2


def run_cli(*arguments: str) -> int:
    sys.argv = ["piip", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


# -- the stream ------------------------------------------------------------------------------------------------------


def test_stream_is_a_safetensors_file(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensors = {
        "b": torch.randn(3, 4, dtype=torch.bfloat16), "a": torch.arange(5), "empty": torch.zeros(0, 2),
        "scalar": torch.tensor(1.5), "strided": torch.randn(4, 6).t(), "flags": torch.tensor([True, False]),
    }  # fmt: skip
    from piip.weights.streams import order

    write_stream(tmp_path / "x.safetensors", tensors, [(k, tensors[k]) for k in order(tensors)], {"note": "ü"})
    loaded = load_file(tmp_path / "x.safetensors")
    same_bits({k: v.contiguous() for k, v in tensors.items()}, loaded)


MEASURE = """
import resource, sys
from piip.weights.official import convert
from pathlib import Path

def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) * 1024

before = status("VmHWM")
convert.to_ours(sys.argv[1], sys.argv[2], model="vit_b_1024_mask_rcnn")
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
def test_conversion_needs_a_part_of_the_files_size_in_memory(tmp_path: Path) -> None:
    from piip import zoo

    with torch.device("meta"):
        module = piip.PIIPModel(zoo.entry("vit_b_1024_mask_rcnn").config())
    names = opengvlab.official_keys(module)
    state = {names[k]: torch.zeros(t.shape, dtype=torch.float16) for k, t in module.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "big.pth")
    del state
    size = (tmp_path / "big.pth").stat().st_size
    assert size > 200e6
    command = [sys.executable, "-c", textwrap.dedent(MEASURE), str(tmp_path / "big.pth"), str(tmp_path / "ours")]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert (tmp_path / "ours" / "model.safetensors").stat().st_size > 200e6
    assert int(run.stdout) < 0.75 * size  # mapped pages included; the rest of the process is not counted
