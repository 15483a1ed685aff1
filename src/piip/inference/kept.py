"""What copies for inference make once and keep: tensors that do not depend on the images."""

from __future__ import annotations

import torch
from torch import Tensor


def can_be_kept(tensor: Tensor) -> bool:
    """Whether a tensor is there for longer than this call: one with numbers, in memory that no CUDA graph owns."""
    if type(tensor) is not Tensor or tensor.is_meta:
        return False
    return tensor.device.type != "cuda" or not torch.cuda.is_current_stream_capturing()
