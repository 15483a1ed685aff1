"""Both classification heads, on small backbones."""

from typing import Any

import pydantic
import pytest
import torch
from tests import tiny
from torch.nn import functional as F

from piip import config
from piip.model import PIIPModel
from piip.structures import Batch

CLASSES = ("cat", "dog", "bird")
SIDE = 64


def branch(size: int, width: int, **fields: Any) -> config.Branch:
    return tiny.branch(size, width, windows=None, position_grid=4, **fields)


def model_config(prefix_tokens: int = 1, branches: int = 2, **head: Any) -> config.Model:
    built = [branch(size, width, prefix_tokens=prefix_tokens) for size, width in ((SIDE, 32), (32, 64))[:branches]]
    return config.Model(
        name="tiny",
        backbone=config.Backbone(
            branches=tuple(built), interaction=tiny.interaction() if branches > 1 else None, maps=None
        ),
        head=config.Classifier(**head),
        classes=CLASSES,
        preprocess=config.Preprocess(long_side=SIDE, short_side=SIDE, pad_multiple=1),
    )


KINDS = [
    {"separate_head": True},
    {"separate_head": True, "prefix_tokens": 0},
    {"separate_head": True, "branches": 1},
    {"separate_head": False},
    {"separate_head": False, "prefix_tokens": 0},
    {"separate_head": False, "branches": 1},
]


def batch(count: int = 2) -> Batch:
    targets = [torch.tensor([0.7, 0.3, 0.0]), torch.tensor([0.0, 0.0, 1.0])][:count]
    sizes = [(SIDE, SIDE)] * count
    return Batch(torch.rand(count, 3, SIDE, SIDE), sizes, sizes, targets, list(range(count)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns(kind):
    model = PIIPModel(model_config(**kind))
    losses = model.loss(batch())
    assert losses.keys() == {"loss_cls"}
    losses["loss_cls"].backward()
    # None: no part of what was computed. (Some gradients are 0 at first: the deformable layers begin so.)
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_predictions_follow_from_the_logits(kind):
    model = PIIPModel(model_config(**kind)).eval()
    data = batch()
    logits = model(data.images)
    assert logits.shape == (2, 3)
    targets = torch.stack(data.targets)
    expected = -(targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(model.loss(data)["loss_cls"], expected)
    predictions = model.predict(data)
    torch.testing.assert_close(torch.stack([p["probs"] for p in predictions]), logits.softmax(dim=1))


def test_separate_heads_read_the_top_left_patch():
    """As the reference does; class tokens only take part in the attention."""
    model = PIIPModel(model_config(separate_head=True)).eval()
    states = model.backbone.states(torch.rand(2, 3, SIDE, SIDE))
    logits = model.head(states)
    parts = zip(states, model.head.logits.norms, model.head.logits.heads, strict=True)
    torch.testing.assert_close(logits, sum(head(norm(state.tokens[:, 0])) for state, norm, head in parts) / 2)
    others = [state._replace(tokens=torch.cat((state.tokens[:, :1], state.tokens[:, 1:] + 1), 1)) for state in states]
    torch.testing.assert_close(model.head(others), logits)


def test_the_merged_head_weighs_the_branches():
    model = PIIPModel(model_config(separate_head=False)).eval()
    states = model.backbone.states(torch.rand(1, 3, SIDE, SIDE))
    before = model.head(states)
    with torch.no_grad():
        model.head.logits.weights[1].zero_()
    other = [states[0], states[1]._replace(tokens=torch.randn_like(states[1].tokens))]
    assert (model.head(states) - before).abs().max() > 1e-4
    torch.testing.assert_close(model.head(states), model.head(other))


def test_any_size_of_image():
    model = PIIPModel(model_config()).eval()
    assert model(torch.rand(1, 3, 80, 48)).shape == (1, 3)


def test_a_classifier_has_no_maps_and_square_images():
    content = model_config().model_dump()
    with pytest.raises(pydantic.ValidationError, match="maps=None"):
        config.Model.model_validate(content | {"backbone": content["backbone"] | {"maps": {}}})
    oblong = content["preprocess"] | {"long_side": 96}
    with pytest.raises(pydantic.ValidationError, match="long_side 96 and short_side 64 must be equal"):
        config.Model.model_validate(content | {"preprocess": oblong})
    narrow = config.Branch(size=64, depth=2, width=48, heads=2, groups=2, windows=None, position_grid=4)
    backbone = config.Backbone(branches=(narrow,), maps=None)
    with pytest.raises(pydantic.ValidationError, match=r"widths \[48\] must be multiples of 32"):
        config.Model.model_validate(content | {"backbone": backbone, "head": config.Classifier(separate_head=False)})
