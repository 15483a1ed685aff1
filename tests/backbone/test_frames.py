"""Branches with different views of a photo: places agree, twins agree, gradients flow."""

import copy
from typing import Any

import pytest
import torch
from tests import tiny
from tests.inference.test_twins import BACKBONES, build, predicting, trained
from torch import Tensor

from piip.backbone import PIIPBackbone
from piip.backbone.frames import between, placed, under
from piip.backbone.interaction import DeformableCrossAttention
from piip.backbone.merge import resize
from piip.ops.deformable_attention import cell_centres
from piip.structures import Size, View

FRAMES = torch.tensor([[[0.5, 0.4], [0.1, 0.3]], [[0.25, 0.25], [0.7, 0.0]]])
"""of two images: scale and shift, (x, y)"""
OTHERS = torch.tensor([[[0.2, 0.2], [0.5, 0.05]], [[1.0, 1.0], [0.0, 0.0]]])
SAME = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).repeat(2, 1, 1)


def views(*frames: Tensor | None, size: Size = (128, 128)) -> list[View | None]:
    torch.manual_seed(1)
    return [None if frame is None else View(torch.randn(2, 3, *size), frame) for frame in frames]


def places_in(frame: Tensor | None, size: Size) -> Tensor:
    """[2, H*W, 2]: where in the own images the cells of a view's grid lie."""
    centres = cell_centres(size, torch.device("cpu"))
    return centres.repeat(2, 1, 1) if frame is None else (centres - frame[:, 1:]) / frame[:, :1]


@pytest.mark.parametrize(("receiver", "source"), [(None, FRAMES), (FRAMES, None), (FRAMES, OTHERS)])
def test_deformable_attention_reads_the_place_that_a_query_is_at(receiver: Any, source: Any) -> None:
    """Without offsets, of a source that holds the places that its cells show, a query reads its own."""
    size, source_size = (9, 13), (80, 60)
    attention = DeformableCrossAttention(4, 4, tiny.interaction(heads=2, value_ratio=0.5, points=1))
    torch.nn.init.zeros_(attention.sampling_offsets.bias)
    values = places_in(source, source_size)
    offsets, logits = torch.zeros(2, 9 * 13, 4), torch.zeros(2, 9 * 13, 2)
    read = attention.mix(values, offsets, logits, size, source_size, between(receiver, source))
    wanted = places_in(receiver, size)
    inside = placed(cell_centres(size, torch.device("cpu")), between(receiver, source))
    within = ((inside > 0.02) & (inside < 0.98)).all(dim=-1)
    assert within.sum() > 20
    torch.testing.assert_close(read[within], wanted[within], atol=1e-4, rtol=0)
    beyond = ((inside < -0.02) | (inside > 1.02)).any(dim=-1)
    assert receiver is None or beyond.any()
    assert (read[beyond] == 0).all()


def test_the_merge_reads_what_is_under_the_tile() -> None:
    places = places_in(FRAMES, (80, 60)).transpose(1, 2).unflatten(2, (80, 60))
    read = under(places, FRAMES, (12, 10)).flatten(2).transpose(1, 2)
    own = places_in(None, (12, 10))
    shown = placed(cell_centres((12, 10), torch.device("cpu")), FRAMES)
    within = ((shown > 0.01) & (shown < 0.99)).all(dim=-1)
    torch.testing.assert_close(read[within], own[within], atol=1e-4, rtol=0)


def test_a_view_that_shows_the_tile_is_resized_as_ever() -> None:
    coarse = torch.randn(2, 8, 5, 7)
    torch.testing.assert_close(under(coarse, SAME, (11, 9)), resize(coarse, (11, 9)), atol=1e-5, rtol=0)
    assert between(FRAMES, FRAMES) is None
    assert torch.equal(between(FRAMES, FRAMES.clone()), SAME)


def test_views_of_the_tile_itself_change_nothing_but_rounding() -> None:
    module, images = build(tiny.backbone(3)), torch.randn(2, 3, 128, 128)
    own = View(images, SAME)
    with torch.no_grad():
        plain, none, same = module(images), module(images, [None] * 3), module(images, [None, own, own])
    assert all(map(torch.equal, plain, none))
    for one, other in zip(same, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * other.std().item(), rtol=0)


@pytest.mark.parametrize("name", ["three branches", "cross attention", "convnexts"])
def test_twins_see_the_same_as_the_plain_modules(name: str) -> None:
    from piip import zoo

    usual = zoo.entry("piip_nano_upernet").config().backbone if name == "convnexts" else BACKBONES[name]
    module, images = build(usual), torch.randn(2, 3, 128, 128)
    seen = views(None, FRAMES, OTHERS)[: len(usual.branches)]
    with torch.no_grad():
        expected, fast, without = module(images, seen), predicting(module)(images, seen), module(images)
    learned = trained(module)(images, seen)
    for one, other, plain, unseen in zip(fast, learned, expected, without, strict=True):
        scale = plain.std().item()
        torch.testing.assert_close(one, plain, atol=1e-4 * scale, rtol=0)
        torch.testing.assert_close(other, plain, atol=1e-4 * scale, rtol=0)
        assert (plain - unseen).abs().max() > 0.1 * scale


def test_images_of_a_batch_have_frames_of_their_own() -> None:
    module, images = build(tiny.backbone(3)), torch.randn(2, 3, 128, 128)
    seen = views(None, FRAMES, OTHERS)
    with torch.no_grad():
        both = module(images, seen)
        for image in range(2):
            one = [view and View(view.images[image, None], view.frame[image, None]) for view in seen]
            for level, alone in zip(both, module(images[image, None], one), strict=True):
                torch.testing.assert_close(level[image], alone[0], atol=1e-4 * level.std().item(), rtol=0)


def gradients(module: PIIPBackbone, images: Tensor, seen: list[View | None]) -> dict[str, Tensor]:
    module.zero_grad()
    sum(level.square().mean() for level in module(images, seen)).backward()
    return {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}


def test_every_weight_learns_and_twins_learn_the_same() -> None:
    module, images = build(tiny.backbone(3)), torch.randn(2, 3, 128, 128)
    seen = views(None, FRAMES, OTHERS)
    expected, without = gradients(module, images, seen), gradients(copy.deepcopy(module), images, [])
    assert expected.keys() == without.keys()
    assert all(gradient.abs().max() > 0 for name, gradient in expected.items() if without[name].abs().max() > 0)
    fast = gradients(trained(module), images, seen)
    module.set_checkpointing(True)
    again = gradients(module.train(), images, seen)
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(fast[name], gradient, atol=1e-4 * largest, rtol=0)
        torch.testing.assert_close(again[name], gradient, atol=1e-4 * largest, rtol=0)
