"""The PIIP backbone, in the order an image takes through it.

pyramid -> branch (vit, ...) <-> interaction -> merge -> feature_maps; piip joins them.
"""

from piip.backbone.piip import PIIPBackbone

__all__ = ["PIIPBackbone"]
