"""The former name of `piip.data.detection.splits` (kept until 1.0)."""

from piip.data.detection.splits import Split, find_splits

__all__ = ["Split", "find_splits"]
