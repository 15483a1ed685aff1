"""Training settings as KEY=VALUE."""

from __future__ import annotations

from typing import Any

OPTIONS = ("data", "device", "epochs", "image_size", "name", "output")
"""what has options of its own and is not one of the other settings"""


def key_values(pairs: list[str]) -> dict[str, Any]:
    """KEY=VALUE with the value read as YAML; KEY.PART=VALUE sets a part of `augmentation` or of the model's `head`."""
    from piip.data.text_files import typed_yaml

    values: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not text:
            raise ValueError(f"--set {pair}: write KEY=VALUE, for example --set layer_decay=0.9 (null is none)")
        value = typed_yaml(text, f"--set {pair:.80}: the value")
        key, _, part = key.replace("-", "_").partition(".")
        if key in OPTIONS:
            raise ValueError(f"--set {pair}: use the option --{key.replace('_', '-')}")
        if not part:
            values[key] = value
        elif isinstance(values.setdefault(key, {}), dict):
            values[key][part] = value
        else:
            raise ValueError(f"--set {pair}: {key} was set to {values[key]!r} before, which has no parts")
    return values
