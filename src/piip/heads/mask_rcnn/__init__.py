"""Mask R-CNN (He et al. 2017), in the order the maps take through it: fpn -> rpn -> box -> mask; head joins them.

The semantics are those of the reference (mmdetection 2.25), in which the released models were trained. They differ
from torchvision's detector in the anchors, the clamping, the background label, RoIAlign and most normalisations.
"""

from piip.heads.mask_rcnn.head import MaskRCNNHead

__all__ = ["MaskRCNNHead"]
