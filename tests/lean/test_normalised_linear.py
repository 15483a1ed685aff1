import pytest
import torch
from torch import Tensor, nn

from piip.lean import situation as module
from piip.lean.normalised_linear import normalised_linear
from piip.lean.situation import recomputes


def modules(channels: int = 6) -> tuple[nn.LayerNorm, list[nn.Linear]]:
    norm = nn.LayerNorm(channels, eps=1e-6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm, [nn.Linear(channels, 5), nn.Linear(channels, 2)]


@pytest.mark.parametrize("tokens", [1, 3, 4, 11])
@pytest.mark.parametrize("count", [1, 2])
def test_equals_the_modules_in_forward_and_backward(tokens: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", 4)
    norm, layers = modules()
    layers = layers[:count]
    parameters = [*norm.parameters(), *(p for layer in layers for p in layer.parameters())]
    x = torch.randn(2, tokens, 6)
    results = []
    for path in (lambda x: [layer(norm(x)) for layer in layers], lambda x: normalised_linear(norm, layers, x)):
        leaf = x.clone().requires_grad_()
        outs = path(leaf)
        loss = sum((out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum() for out in outs)
        results.append([*(out.detach() for out in outs), *torch.autograd.grad(loss, [leaf, *parameters])])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_gradients_in_float64() -> None:
    norm, layers = modules(3)
    norm, layer = norm.double(), layers[0].double()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x: normalised_linear(norm, [layer], x), (x,))


def saved(norm: nn.Module, layer: nn.Module, x: Tensor) -> int:
    """Numbers that autograd keeps beside parameters and x itself."""
    known = {tensor.data_ptr() for tensor in (x, *norm.parameters(), *layer.parameters())}
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(0 if tensor.data_ptr() in known or tensor.shape == layer.weight.shape else tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        normalised_linear(norm, [layer], x)
    return sum(kept)


def test_the_normalised_tokens_are_not_kept() -> None:
    norm, (layer, _) = modules()
    x = torch.randn(100, 6, requires_grad=True)
    assert saved(norm, layer, x) == 0
    with torch.autocast("cpu", enabled=True, dtype=torch.bfloat16):  # where the modules run as they are
        assert saved(norm, layer, x) >= x.numel()


def test_where_the_modules_run_as_they_are() -> None:
    layers = modules()[1]
    x = torch.randn(2, 6)
    assert recomputes(x)
    assert not recomputes(x.bfloat16())
    assert not recomputes(torch.empty(2, 6, device="meta"))
    with torch.no_grad():
        assert not recomputes(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not recomputes(x)
    for other in (nn.Identity(), nn.LayerNorm(6, bias=False), nn.GroupNorm(1, 6)):
        for layer in (layers[0], nn.Linear(6, 4, bias=False), nn.Identity()):
            (out,) = normalised_linear(other, [layer], x)
            assert torch.equal(out, layer(other(x)))
