"""Why a file is not read."""

from __future__ import annotations


class Refused(Exception):
    """The file names code that would run where it is opened with pickle; the argument is that name."""


class Damaged(Exception):
    """The file is no pickle that a program wrote, or not all of it is there."""
