"""What a server takes from strangers, and what it does not."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """Bounds of requests and of what waits.

    Raises ValueError for a bound that is not positive (`batch_wait` may be 0).
    """

    bytes: int = 20_000_000
    """of an upload"""
    pixels: int = 50_000_000
    """of an image, width x height"""
    seconds: float = 60.0
    """for a request, from its first byte to its answer"""
    queue: int = 32
    """requests that are read, wait or are worked on at a time; one more gets status 429"""
    batch: int = 8
    """images per forward pass at most; those that wait at the same time go together"""
    batch_wait: float = 0.0
    """seconds that an image waits for others to go with; 0: it goes with those that wait already"""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0 and not (field.name == "batch_wait" and value == 0):
                raise ValueError(f"{field.name} {value}: use a number above 0")
