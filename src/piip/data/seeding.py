"""Counter-based randomness: what is random follows from a seed and counters, never from what ran before.

So the number of workers, the order in which they finish and a resume in mid-epoch change nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derived_seed(seed: int, *counters: int) -> int:
    """A 63-bit seed for torch, from a run's seed and counters such as (epoch, index)."""
    digest = hashlib.blake2b(repr((int(seed), *map(int, counters))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextmanager
def seeded(seed: int, *counters: int) -> Iterator[None]:
    """Inside, torch's global CPU generator is seeded from these numbers; afterwards it goes on as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(seed, *counters))
        yield


def generator(seed: int, *counters: int) -> torch.Generator:
    """A CPU generator of its own, seeded from these numbers."""
    return torch.Generator().manual_seed(derived_seed(seed, *counters))
