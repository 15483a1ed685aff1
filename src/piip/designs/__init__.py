"""Which pyramid to train: proposals for a budget of computation or seconds, and for the objects in the data."""

from __future__ import annotations

from piip.designs.proposal import Proposal
from piip.designs.run import design

__all__ = ["Proposal", "design"]
