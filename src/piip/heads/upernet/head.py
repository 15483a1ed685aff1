"""UperNet: maps -> losses, or the best class of each pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from piip import config, processes
from piip.backbone.merge import resize
from piip.heads.head import Folding, Head
from piip.heads.upernet.decoder import ConvNormReLU, UperNetDecoder, classifier
from piip.heads.upernet.labels import padded_labels, winners
from piip.heads.upernet.windows import whole_or_in_windows
from piip.structures import IGNORED, Batch, Prediction, Size, size_of

FeaturesOf = Callable[[Tensor], list[Tensor]]


class UperNetHead(Head[Tensor]):
    """Maps of `in_channels` (finest first) -> losses or a label for every pixel."""

    class_weights: Tensor | None

    def __init__(self, head: config.UperNet, in_channels: Sequence[int], classes: int, smallest_image: int = 1) -> None:
        """`smallest_image`: side in pixels that the backbone needs, which narrower images keep of their padding."""
        super().__init__()
        self.config: config.UperNet = head
        self.smallest_image = smallest_image
        self.decoder = UperNetDecoder(head, in_channels, classes)
        self.auxiliary: nn.Sequential | None = None
        if head.auxiliary_channels is not None:
            width = in_channels[head.auxiliary_map]
            conv = ConvNormReLU(width, head.auxiliary_channels, kernel=3)
            self.auxiliary = nn.Sequential(conv, *classifier(head.auxiliary_channels, classes, head.dropout))
        self.register_buffer("class_weights", None, persistent=False)  # part of the config already
        self.init_non_persistent_buffers()

    @classmethod
    def of(cls, model: config.Model) -> UperNetHead:
        """The head that `model` describes, with fresh weights."""
        assert isinstance(model.head, config.UperNet)
        return cls(model.head, model.backbone.map_widths, len(model.classes), model.backbone.smallest_image)

    def init_non_persistent_buffers(self) -> None:
        """Set the buffers that no file holds; also after the head was built on the meta device and then filled."""
        weights = self.config.class_weights
        self.class_weights = None if weights is None else torch.tensor(weights)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Class logits [B, K, h, w] at the size of the finest map."""
        logits: Tensor = self.decoder(features)
        return logits

    def loss(self, features: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """`loss_seg` and `loss_aux`, weights included. A target is a label map [H, W] of its image without padding."""
        labels = padded_labels(batch.targets, size_of(batch.images))
        losses = {"loss_seg": self._cross_entropy(self(features), labels)}
        if self.auxiliary is not None:
            logits = self.auxiliary(features[self.config.auxiliary_map])
            losses["loss_aux"] = self.config.auxiliary_weight * self._cross_entropy(logits, labels)
        return losses

    def predict(self, features_of: FeaturesOf, batch: Batch) -> list[Prediction]:
        """`labels` [H, W] int64 and `scores` [H, W] float32 of each image at its original size.

        Large photos and many classes need no memory for all probabilities at once.
        """
        each = zip(self.logits(features_of, batch), batch.original_sizes, strict=True)
        return [winners(logits, size) for logits, size in each]

    def probabilities(self, features_of: FeaturesOf, batch: Batch) -> list[Tensor]:
        """[K, H, W] float32 of each image at its original size: all classes, of which `predict` keeps the best."""
        each = zip(self.logits(features_of, batch), batch.original_sizes, strict=True)
        return [resize(logits[None].contiguous(), size)[0].softmax(dim=0) for logits, size in each]

    def logits(self, features_of: FeaturesOf, batch: Batch) -> list[Tensor]:
        """Class logits [K, h, w] float32 of each image without its padding, from the whole image or from windows."""

        return whole_or_in_windows(lambda images: self(features_of(images)), batch, self.config, self.smallest_image)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum over the annotated pixels, divided by the number of all pixels, as the reference does.

        All pixels of all processes: theirs are images of one padded size, so that their number is that of the images.
        """
        logits = resize(logits.float(), size_of(labels))
        each = F.cross_entropy(logits, labels, self.class_weights, ignore_index=IGNORED, reduction="none")
        return each.mean() * (len(labels) / processes.mean_count(len(labels), labels.device))

    @property
    def neck(self) -> nn.Module:
        """The decoder, which is all of it in a prediction."""
        return self.decoder

    def dry_run(self, features: Tensor, image: Size) -> None:
        """Nothing: a label for every pixel takes no multiply-adds."""

    def folding(self) -> Folding:
        """BatchNorms, the laterals, which read all maps but the coarsest, and what helps in training only."""
        blocks = [module for module in self.decoder.modules() if isinstance(module, ConvNormReLU)]
        return Folding(
            map_readers=tuple(lateral[0] for lateral in self.decoder.laterals),  # type: ignore[index]
            batch_norms=tuple((block[0], block[1]) for block in blocks),
            training_only=() if self.auxiliary is None else (self.auxiliary,),
        )
