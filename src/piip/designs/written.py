"""A proposal as the file of a model, which every verb takes: see `zoo.own`."""

from __future__ import annotations

from collections.abc import Iterable

from piip import config
from piip.designs.parts import Pyramid
from piip.zoo.own import Described, model_of


def name_of(pyramid: Pyramid) -> str:
    """Such as "tsb_1408_1056_448"."""
    return "_".join([pyramid.letters.lower(), *map(str, pyramid.sizes)])


def model_of_pyramid(pyramid: Pyramid, head: str, pretrained: bool) -> config.Model:
    """The same model as the file's."""
    return model_of(Described(name=name_of(pyramid), pyramid=pyramid.words, head=head, pretrained=pretrained))


def text_of(pyramid: Pyramid, head: str, pretrained: bool, reasons: Iterable[str] = ()) -> str:
    """The file: the reasons as comments, then the description."""
    lines = [f"# {reason}" for reason in reasons]
    lines += [f"name: {name_of(pyramid)}", f"pyramid: {pyramid.words}", f"head: {head}"]
    lines.append(f"pretrained: {'true' if pretrained else 'false'}")
    return "\n".join(lines) + "\n"
