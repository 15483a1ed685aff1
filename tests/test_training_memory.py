"""What a training is said to hold on each GPU."""

import pytest
import torch
from tests import tiny

from piip import profile, zoo
from piip.backbone.called_alone import called_alone
from piip.model import PIIPModel
from piip.profile.memory import memory_of


def test_shards_of_a_published_model() -> None:
    """And what is gathered alone is most of the backbone, each of it once."""
    described = zoo.entry("piip_h6b_1024_512_mask_rcnn").config()
    with torch.device("meta"):
        model = PIIPModel(described)
    whole, sharded = memory_of(described, 8)
    assert whole["weights"] == pytest.approx(4e-9 * sum(p.numel() for p in model.parameters()), abs=1e-3)
    assert whole["held"] == pytest.approx(5 * whole["weights"], rel=1e-3)
    assert sharded["held"] == pytest.approx(whole["held"] / 8, rel=1e-2)
    assert 0 < sharded["gathered"] < whole["weights"] / 8
    alone = [parameter for part in called_alone(model.backbone) for parameter in part.parameters()]
    assert len(set(alone)) == len(alone)
    assert sum(p.numel() for p in alone) > 0.95 * sum(p.numel() for p in model.backbone.parameters())


def test_encoders_and_no_processes_are_refused() -> None:
    with pytest.raises(ValueError, match="not trained here"):
        profile.training_memory("piip_llava_clip_bl_512_256", 8)
    with pytest.raises(ValueError, match="0 processes"):
        memory_of(tiny.model(), 0)
