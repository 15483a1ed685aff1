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
from typing import TYPE_CHECKING

from piip import zoo
from piip.files import cache_folder, write_json
from piip.reach import hub_at_once, unreachable
from piip.weights import files
from piip.weights.card import Facts, write_card
from piip.weights.errors import WeightsError

if TYPE_CHECKING:
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


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()  # hashlib.file_digest came with Python 3.11
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

    endpoint = _endpoint()
    by_hand = (
        f"Or fetch https://huggingface.co/{REPOSITORY}/resolve/main/{file} yourself and use `piip convert FILE FOLDER "
        "--model NAME`"
    )
    try:
        with hub_at_once() as why:
            path = Path(hf_hub_download(REPOSITORY, file, endpoint=endpoint))
            stated = path.resolve().name  # the Hub's cache names a file by its hash
            if not SHA256.fullmatch(stated):
                etag = get_hf_file_metadata(hf_hub_url(REPOSITORY, file, endpoint=endpoint), endpoint=endpoint).etag
                stated = etag or ""
    except Exception as error:  # network, proxy, permissions, and the client's many own kinds
        raise WeightsError(f"{REPOSITORY}/{file} cannot be fetched: {why or _reason(error)}. {by_hand}") from error
    digest = file_sha256(path)
    if SHA256.fullmatch(stated) and stated != digest:
        path.resolve().unlink()  # so that it is fetched again
        raise WeightsError(f"{REPOSITORY}/{file}: what arrived has the SHA-256 {digest}, the Hub states {stated}; it "
                           "was removed, try again")  # fmt: skip
    return path, digest


# -- users' own models -----------------------------------------------------------------------------------------------


def save_pretrained(
    model: PIIPModel, folder: str | Path, licence: str | None = None, facts: Facts | None = None
) -> Path:
    """Write `model.safetensors`, `config.json` and a model card, `README.md`, into `folder`; returns it.

    A README.md that somebody wrote by hand stays as it is. `licence`: an SPDX identifier for the card.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.save_model(model, folder)
    write_card(folder, model.config, facts, licence)
    return folder


def fetch_pretrained(name: str | Path, revision: str | None = None, token: str | None = None) -> Path:
    """The folder of a model that `save_pretrained` or `push_to_hub` wrote: `name` itself, or a copy from the Hub.

    Raises WeightsError where there is neither a folder nor a repository that can be fetched.
    """
    if Path(name).exists():
        return Path(name)
    from huggingface_hub import snapshot_download

    wanted = [files.FOLDER_CONFIG, files.FOLDER_WEIGHTS]
    try:
        with hub_at_once() as why:
            return Path(
                snapshot_download(
                    str(name), revision=revision, token=token, allow_patterns=wanted, endpoint=_endpoint()
                )
            )
    except Exception as error:  # network, permissions, no such repository
        raise WeightsError(
            f"{name}: neither a folder here nor a model on the Hub that can be fetched: {why or _reason(error)}"
        ) from error


def push_to_hub(
    model: PIIPModel, repository: str, licence: str | None, private: bool, token: str | None, message: str,
    facts: Facts | None = None,
) -> str:  # fmt: skip
    """Upload a model and its card to `repository` ("user/name") on the Hub, made if needed; returns its URL.

    Raises ConnectionError, at once, where the Hub cannot be reached.
    """
    from huggingface_hub import HfApi

    if (why := unreachable()) is not None:
        by_hand = f"save_pretrained(FOLDER) writes the same files; upload them later: hf upload {repository} FOLDER"
        raise ConnectionError(f"{repository}: not uploaded ({why}). {by_hand}")
    api = HfApi(endpoint=_endpoint(), token=token)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, licence, facts)
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message=message)
    return str(url)


# -- both ------------------------------------------------------------------------------------------------------------


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _reason(error: Exception) -> str:
    """The first line of what went wrong."""
    return str(error).strip().split("\n")[0] or type(error).__name__
