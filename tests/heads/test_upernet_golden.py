"""UperNet against the official code's outputs: features, logits, losses and sliding-window probabilities."""

import pytest
import torch
from tests.weights.golden import Golden

from piip.structures import IGNORED, Batch
from piip.weights import opengvlab

NAMES = ("upernet_internvit_mini", "upernet_h6b_mini")
SIDE = 512


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_outputs_are_those_of_the_official_code(goldens, name):
    golden = Golden(goldens, name)
    model = opengvlab.load(golden.spec, golden.state_dict())
    image = golden.image()
    crop = image[:, :, :SIDE, :SIDE]
    features = model.backbone(crop)
    for i, feature in enumerate(features):
        golden.assert_close(f"feat{i}", feature)
    golden.assert_close("decode", model.head(features))
    golden.assert_close("aux", model.head.auxiliary(features[2]))

    labels = torch.from_numpy(golden.recipe._rng(f"labels:{name}").integers(0, 150, (1, 1, SIDE, SIDE)))[0, 0]
    labels[:20] = IGNORED  # the golden writes 255
    losses = model.head.loss(features, Batch(crop, [(SIDE, SIDE)], [(SIDE, SIDE)], [labels], [0]))
    assert losses["loss_seg"].item() == pytest.approx(golden.expected["loss_decode"].item(), rel=1e-4)
    assert losses["loss_aux"].item() == pytest.approx(golden.expected["loss_aux"].item(), rel=1e-4)

    (prediction,) = model.predict(Batch(image))
    (probabilities,) = model.head.probabilities(model.features, Batch(image))
    golden.assert_close("slide_prob", probabilities[None])
    first, second = probabilities.topk(2, dim=0).values
    assert (prediction["scores"] - first).abs().max() < 1e-5
    clear = first - second > 3e-4
    assert clear.float().mean() > 0.8
    assert torch.equal(prediction["labels"][clear], golden.expected["slide_argmax"][0][clear].long())


@pytest.mark.parametrize("name", [NAMES[0], pytest.param(NAMES[1], marks=pytest.mark.slow)])
def test_the_official_names_come_back(goldens, name):
    golden = Golden(goldens, name)
    weights = golden.state_dict()
    model = opengvlab.load(golden.spec, weights)
    back = opengvlab.to_official(model)
    assert set(back) == set(golden.spec["state_dict"])
    assert all(torch.equal(back[key], tensor) for key, tensor in weights.items())


def test_a_missing_weight_is_named(goldens):
    golden = Golden(goldens, NAMES[0])
    weights = golden.state_dict()
    del weights["decode_head.bottleneck.conv.weight"]
    with pytest.raises(ValueError, match=r"decode_head\.bottleneck\.conv\.weight"):
        opengvlab.load(golden.spec, weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "PSPHead"}, "PSPHead"),
        ({"align_corners": True}, "align_corners"),
        ({"in_index": [3, 2, 1, 0]}, "in order"),
    ],
)
def test_other_official_heads_are_refused(goldens, change, message):
    golden = Golden(goldens, NAMES[0])
    official = golden.spec["model"]
    official = {**official, "decode_head": {**official["decode_head"], **change}}
    with pytest.raises(ValueError, match=message):
        opengvlab.model_config(official)
