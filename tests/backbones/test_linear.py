"""Linear maps by torch's other library are the same maps."""

import pytest
import torch

from sslaudio.backbones import linear as linears
from sslaudio.backbones.linear import Linear, linear


@pytest.mark.parametrize("shape", [(3, 24), (2, 5, 24), (2, 3, 4, 24), (0, 24)])
@pytest.mark.parametrize("biased", [True, False])
def test_a_map_and_its_gradients_are_torchs(monkeypatch, shape, biased):
    monkeypatch.setattr(linears, "AMD_WITH_AVX512", True)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(shape, generator=generator)
    weight, bias = torch.randn(10, 24, generator=generator), torch.randn(10, generator=generator)

    def run(work):
        parts = [part.clone().requires_grad_() for part in (tokens, weight, bias)]
        mapped = work(parts[0], parts[1], parts[2] if biased else None)
        mapped.square().sum().backward()
        return [mapped, *(part.grad for part in parts[: 2 + biased])]

    for ours, theirs in zip(run(linear), run(torch.nn.functional.linear), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_autocast_and_other_precisions_are_torchs_own(monkeypatch):
    monkeypatch.setattr(linears, "AMD_WITH_AVX512", True)
    layer, tokens = Linear(24, 10), torch.randn(3, 24)

    with torch.autocast("cpu", torch.bfloat16):
        inside = layer(tokens)

    assert inside.dtype == torch.bfloat16
    assert layer.double()(tokens.double()).dtype == torch.float64


def test_a_strided_view_is_mapped_as_its_copy(monkeypatch):
    monkeypatch.setattr(linears, "AMD_WITH_AVX512", True)
    layer, tokens = Linear(24, 10), torch.randn(24, 4, 6).permute(1, 2, 0)

    assert torch.allclose(layer(tokens), layer(tokens.contiguous()), atol=1e-5)
