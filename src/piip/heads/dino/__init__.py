"""DINO (Zhang et al. 2023), in the order the maps take through it: channel_mapper -> encoder -> queries -> decoder.

`denoising` makes the extra queries of training, `matching` finds which query stands for which object, `losses` says how
wrong each is; `positions` holds all geometry, `head` joins everything. The semantics are those of the reference
(mmdetection 2.25 style), in which the released models were trained.
"""

from piip.heads.dino.head import DINOHead

__all__ = ["DINOHead"]
