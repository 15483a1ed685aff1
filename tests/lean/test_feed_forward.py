import pytest
import torch
from timm.layers import Mlp
from torch import Tensor, nn

from piip.lean import situation as module
from piip.lean.feed_forward import can_be_cut, feed_forward


def modules(channels: int = 6, hidden: int = 10, approximate: str = "none") -> tuple[nn.LayerNorm, Mlp, nn.Parameter]:
    norm, mlp = nn.LayerNorm(channels, eps=1e-6), Mlp(channels, hidden, act_layer=lambda: nn.GELU(approximate))
    gamma = nn.Parameter(torch.randn(channels))
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm, mlp, gamma


@pytest.mark.parametrize("tokens", [1, 3, 4, 11])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("scaled", [True, False])
def test_equals_the_modules_in_forward_and_backward(
    tokens: int, approximate: str, scaled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", 4)
    norm, mlp, gamma = modules(approximate=approximate)
    parameters = [*norm.parameters(), *mlp.parameters(), *([gamma] if scaled else [])]

    def plainly(x: Tensor) -> Tensor:
        out = mlp(norm(x))
        return out * gamma if scaled else out

    x, towards = torch.randn(2, tokens, 6), torch.randn(2, tokens, 6)
    results = []
    for path in (plainly, lambda x: feed_forward(x, norm, mlp, gamma if scaled else None)):
        leaf = x.clone().requires_grad_()
        out = path(leaf)
        results.append([out.detach(), *torch.autograd.grad((out * towards).sum(), [leaf, *parameters])])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_gradients_in_float64() -> None:
    norm, mlp, gamma = (part.double() if isinstance(part, nn.Module) else part for part in modules(3, 4))
    scale = nn.Parameter(gamma.detach().double())
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert can_be_cut(norm, mlp, x)
    torch.autograd.gradcheck(lambda x: feed_forward(x, norm, mlp, scale), (x,))


def test_where_it_is_not_for() -> None:
    norm, mlp, _ = modules()
    x = torch.randn(2, 6)
    assert can_be_cut(norm, mlp, x)
    assert not can_be_cut(nn.GroupNorm(1, 6), mlp, x)
    assert not can_be_cut(nn.LayerNorm(6, bias=False), mlp, x)
    assert not can_be_cut(norm, Mlp(6, 10, act_layer=nn.ReLU), x)
    assert not can_be_cut(norm, Mlp(6, 10, bias=False), x)
    assert not can_be_cut(norm, Mlp(6, 10, drop=0.1), x)
    assert can_be_cut(norm, Mlp(6, 10, drop=0.1).eval(), x)
    assert not can_be_cut(norm, mlp, x.bfloat16())
    with torch.no_grad():
        assert not can_be_cut(norm, mlp, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not can_be_cut(norm, mlp, x)
