"""Image classification: head -> logits, of one of two kinds."""

from piip.heads.classification.head import ClassifierHead

__all__ = ["ClassifierHead"]
