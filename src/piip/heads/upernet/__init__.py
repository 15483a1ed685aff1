"""UperNet (Xiao et al. 2018), in the order of its use: decoder -> windows -> labels; head joins them.

The semantics are those of the reference (mmsegmentation 0.27): resizes are bilinear without aligned corners, a
convolution is followed by BatchNorm and ReLU, and the loss is a mean over all pixels, ignored ones included.
"""

from piip.heads.upernet.head import UperNetHead

__all__ = ["UperNetHead"]
