"""Vision encoders as files: one `.safetensors` with the config inside, or out of an official LLaVA checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydantic
import torch
from torch import Tensor

from piip import config
from piip.backbone.branch import restore_buffers
from piip.config.errors import problems
from piip.console import shortened
from piip.encoder import PIIPEncoder
from piip.files import atomic_write
from piip.version import __version__
from piip.weights.errors import WeightsError
from piip.weights.files import LISTED, SUFFIX, VERSION_KEY, metadata_of, nonfinite_keys, read_one_by_one
from piip.weights.official import llava
from piip.weights.pickles import read_state_dict
from piip.weights.streams import write_tensors
from piip.zoo.encoders import encoder, list_encoders

CONFIG_KEY = "piip_encoder_config"
PARTS = ("*.safetensors", "pytorch_model*.bin")
"""the files of a checkpoint that Hugging Face's transformers wrote, in one of two formats"""
LAST = f"{llava.PROJECTOR}branch1.6.weight"
"""the layer whose width is the language model's"""


def save_encoder(module: PIIPEncoder, path: str | Path) -> Path:
    """Write weights and config to a `.safetensors` file.

    Raises WeightsError for another suffix and for non-finite weights, and writes nothing then.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise WeightsError(f"{path}: encoders are saved as {SUFFIX} files")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    if broken := nonfinite_keys(tensors):
        raise WeightsError(
            f"{path}: not written, the encoder has NaN or infinite weights in {shortened(broken, LISTED)}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        metadata = {"format": "pt", VERSION_KEY: __version__, CONFIG_KEY: module.config.model_dump_json()}
        write_tensors(temporary, tensors, metadata)
    return path


def load_encoder(path: str | Path) -> PIIPEncoder:
    """A saved encoder, on the CPU, in the file's precision and in eval mode.

    Raises WeightsError where config and weights do not fit exactly, or where the file is no encoder's.
    """
    path = Path(path)
    text = metadata_of(path).get(CONFIG_KEY)
    if text is None:
        raise WeightsError(f"{path}: holds no config of a vision encoder; was it written by `save_encoder`?")
    try:
        described = config.Encoder.model_validate_json(text)
    except pydantic.ValidationError as error:
        raise WeightsError(f"{path}: its config is not valid: {problems(error)}") from error
    tensors = dict(read_one_by_one(path))
    with torch.device("meta"):
        module = PIIPEncoder(described)
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    odd = [name for name in shapes.keys() | tensors.keys()
           if name not in tensors or tensors[name].shape != shapes.get(name)]  # fmt: skip
    if odd:
        raise WeightsError(f"{path}: does not fit its own config; wrong or missing: {shortened(sorted(odd), LISTED)}")
    module.load_state_dict(tensors, assign=True)
    restore_buffers(module)
    return module.eval()


def convert_encoder(source: str | Path, target: str | Path, name: str) -> PIIPEncoder:
    """Write the encoder in an official LLaVA checkpoint to a new `.safetensors` file, strictly; returns it.

    Args:
        source: a `.bin`, `.pth` or `.safetensors` file of the encoder or of the whole model, or a folder with the parts
            of one (`model-00001-of-00003.safetensors`, ...).
        target: a file that does not exist yet.
        name: of the encoder, see `zoo.encoders.list_encoders`. The width is that of the weights.

    Raises WeightsError for what cannot be read and where `target` exists, KeyMismatch for keys that do not fit.
    """
    if name not in list_encoders():
        raise ValueError(f"no vision encoder {name!r}; there are {', '.join(list_encoders())}")
    if Path(target).exists():
        raise WeightsError(f"{target}: exists already; choose another name or remove it first")
    state = {key: tensor for key, tensor in _tensors(Path(source)) if not key.startswith(llava.LANGUAGE)}
    last = state.get(LAST, state.get(f"model.{LAST}"))
    if last is None:
        raise WeightsError(f"{source}: holds no encoder of PIIP-LLaVA, which has a {LAST}")
    module = llava.load(encoder(name, width=len(last)), state)
    save_encoder(module, target)
    return module


def _tensors(source: Path) -> Iterator[tuple[str, Tensor]]:
    files = [source]
    if source.is_dir():
        files = next((found for found in (sorted(source.glob(part)) for part in PARTS) if found), [])
    if not files or not source.exists():
        raise WeightsError(f"{source}: no such file, or a folder without {' or '.join(PARTS)}")
    for file in files:
        yield from read_one_by_one(file) if file.suffix == SUFFIX else read_state_dict(file).items()
