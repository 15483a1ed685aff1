"""Two-stage query selection: the best cells of the memory say where the decoder's queries begin.

Only the places come from the cells; the contents are learned ("mixed selection").
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from piip import config
from piip.heads.dino.layers import box_deltas, class_scores
from piip.heads.dino.positions import Geometry
from piip.ops.deformable_attention import cell_centres

CELL_SIDE = 0.05
"""side of the box that a cell of the finest level proposes, as a part of the image; twice that on the next level"""
MARGIN = 0.01
"""cells whose centres or sides are closer than this to 0 or 1 propose nothing"""


class Selected(NamedTuple):
    """What the memory proposes, best first."""

    content: Tensor
    """[B, Q, C]"""
    boxes: Tensor
    """[B, Q, 4] in 0..1"""
    logits: Tensor
    """[B, Q, K]"""


class QuerySelection(nn.Module):
    """Class scores and a box for every cell; the best by their best class become queries."""

    def __init__(self, head: config.DINO, classes: int) -> None:
        super().__init__()
        self.project = nn.Linear(head.channels, head.channels)
        self.norm = nn.LayerNorm(head.channels)
        self.scores = class_scores(head.channels, classes)
        self.boxes = box_deltas(head.channels)
        self.content = nn.Embedding(head.queries, head.channels)
        nn.init.xavier_uniform_(self.project.weight)

    def forward(self, memory: Tensor, geometry: Geometry) -> Selected:
        """The `queries` best cells of memory [B, S, C]; all of them where there are fewer."""
        proposals, proposes = cell_boxes(geometry)
        tokens = self.norm(self.project(memory * proposes[..., None]))
        logits = self.scores(tokens)
        count = min(self.content.num_embeddings, logits.shape[1])
        best = logits.detach().amax(dim=-1).topk(count, dim=1).indices[..., None]  # [B, Q, 1]
        chosen = tokens.gather(1, best.expand(-1, -1, tokens.shape[-1]))
        boxes = (self.boxes(chosen) + proposals.gather(1, best.expand(-1, -1, 4))).sigmoid()
        content = self.content.weight[:count].expand(memory.shape[0], -1, -1)
        return Selected(content, boxes, logits.gather(1, best.expand(-1, -1, logits.shape[-1])))


def cell_boxes(geometry: Geometry) -> tuple[Tensor, Tensor]:
    """The logits of the box that every cell proposes, [B, S, 4], and whether it does propose one, [B, S] bool.

    A cell in the padding or at the very border has infinite logits: whatever is added, its box is the image's last
    corner. With the contents set to 0 it may still be chosen, as in the reference, where nothing scores better.
    """
    boxes = []
    for level, size in enumerate(geometry.sizes):
        centres = cell_centres(size, geometry.valid.device) / geometry.valid[:, level, None]  # [B, h*w, 2]
        boxes.append(torch.cat((centres, torch.full_like(centres, CELL_SIDE * 2.0**level)), dim=-1))
    every = torch.cat(boxes, dim=1)
    proposes = ((every > MARGIN) & (every < 1 - MARGIN)).all(-1) & ~geometry.padding
    return torch.where(proposes[..., None], every.logit(), torch.inf), proposes
