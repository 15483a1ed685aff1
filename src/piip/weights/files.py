"""Models as files: one `.safetensors` with the config inside, or a folder with the config beside the weights.

A file is written completely or not at all, and read completely or not at all: every key, shape and value
is checked before a model is handed out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pydantic
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from piip import config
from piip.config.errors import problems
from piip.console import shortened
from piip.data.report import DataError
from piip.data.text_files import LARGEST_DESCRIPTION, read_bytes
from piip.files import atomic_write, write_json
from piip.version import __version__
from piip.weights.errors import WeightsError as WeightsError
from piip.weights.header import check_header
from piip.weights.streams import DTYPES, order, write_stream, write_tensors

if TYPE_CHECKING:
    from piip.model import PIIPModel

SUFFIX = ".safetensors"
FOLDER_WEIGHTS = "model.safetensors"
FOLDER_CONFIG = "config.json"
CONFIG_KEY = "piip_config"
VERSION_KEY = "piip_version"
LISTED = 8
"""how many keys an error message names"""
MAPPED_AT_ONCE = 64 << 20
"""bytes of a file that reading may keep mapped"""
PRECISIONS = (torch.float32, torch.bfloat16, torch.float16, torch.int64)
"""types that a model's tensors keep when they are read"""

TYPES = (torch.float64, *PRECISIONS, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
"""types that are read at all"""
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""types by safetensors' names"""


def nonfinite_keys(tensors: Mapping[str, Tensor]) -> list[str]:
    """Keys of the tensors that hold a NaN or an infinity."""
    return [key for key, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]


def save_model(model: PIIPModel, path: str | Path) -> Path:
    """Write weights and config: to one file for a `.safetensors` path, else to a folder of that name.

    The folder holds `model.safetensors` and `config.json`. Returns the path of the `.safetensors` file.
    Raises WeightsError for another suffix, non-finite weights or a folded copy, and writes nothing then.
    """
    path = Path(path)
    if getattr(model, "folded", False):
        raise WeightsError(f"{path}: not written, this is a folded copy for inference; save the model it was made from")
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    if broken := nonfinite_keys(tensors):
        raise WeightsError(f"{path}: not written, the model has NaN or infinite weights in {shortened(broken, LISTED)}")
    text = model.config.model_dump_json()
    metadata = {"format": "pt", VERSION_KEY: __version__}
    if path.suffix == SUFFIX:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            write_tensors(temporary, tensors, metadata | {CONFIG_KEY: text})
        return path
    if path.suffix and not path.is_dir():
        raise WeightsError(f"{path}: models are saved as {SUFFIX} files, or as a folder (a path without suffix)")
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / FOLDER_CONFIG, model.config.model_dump(mode="json"), indent=2)
    with atomic_write(path / FOLDER_WEIGHTS) as temporary:
        write_tensors(temporary, tensors, metadata)
    return path / FOLDER_WEIGHTS


def save_streamed(
    described: config.Model, path: Path, layout: Mapping[str, Tensor], tensors: Iterable[tuple[str, Tensor]]
) -> None:
    """Write the `.safetensors` file of a model whose `tensors` come one after the other, see `streams.write_stream`."""
    metadata = {"format": "pt", VERSION_KEY: __version__, CONFIG_KEY: described.model_dump_json()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        write_stream(temporary, layout, tensors, metadata)


def replace_config(file: Path, described: config.Model) -> None:
    """Write another config into the `.safetensors` file of a model, as `save_model` would, which holds it whole."""
    with _opened(file) as opened:
        stored = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        layout = {name: _without_values(part.get_shape(), part.get_dtype(), file) for name, part in stored.items()}
    save_streamed(described, file, layout, read_one_by_one(file, order(layout)))


def _without_values(shape: Sequence[int], dtype: str, file: Path) -> Tensor:
    found = next((known for known, name in DTYPES.items() if name == dtype), None)
    if found is None:
        raise WeightsError(f"{file}: of a type that is not read here, {dtype}")
    return torch.empty(shape, dtype=found, device="meta")


def find_weights(path: str | Path) -> Path:
    """The `.safetensors` file that `path` means: itself, a saved folder's, or a run's best (else last).

    Raises WeightsError where there is none.
    """
    path = Path(path)
    if path.is_file():
        if path.suffix != SUFFIX:
            raise WeightsError(f"{path}: not a {SUFFIX} file; convert other formats first")
        return path
    candidates = [
        FOLDER_WEIGHTS,
        f"weights/best{SUFFIX}",
        f"weights/last{SUFFIX}",
        f"best{SUFFIX}",
        f"last{SUFFIX}",
    ]
    for candidate in candidates:
        if (path / candidate).is_file():
            return path / candidate
    if path.is_dir():
        raise WeightsError(f"{path}: no weights in this folder; looked for {', '.join(candidates[:3])}")
    raise WeightsError(f"{path}: no such file or folder")


def read_config(path: str | Path) -> config.Model:
    """The config that belongs to the weights at `path` (anything that `find_weights` takes).

    Raises WeightsError where it is missing or invalid.
    """
    file = find_weights(path)
    beside = file.with_name(FOLDER_CONFIG)
    with _opened(file) as opened:
        text = (opened.metadata() or {}).get(CONFIG_KEY)
    if text is None and beside.is_file():
        file, text = beside, _text_beside(beside)
    if text is None:
        raise WeightsError(
            f"{file}: holds no config of a PIIP model, and there is no {FOLDER_CONFIG} beside it; "
            "was it saved by this package?"
        )
    try:
        return config.Model.model_validate_json(text)
    except pydantic.ValidationError as error:
        raise WeightsError(f"{file}: its config is not valid: {problems(error)}") from error


def _text_beside(file: Path) -> str:
    try:
        return read_bytes(file, LARGEST_DESCRIPTION).decode("utf-8", "replace")
    except DataError as error:
        raise WeightsError(str(error)) from error


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a `.safetensors` file, on the CPU.

    Raises WeightsError for a truncated or damaged file and for NaN or infinite values.
    """
    file = find_weights(path)
    with _opened(file) as opened:
        tensors = {key: _get(opened, key, file) for key in opened.keys()}  # noqa: SIM118 - not a dict
    if broken := nonfinite_keys(tensors):
        raise WeightsError(f"{file}: NaN or infinite weights in {shortened(broken, LISTED)}")
    return tensors


def stored_precision(path: str | Path) -> tuple[str, ...]:
    """The floating-point types of the weights at `path`, by torch's names; more than one for a mixed file."""
    with _opened(find_weights(path)) as opened:
        found = {opened.get_slice(key).get_dtype() for key in opened.keys()}  # noqa: SIM118 - not a dict
    return tuple(sorted(name for short, name in FLOATS.items() if short in found))


def load_model(path: str | Path) -> PIIPModel:
    """The saved model, on the CPU, in the file's precision and in eval mode.

    The weights are in memory once: the module is built without any, then takes the tensors as they are read. Within
    `torch.device("meta")` they are not read at all, and it stays without.

    Raises WeightsError where config and weights do not fit exactly. See `find_weights` for `path`.
    """
    from piip.model import PIIPModel

    file = find_weights(path)
    with torch.device("meta"):
        model = PIIPModel(without_downloads(read_config(path)))
    if torch.get_default_device().type == "meta":
        _check_fit(model, _shapes(file), str(file))
    else:
        _fill(model, file)
    return model.eval()


def load_exactly(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy `tensors` into `model`, whose keys and shapes must be exactly these; else WeightsError."""
    _check_fit(model, {key: tensor.shape for key, tensor in tensors.items()}, source)
    model.load_state_dict(tensors)


def without_downloads(model: config.Model) -> config.Model:
    """The same model, but its branches do not fetch pretrained weights that would be overwritten at once."""
    return model.model_copy(update={"backbone": model.backbone.without_downloads()})


def _fill(model: nn.Module, file: Path) -> None:
    """Give a model on the meta device the tensors of `file`, read one after the other, and its other buffers."""
    from piip.backbone.branch import restore_buffers

    _check_fit(model, _shapes(file), str(file))
    wanted = model.state_dict()
    tensors = {name: _in_kind(name, tensor, wanted[name], file) for name, tensor in read_one_by_one(file)}
    model.load_state_dict(tensors, assign=True)
    restore_buffers(model)
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(dtypes) == 1:
        model.to(dtypes.pop())  # only changes the buffers that no file holds


def _in_kind(name: str, tensor: Tensor, wanted: Tensor, file: Path) -> Tensor:
    """`tensor`, in float32 if it has a type that models do not run in."""
    if tensor.is_floating_point() != wanted.is_floating_point():
        raise WeightsError(f"{file}: {name} is of type {tensor.dtype} instead of {wanted.dtype}")
    return tensor if tensor.dtype in PRECISIONS else tensor.to(wanted.dtype)


def _check_fit(model: nn.Module, found: Mapping[str, Sequence[int]], source: str) -> None:
    wanted = {key: tensor.shape for key, tensor in model.state_dict().items()}
    missing = [key for key in wanted if key not in found]
    extra = [key for key in found if key not in wanted]
    shapes = [
        f"{key} (file {tuple(found[key])}, model {tuple(shape)})"
        for key, shape in wanted.items()
        if key in found and tuple(found[key]) != tuple(shape)
    ]
    problems = {"missing": missing, "not of this model": extra, "of another shape": shapes}
    described = [f"{len(keys)} weights {kind}: {shortened(keys, LISTED)}" for kind, keys in problems.items() if keys]
    if described:
        raise WeightsError(f"{source}: does not fit the model; " + "; ".join(described))


def _shapes(file: Path) -> dict[str, list[int]]:
    with _opened(file) as opened:
        return {key: opened.get_slice(key).get_shape() for key in opened.keys()}  # noqa: SIM118 - not a dict


def metadata_of(file: Path) -> dict[str, str]:
    """The texts in the header of a `.safetensors` file; WeightsError where it has none."""
    with _opened(file) as opened:
        return opened.metadata() or {}


def read_one_by_one(file: Path, names: Sequence[str] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a `.safetensors` file, each in memory of its own: what was read of the file is let go.

    `names`: which, and in what order; None: all.

    Raises WeightsError as `read_tensors` does, for NaN and infinite values after the last tensor.
    """
    broken: list[str] = []
    left = list(names) if names is not None else _keys(file)
    while left:
        with _opened(file) as opened:  # once per part of the file, to forget the pages of the part before
            size = 0
            while left and size < MAPPED_AT_ONCE:
                tensor = _get(opened, left[0], file).clone()
                broken += nonfinite_keys({left[0]: tensor})
                yield left.pop(0), tensor
                size += tensor.nbytes
    if broken:
        raise WeightsError(f"{file}: NaN or infinite weights in {shortened(broken, LISTED)}")


def _keys(file: Path) -> list[str]:
    with _opened(file) as opened:
        return list(opened.keys())


def _get(opened: safe_open, name: str, file: Path) -> Tensor:
    try:
        tensor: Tensor = opened.get_tensor(name)
    except (SafetensorError, ValueError, RuntimeError, MemoryError) as error:
        raise WeightsError(f"{file}: damaged: {error}") from error
    return usable(name, tensor, file)


def usable(name: str, tensor: Tensor, file: Path) -> Tensor:
    """`tensor`, if it is of a type that weights can have; WeightsError for complex and 8-bit floating-point numbers."""
    if tensor.dtype not in TYPES:
        raise WeightsError(f"{file}: {name} is of type {tensor.dtype}, which is not read here; save it as float32, "
                           "float16 or bfloat16")  # fmt: skip
    return tensor


@contextmanager
def _opened(file: Path) -> Iterator[safe_open]:
    check_header(file)
    try:
        opened = safe_open(file, framework="pt")
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        raise WeightsError(f"{file}: not a readable {SUFFIX} file, perhaps cut off or damaged ({error})") from error
    with opened:
        yield opened
