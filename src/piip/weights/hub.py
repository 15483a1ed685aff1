"""Weights from and to the Hugging Face Hub: the released checkpoints by model name, and users' own models.

Released files lie in the repository `OpenGVLab/PIIP`. Each is fetched once (into huggingface_hub's cache), checked
against the hash that the Hub states, converted once into our own cache, and checked again whenever it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from piip import zoo
from piip.files import atomic_write, write_json
from piip.weights import files
from piip.weights.files import WeightsError

if TYPE_CHECKING:
    from typing_extensions import Self

    from piip import config
    from piip.model import PIIPModel

REPOSITORY = "OpenGVLab/PIIP"
OFFICIAL = "official"
"""what `--weights` takes for the released weights of `--model`"""
RECORD = "source.json"
SHA256 = re.compile(r"[0-9a-f]{64}")


# -- released checkpoints --------------------------------------------------------------------------------------------


def official_weights(name: str) -> Path:
    """The folder with the released weights of a named model, fetched and converted on first use.

    It lies in `$PIIP_HOME`, by default `~/.cache/piip`. `$HF_ENDPOINT` and `$HF_HOME` work as for huggingface_hub.

    Raises:
        WeightsError: no weights were released for the model, or they cannot be fetched, or are not what the Hub states.
        ValueError: there is no such model.
    """
    entry = zoo.entry(name)
    if entry.checkpoint is None:
        released = [other.name for other in zoo.MODELS.values() if other.checkpoint]
        raise WeightsError(f"{name}: no weights were released for it; they were for {', '.join(released[:6])} and "
                           f"{len(released) - 6} more, see `piip models`")  # fmt: skip
    folder = cache_folder() / name
    if _is_intact(folder):
        return folder
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted conversion, or damaged since
    source, digest = _fetch(entry.checkpoint)
    from piip.weights.official.convert import to_ours

    to_ours(source, folder, model=name)
    converted = file_sha256(folder / files.FOLDER_WEIGHTS)
    record = {"repository": REPOSITORY, "file": entry.checkpoint, "sha256": digest, "converted_sha256": converted}
    write_json(folder / RECORD, record, indent=2)
    return folder


def resolve(weights: str | Path, model: str | None) -> Path:
    """What a command's `--weights` and `--model` mean: a path, or for "official" the model's released weights."""
    if str(weights) != OFFICIAL:
        return Path(weights)
    if model is None:
        raise WeightsError(f"--weights {OFFICIAL} needs --model NAME, see `piip models`")
    return official_weights(model)


def cache_folder() -> Path:
    """Where converted weights are kept."""
    if home := os.environ.get("PIIP_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "piip"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file)


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _is_intact(folder: Path) -> bool:
    """Whether a conversion is there, complete and unchanged."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return bool(record["converted_sha256"] == file_sha256(folder / files.FOLDER_WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _fetch(file: str) -> tuple[Path, str]:
    """A released file and its SHA-256, after it was found to be what the Hub states."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    endpoint = os.environ.get("HF_ENDPOINT") or None
    by_hand = (
        f"Or fetch https://huggingface.co/{REPOSITORY}/resolve/main/{file} yourself and use `piip convert FILE FOLDER "
        "--model NAME`"
    )
    try:
        path = Path(hf_hub_download(REPOSITORY, file, endpoint=endpoint))
        stated = path.resolve().name  # the Hub's cache names a file by its hash
        if not SHA256.fullmatch(stated):
            etag = get_hf_file_metadata(hf_hub_url(REPOSITORY, file, endpoint=endpoint), endpoint=endpoint).etag
            stated = etag or ""
    except Exception as error:  # network, proxy, permissions, and the client's many own kinds
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise WeightsError(f"{REPOSITORY}/{file} cannot be fetched: {reason}. {by_hand}") from error
    digest = file_sha256(path)
    if SHA256.fullmatch(stated) and stated != digest:
        path.resolve().unlink()  # so that it is fetched again
        raise WeightsError(f"{REPOSITORY}/{file}: what arrived has the SHA-256 {digest}, the Hub states {stated}; it "
                           "was removed, try again")  # fmt: skip
    return path, digest


# -- users' own models -----------------------------------------------------------------------------------------------


class HubMethods:
    """`save_pretrained`, `from_pretrained` and `push_to_hub` of `piip.PIIP`."""

    config: config.Model

    @property
    def model(self) -> PIIPModel:
        """The module."""
        raise NotImplementedError

    def __init__(self, model: str | Path, device: str | None = None) -> None:
        raise NotImplementedError

    def save_pretrained(self, folder: str | Path, licence: str | None = None) -> Path:
        """Write `model.safetensors`, `config.json` and a model card, `README.md`, into `folder`.

        `licence`: an SPDX identifier for the card.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files.save_model(self.model, folder)
        with atomic_write(folder / "README.md") as temporary:
            temporary.write_text(model_card(self.config, licence), encoding="utf-8")
        return folder

    @classmethod
    def from_pretrained(
        cls, name: str | Path, revision: str | None = None, token: str | None = None, device: str | None = None
    ) -> Self:
        """A model saved by `save_pretrained` or `push_to_hub`: a folder, or the id of a repository on the Hub.

        Raises WeightsError where it cannot be fetched or loaded.
        """
        if Path(name).exists():
            return cls(Path(name), device)
        from huggingface_hub import snapshot_download

        wanted = [files.FOLDER_CONFIG, files.FOLDER_WEIGHTS]
        endpoint = os.environ.get("HF_ENDPOINT") or None
        try:
            folder = snapshot_download(
                str(name), revision=revision, token=token, allow_patterns=wanted, endpoint=endpoint
            )
        except Exception as error:  # network, permissions, no such repository
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise WeightsError(
                f"{name}: neither a folder here nor a model on the Hub that can be fetched: {reason}"
            ) from error
        return cls(Path(folder), device)

    def push_to_hub(
        self,
        repository: str,
        licence: str | None = None,
        private: bool = False,
        token: str | None = None,
        message: str = "Upload a PIIP model",
    ) -> str:
        """Upload the model and its card to `repository` ("user/name") on the Hub, made if needed; returns its URL."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, licence)
            url = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message=message)
        return str(url)


PIPELINES = {
    "detection": "object-detection",
    "segmentation": "image-segmentation",
    "classification": "image-classification",
}


def model_card(model: config.Model, licence: str | None = None) -> str:
    """A model card for the Hub: what the model is, what it tells apart, and how to use it."""
    entry = zoo.MODELS.get(model.name)
    branches = "\n".join(
        f"| {index} | {branch.model or branch.family} | {branch.size} | {branch.depth} | {branch.width} |"
        for index, branch in enumerate(model.backbone.branches)
    )
    lines = ["---", "library_name: piip", f"pipeline_tag: {PIPELINES[model.task]}"]
    lines += [f"license: {licence.lower()}"] if licence else []
    lines += ["tags: [piip, computer-vision]", "---", "", f"# {model.name}", ""]
    lines += [
        f"A PIIP model for {model.task} with {len(model.classes)} classes, written by the Python package `piip`.",
        "",
    ]
    lines += ["| branch | architecture | image | depth | width |", "|---|---|---|---|---|", branches, ""]
    lines += ["```python", "import piip", "", 'model = piip.PIIP.from_pretrained("this/repository")']
    lines += ['result = model.predict("image.jpg")', "```", "", f"Classes: {', '.join(model.classes)}.", ""]
    if entry is not None and entry.pretraining:
        known = ", ".join(f"{label} ({name})" for label, name in entry.licences.items() if label != "checkpoint")
        lines += [f"If its branches began as in the published model: {known}. Their licences apply.", ""]
    lines += ["Method: Parameter-Inverted Image Pyramid Networks, Zhu et al., NeurIPS 2024 (arXiv 2406.04330).", ""]
    return "\n".join(lines)
