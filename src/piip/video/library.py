"""PyAV, where it is installed."""

from __future__ import annotations

from typing import Any


def pyav() -> Any:
    """The module `av`; ImportError, with what to install, where it is missing."""
    try:
        import av
    except ImportError:
        raise ImportError('clips need PyAV: pip install "piip[video]"') from None
    return av
