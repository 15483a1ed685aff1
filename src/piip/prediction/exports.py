"""What all results share when they are handed out: picture files, and the classes of other libraries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from piip.files import atomic_write

if TYPE_CHECKING:
    from supervision import Detections


def supervision_detections() -> type[Detections]:
    """The class `supervision.Detections`; ImportError with the command that installs it."""
    try:
        from supervision import Detections
    except ImportError:
        raise ImportError('to_supervision needs supervision: pip install "piip[vis]"') from None
    return Detections


def save_picture(draw: Callable[[], np.ndarray], path: Path) -> Path:
    """Write what `draw` gives to an image file of the kind that the suffix says; ValueError for one that is none."""
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise ValueError(f"{path}: no image format for {path.suffix or 'no suffix'!r}; use .jpg, .png or .webp")
    picture = Image.fromarray(draw())
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        picture.save(temporary, format=kind, quality=92)
    return path
