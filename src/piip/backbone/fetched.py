"""timm's models, whose pretrained weights are fetched, or not within a moment."""

from __future__ import annotations

from typing import Any

import timm

from piip.reach import hub_at_once

LOCAL = (
    "give its weights as a file instead: create_backbone(weights={N: FILE}), load_branches({N: FILE}), or "
    "--branch-weights N=FILE, with N the number of the branch, 0 for the finest"
)


def created(name: str, pretrained: bool, **changes: Any) -> Any:
    """The timm model of that name.

    Raises ConnectionError, in a sentence that says what to do, where its weights are not here and cannot be fetched.
    """
    if not pretrained:
        return timm.create_model(name, **changes)
    with hub_at_once() as why:
        try:
            return timm.create_model(name, pretrained=True, **changes)
        except (OSError, RuntimeError) as error:
            if why is None:
                raise
            raise ConnectionError(f"{name}: its pretrained weights are not on this machine ({why}); {LOCAL}") from error
