"""ImageNet-1k: how its classes are called and its images normalised. The published classifiers were trained on it."""

from __future__ import annotations

from functools import lru_cache

IMAGENET_MEAN = (123.675, 116.28, 103.53)
"""of RGB values in 0..255"""
IMAGENET_STD = (58.395, 57.12, 57.375)


@lru_cache(maxsize=1)
def imagenet_classes() -> dict[str, str]:
    """WordNet id ("n01440764", the name of the class's folder) -> class name ("tench"), in label order.

    Two names would occur twice; those have the second word for the thing, or the id, in brackets.
    """
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    words = {info.index_to_label_name(label): info.index_to_description(label).split(", ") for label in range(1000)}
    names: dict[str, str] = {}
    for wordnet_id, (name, *others) in words.items():
        if sum(first == name for first, *_ in words.values()) > 1:
            name = f"{name} ({others[0] if others else wordnet_id})"
        names[wordnet_id] = name
    return names
