import pytest
import torch
from timm.layers import PatchEmbed

from piip.backbone.vit import ResizedPositions
from piip.lean.embedding import LeanPatchEmbed, LeanPositions


@pytest.mark.parametrize("size", [(3, 5), (14, 7), (1, 1), (33, 40), (7, 7)])
def test_positions_resized_by_products_are_those_of_the_plain_resize(size: tuple[int, int]) -> None:
    stored = torch.randn(1, 49, 6)
    expected = ResizedPositions()(stored, size)
    torch.testing.assert_close(LeanPositions()(stored, size), expected, atol=1e-5, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = LeanPositions()(stored, size)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_patches_cut_by_a_product_are_those_of_the_convolution(bias: bool) -> None:
    plain = PatchEmbed(img_size=None, patch_size=4, embed_dim=6, bias=bias)
    lean = LeanPatchEmbed(img_size=None, patch_size=4, embed_dim=6, bias=bias)
    lean.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 12, 20)
    torch.testing.assert_close(lean(images), plain(images), atol=1e-5, rtol=1e-4)
