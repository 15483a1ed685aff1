"""What is raised for weights that cannot be used."""

from __future__ import annotations


class WeightsError(ValueError):
    """A file of weights that cannot be used: what is wrong with it, and with which file."""
