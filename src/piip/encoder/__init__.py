"""The vision encoder of PIIP-LLaVA: branches that interact, no merge, and tokens for a language model."""

from piip.encoder.encoder import PIIPEncoder
from piip.encoder.projector import Projector

__all__ = ["PIIPEncoder", "Projector"]
