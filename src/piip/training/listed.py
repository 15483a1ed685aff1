"""Every setting of a training with its value and its meaning, for `piip settings`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from piip import config
from piip.training.settings import Settings


class Listed(NamedTuple):
    """One setting."""

    name: str
    """as `--set` and `train(...)` take it; with a dot, a part of the augmentation or of the head"""
    value: Any
    """of the model's recipe, or the default"""
    text: str
    """what it is"""


def listed(settings: Settings, head: config.Head | None = None) -> list[Listed]:
    """The fields of `settings`, of its augmentation and of a model's `head`, in their order."""
    found = [*_fields(settings, ""), *_fields(settings.augmentation, "augmentation.")]
    return found if head is None else [*found, *_fields(head, "head.")]


def matching(found: list[Listed], word: str) -> list[Listed]:
    """Those with `word` in the name or the text; ValueError where there are none."""
    wanted = _plain(word)
    kept = [one for one in found if wanted in _plain(f"{one.name} {one.text}")]
    if not kept:
        raise ValueError(f"no setting has {word!r} in its name or its description; `piip settings` lists all")
    return kept


def _plain(text: str) -> str:
    return text.lower().replace("_", " ").replace("-", " ")


def _fields(described: BaseModel, prefix: str) -> Iterator[Listed]:
    for name, field in type(described).model_fields.items():
        value = getattr(described, name)
        if name == "kind" or (not prefix and isinstance(value, BaseModel)):
            continue
        plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        yield Listed(prefix + name, plain, _text(field))


def _text(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())
