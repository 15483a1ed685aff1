"""Images in, tokens for a language model out."""

from __future__ import annotations

from torch import Tensor, nn

from piip import config
from piip.backbone import PIIPBackbone
from piip.encoder.projector import Projector
from piip.structures import BranchState


class PIIPEncoder(nn.Module):
    """A PIIP backbone without merge, and the projector behind it. The language model is not part of it."""

    def __init__(self, encoder: config.Encoder) -> None:
        super().__init__()
        self.config = encoder
        self.backbone = PIIPBackbone(encoder.backbone)
        self.projector = Projector([branch.width for branch in encoder.backbone.branches], encoder.width)

    def tokens(self, images: Tensor) -> list[BranchState]:
        """[B, 3, H, W] normalised images -> tokens (and class tokens) of every branch, finest first."""
        states: list[BranchState] = self.backbone.states(images)
        return states

    def encode_images(self, images: Tensor) -> Tensor:
        """What a language model reads in an image's place: [B, N, C].

        Args:
            images: [B, 3, H, W] at the finest branch's size (`config.Encoder.size`), RGB in 0..1, normalised with the
                config's `mean` and `std`.

        Returns:
            N tokens, those of the finest branch's last grid row by row, of the language model's width C.
        """
        tokens: Tensor = self.projector(self.tokens(images))
        return tokens

    forward = encode_images
