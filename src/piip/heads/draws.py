"""What a head draws in training, image by image: so that it depends on neither the batch nor the process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Draws:
    """Random numbers for the images of a batch, each from a generator of its own.

    Without seeds all come from torch's global generator, as before there were any (`Settings.draws_by_image`).
    """

    def __init__(self, seeds: Sequence[int] = (), device: torch.device | str = "cpu") -> None:
        """`seeds`: one for each image, `Batch.seeds`."""
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def of(self, image: int) -> torch.Generator | None:
        """The generator of an image; None: the global one."""
        return self.generators[image] if self.generators else None

    def uniform(self, like: Tensor) -> Tensor:
        """Numbers in 0..1 in the shape [B, ...] and of the kind of `like`."""
        drawn = torch.empty_like(like, memory_format=torch.contiguous_format)
        for part, generator in self._parts(drawn):
            part.uniform_(generator=generator)
        return drawn

    def below(self, like: Tensor, end: int) -> Tensor:
        """Whole numbers from 0 to `end` - 1, likewise."""
        drawn = torch.empty_like(like, memory_format=torch.contiguous_format)
        for part, generator in self._parts(drawn):
            part.random_(0, end, generator=generator)
        return drawn

    def _parts(self, drawn: Tensor) -> list[tuple[Tensor, torch.Generator | None]]:
        return list(zip(drawn, self.generators, strict=True)) if self.generators else [(drawn, None)]


FROM_ANY = Draws()
"""those of torch's global generator"""
