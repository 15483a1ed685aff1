"""Typed, frozen descriptions of the heads, and what each kind does."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from piip.config.backbone import GROUP_NORM_GROUPS
from piip.config.branch import Frozen, Rate
from piip.config.limits import Kept, Layers, Pixels, Width

PROPOSALS_OF_AN_OBJECT = 2
"""at least, where hundreds of objects are to be found: an object has more than one"""


class MaskRCNN(Frozen):
    """Mask R-CNN head (He et al. 2017) with the reference's settings; without masks it is Faster R-CNN."""

    kind: Literal["mask_rcnn"] = "mask_rcnn"
    masks: bool = True
    """masks beside boxes; follows from the data in training"""
    channels: Width = 256
    """of the neck's maps and of the proposals' head"""
    fc_channels: Width = 1024
    """of the two layers before classes and boxes"""
    anchor_scale: PositiveFloat = 8.0
    """side of the square anchor over the stride of its level"""
    anchor_ratios: Annotated[tuple[PositiveFloat, ...], Field(max_length=64)] = (0.5, 1.0, 2.0)
    """height over width"""
    mask_convs: Layers = 4
    """convolutions before a mask is enlarged"""
    proposals: Kept = 1000
    """kept per image, in training and test"""
    proposals_per_level_train: Kept = 2000
    """of each map, before overlapping ones are dropped, in training"""
    proposals_per_level_test: Kept = 1000
    """the same in prediction"""
    rpn_batch: Kept = 256
    """anchors sampled per image for the RPN losses"""
    roi_batch: Kept = 512
    """regions sampled per image for the box and mask losses"""
    score_threshold: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """detections below it are never given out"""
    nms_threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """overlap (IoU) from which the lower of two boxes of a class is dropped"""
    class_agnostic: bool = False
    """boxes of other classes count there, too: a place has one object of one class, the likeliest. An unsure second
    class is a gain for average precision, and nothing that one wants to see"""
    detections: Kept = 100
    """kept per image"""

    def keeping(self, detections: int) -> MaskRCNN:
        """The same head for so many objects in an image, with as many proposals as they need."""
        proposals = max(self.proposals, PROPOSALS_OF_AN_OBJECT * detections)
        changed: dict[str, int] = {"detections": detections, "proposals": proposals}
        if proposals > self.proposals:
            for name in ("proposals_per_level_train", "proposals_per_level_test"):
                changed[name] = max(getattr(self, name), proposals)
        return MaskRCNN.model_validate(self.model_dump() | changed)

    @property
    def enough_for(self) -> int:
        """Objects of an image for which there are proposals enough."""
        return max(1, self.proposals // PROPOSALS_OF_AN_OBJECT)

    @property
    def most_objects(self) -> int:
        """That can be found in an image."""
        return min(self.detections, self.proposals)


class DINO(Frozen):
    """DINO head (Zhang et al. 2023) with the reference's settings: boxes without anchors and suppression."""

    kind: Literal["dino"] = "dino"
    channels: Width = 256
    """of queries and maps"""
    heads: Width = 8
    """of every attention"""
    points: Width = 4
    """sampling points per query, head and level of the deformable attention"""
    levels: Annotated[int, Field(gt=0, le=16)] = 4
    """maps that are attended to; those beyond the backbone's are made from its coarsest"""
    encoder_layers: Layers = 6
    """of deformable self-attention on the maps"""
    decoder_layers: Layers = 6
    """that refine the queries, each with its own losses"""
    ffn_channels: Width = 2048
    """hidden width of every layer's feed-forward network"""
    queries: Kept = 900
    """the most objects per image that can be found, if `detections` are no fewer"""
    denoising_queries: Annotated[int, Field(ge=0, le=100_000)] = 100
    """pairs of noisy objects per image that training adds, shared out over groups; 0: none"""
    denoising_objects: Annotated[int, Field(gt=0)] | None = None
    """the most objects of an image that there are noisy queries of, drawn anew in each step; None: all, which are
    thousands of queries where an image has a thousand objects"""
    label_noise: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """twice the share of them with a random class"""
    box_noise: NonNegativeFloat = 1.0
    """how far their sides are moved, as a part of half the box"""
    encoder_matches: Width = 1
    """proposals of the encoder that are trained to be each object; the decoder gives every object one query in any
    case. More than the reference's 1 learnt more slowly where both were tried, see `docs/dino.md`"""
    temperature: PositiveFloat = 20.0
    """ratio of the longest to the shortest wave of the position embedding"""
    detections: Kept = 300
    """pairs of query and class that are kept per image, best first"""

    def keeping(self, detections: int) -> DINO:
        """The same head for so many objects in an image, with as many queries."""
        changed = {"detections": detections, "queries": max(self.queries, detections)}
        return DINO.model_validate(self.model_dump() | changed)

    @property
    def most_objects(self) -> int:
        """That can be found in an image."""
        return min(self.detections, self.queries)

    @model_validator(mode="after")
    def _check(self) -> DINO:
        if self.channels % self.heads or self.channels % GROUP_NORM_GROUPS or self.channels < 2 * GROUP_NORM_GROUPS:
            multiple = math.lcm(GROUP_NORM_GROUPS, self.heads)
            fits = -(-max(self.channels, 2 * GROUP_NORM_GROUPS) // multiple) * multiple
            raise ValueError(f"channels {self.channels} must be a multiple of {GROUP_NORM_GROUPS} (GroupNorm), "
                             f"{2 * GROUP_NORM_GROUPS} or more, and of the {self.heads} heads; "
                             f"the next is {fits}")  # fmt: skip
        return self


class UperNet(Frozen):
    """UperNet head (Xiao et al. 2018) with an auxiliary FCN head, as in the reference: semantic segmentation."""

    kind: Literal["upernet"] = "upernet"
    channels: Width = 512
    """of the neck and the classifier"""
    pool_bins: Annotated[tuple[Pixels, ...], Field(min_length=1, max_length=64)] = (1, 2, 3, 6)
    """sides, in cells, to which the coarsest map is pooled"""
    dropout: Rate = 0.1
    """of whole channels before each classifier"""
    auxiliary_channels: Width | None = 256
    """of the head that helps in training only; None: no such head"""
    auxiliary_map: Annotated[int, Field(ge=0, le=3)] = 2
    """which feature map it reads, the finest is 0; 2 is stride 16 where all four maps are there"""
    auxiliary_weight: PositiveFloat = 0.4
    """of that head's loss"""
    class_weights: tuple[PositiveFloat, ...] | None = None
    """one per class, in the losses"""
    window: Pixels | None = None
    """side of the square windows that a test image is predicted in; None: the whole image at once"""
    stride: Pixels | None = None
    """from one window to the next; None: two thirds of the window"""

    def scaled(self, factor: float) -> UperNet:
        """The same head for images that are `factor` times as large."""
        window = self.window and max(1, round(self.window * factor))
        stride = self.stride and max(1, round(self.stride * factor))
        return self.model_copy(update={"window": window, "stride": stride})

    @property
    def window_stride(self) -> int:
        """From one window to the next, in pixels of the network's input."""
        return self.stride or max(1, (self.window or 1) * 2 // 3)

    @model_validator(mode="after")
    def _check(self) -> UperNet:
        if self.stride is not None and (self.window is None or self.stride > self.window):
            raise ValueError(f"stride {self.stride} leaves gaps between windows of {self.window}; use at most the "
                             "window, or neither for whole images")  # fmt: skip
        return self


class Classifier(Frozen):
    """Image classification: a linear head per branch, or one on the merged map."""

    kind: Literal["classifier"] = "classifier"
    separate_head: bool = True
    """average the logits of one head per branch, each on one of its tokens, as the released classifiers do; False:
    merge the branches' maps, one head on the mean of all tokens"""
    dropout: Rate = 0.0
    """before each linear head"""


Head = Annotated[MaskRCNN | DINO | UperNet | Classifier, Field(discriminator="kind")]

Task = Literal["detection", "segmentation", "classification"]

TASKS: dict[str, Task] = {
    "mask_rcnn": "detection",
    "dino": "detection",
    "upernet": "segmentation",
    "classifier": "classification",
}
"""what each kind of head does"""
