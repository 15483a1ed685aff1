"""Where queries look, drawn onto the image without its padding."""

import numpy as np
import torch

from piip.pictures.contributions import Look, draw_contributions


def test_padding_moves_nothing() -> None:
    image = np.zeros((80, 160, 3), np.uint8)
    shares = torch.full((2, 80, 160), 0.5)
    points, weights = torch.rand(32, 5, 2, generator=torch.Generator().manual_seed(0)), torch.ones(32, 5)
    alone = Look("a look", points[:16], weights[:16], (4, 4))
    inside = points * torch.tensor([1.0, 0.5])  # the same places, where as much padding lies below the image
    padded = Look("a look", inside, weights, (8, 4), (0.5, 1.0))
    one, other = (draw_contributions(image, shares, ("a", "b"), [look]) for look in (alone, padded))
    assert np.array_equal(one, other)
    assert len(np.unique(one[one.shape[0] // 2 :].reshape(-1, 3), axis=0)) > 9
