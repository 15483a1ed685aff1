"""The former name of `piip.data.detection.coco` (kept until 1.0)."""

from piip.data.detection.coco import CocoData, CocoImage, CocoObject, read_coco

__all__ = ["CocoData", "CocoImage", "CocoObject", "read_coco"]
