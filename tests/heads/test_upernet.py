import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from tests import tiny

from piip import config
from piip.backbone.merge import resize
from piip.heads.upernet import UperNetHead
from piip.heads.upernet import labels as label_maps
from piip.heads.upernet.labels import padded_labels, winners
from piip.heads.upernet.windows import window_corners
from piip.model import PIIPModel
from piip.structures import IGNORED, Batch

CLASSES = ("ground", "square", "disc")


def model_config(**head) -> config.Model:
    small = {"channels": 8, "auxiliary_channels": 8}
    return config.Model(
        name="tiny",
        backbone=tiny.backbone(2),
        head=config.UperNet(**(small | head)),
        classes=CLASSES,
        preprocess=config.Preprocess(long_side=64, short_side=64, pad_multiple=32),
    )


def model(**head) -> PIIPModel:
    torch.manual_seed(0)
    return PIIPModel(model_config(**head)).eval()


def maps(batch: int = 2, width: int = 32) -> list[torch.Tensor]:
    return [torch.randn(batch, width, side, side) for side in (16, 8, 4, 2)]


@pytest.mark.parametrize("size", [(512, 683), (512, 512), (300, 200), (1025, 700), (513, 513)])
def test_windows_cover_every_pixel_and_stay_inside(size):
    covered = torch.zeros(size)
    for top, left in window_corners(size, window=512, stride=341):
        bottom, right = top + min(512, size[0]), left + min(512, size[1])
        assert bottom <= size[0]
        assert right <= size[1]
        covered[top:bottom, left:right] += 1
    assert covered.min() == 1 or size != (300, 200)
    assert (covered > 0).all()


def test_windows_larger_than_the_image_are_the_whole_image():
    batch = Batch(torch.randn(1, 3, 64, 96), original_sizes=[(100, 150)])
    whole, sliding = model(), model(window=128)
    sliding.load_state_dict(whole.state_dict())
    with torch.no_grad():
        first = whole.head.probabilities(whole.features, batch)[0]
        second = sliding.head.probabilities(sliding.features, batch)[0]
    assert torch.allclose(first, second, atol=1e-5)


@torch.no_grad()
def test_overlapping_windows_are_averaged():
    net = model(window=64, stride=32)
    image = torch.randn(1, 3, 64, 96)
    (logits,) = net.head.logits(net.features, Batch(image))
    alone = [resize(net.head(net.backbone(image[..., left : left + 64])), (64, 64)) for left in (0, 32)]
    assert torch.allclose(logits[..., :32], alone[0][0][..., :32], atol=1e-5)
    assert torch.allclose(logits[..., 40:60], (alone[0][0][..., 40:60] + alone[1][0][..., 8:28]) / 2, atol=1e-5)
    assert torch.allclose(logits[..., 64:], alone[1][0][..., 32:], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 64])
def test_padding_is_cut_off_before_the_resize_to_the_original(window):
    net = model(window=window)
    image = torch.zeros(1, 3, 64, 64)
    image[:, :, :48, :40] = torch.randn(3, 48, 40)
    batch = Batch(image, [(48, 40)], [(96, 80)])
    (prediction,) = net.predict(batch)
    (probabilities,) = net.head.probabilities(net.features, batch)
    assert prediction.keys() == {"labels", "scores"}
    assert probabilities.shape == (3, 96, 80)
    assert torch.allclose(probabilities.sum(0), torch.ones(96, 80), atol=1e-5)
    scores, best = probabilities.max(dim=0)
    assert torch.equal(prediction["labels"], best)
    assert torch.allclose(prediction["scores"], scores, atol=1e-6)
    (logits,) = net.head.logits(net.features, batch)
    assert logits.shape == (3, 48, 40)


@pytest.mark.parametrize("at_once", [1, 2**26])
def test_winners_need_no_probabilities(monkeypatch, at_once):
    monkeypatch.setattr(label_maps, "WINNERS_AT_ONCE", at_once)
    logits = torch.randn(7, 9, 11) * 3
    found = winners(logits, (20, 31))
    best, labels = resize(logits[None], (20, 31))[0].softmax(dim=0).max(dim=0)
    assert torch.equal(found["labels"], labels)
    assert torch.allclose(found["scores"], best, atol=1e-6)


def test_the_loss_is_a_mean_over_all_pixels_ignored_ones_included():
    head = UperNetHead(config.UperNet(channels=8, auxiliary_channels=8), [32] * 4, 3).eval()
    features = maps()
    labels = torch.randint(0, 3, (2, 64, 64))
    labels[0, :32] = IGNORED
    batch = Batch(torch.zeros(2, 3, 64, 64), [(64, 64)] * 2, [(64, 64)] * 2, list(labels), [0, 1])
    losses = head.loss(features, batch)
    logits = F.interpolate(head(features), (64, 64), mode="bilinear", align_corners=False)
    counted = F.cross_entropy(logits, labels, ignore_index=IGNORED)
    assert losses["loss_seg"].item() == pytest.approx(counted.item() * 0.75, rel=1e-5)
    logits = F.interpolate(head.auxiliary(features[2]), (64, 64), mode="bilinear", align_corners=False)
    counted = F.cross_entropy(logits, labels, ignore_index=IGNORED)
    assert losses["loss_aux"].item() == pytest.approx(0.4 * counted.item() * 0.75, rel=1e-5)


def test_class_weights_weigh_each_pixel():
    plain = config.UperNet(channels=8, auxiliary_channels=None)
    weighted = plain.model_copy(update={"class_weights": (1.0, 2.0, 5.0)})
    heads = [UperNetHead(one, [32] * 4, 3).eval() for one in (plain, weighted)]
    heads[1].load_state_dict(heads[0].state_dict())  # the weights are part of the config, not of the state
    features = maps(1)
    for label, weight in enumerate((1.0, 2.0, 5.0)):
        batch = Batch(torch.zeros(1, 3, 64, 64), [(64, 64)], [(64, 64)], [torch.full((64, 64), label)], [0])
        first, second = (head.loss(features, batch)["loss_seg"].item() for head in heads)
        assert second == pytest.approx(weight * first, rel=1e-5)


def test_labels_are_ignored_where_images_were_padded():
    labels = padded_labels([torch.ones(2, 3, dtype=torch.int16), torch.zeros(4, 4, dtype=torch.int64)], (4, 4))
    assert labels.dtype == torch.int64
    assert labels[0, :2, :3].unique().tolist() == [1]
    assert (labels[0] == IGNORED).sum() == 10
    assert labels[1].unique().tolist() == [0]


def test_every_parameter_learns():
    net = PIIPModel(model_config(dropout=0.0)).train()
    labels = torch.randint(0, 3, (64, 64))
    batch = Batch(torch.randn(2, 3, 64, 64), [(64, 64)] * 2, [(64, 64)] * 2, [labels, labels], [0, 1])
    sum(net.loss(batch).values()).backward()
    without = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    assert without == []


def test_a_single_image_trains_too():
    head = UperNetHead(config.UperNet(channels=8, auxiliary_channels=8), [32] * 4, 3).train()
    batch = Batch(torch.zeros(1, 3, 64, 64), [(64, 64)], [(64, 64)], [torch.zeros(64, 64, dtype=torch.long)], [0])
    sum(head.loss(maps(1), batch).values()).backward()
    pooled_to_one_cell = head.decoder.pools[0][1]
    assert all(parameter.grad.isfinite().all() for parameter in pooled_to_one_cell.parameters())
    assert pooled_to_one_cell[1].num_batches_tracked == 0
    assert head.decoder.pools[1][1][1].num_batches_tracked == 1


def test_without_an_auxiliary_head_there_is_no_auxiliary_loss():
    net = model(auxiliary_channels=None)
    batch = Batch(torch.randn(1, 3, 64, 64), [(64, 64)], [(64, 64)], [torch.zeros(64, 64)], [0])
    assert set(net.loss(batch)) == {"loss_seg"}


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"stride": 100}, "stride 100"),
        ({"window": 64, "stride": 100}, "gaps"),
        ({"class_weights": (1.0, 1.0)}, "2 class_weights for 3 classes"),
        ({"auxiliary_map": 4}, "less than or equal to 3"),
    ],
)
def test_impossible_heads_are_refused(head, message):
    with pytest.raises(ValidationError, match=message):
        model_config(**head)


def test_the_stride_is_two_thirds_of_the_window():
    assert config.UperNet(window=512).window_stride == 341
