"""The former name of `piip.data.classification.splits` (kept until 1.0)."""

from piip.data.classification.splits import find_class_splits, list_images

__all__ = ["find_class_splits", "list_images"]
