"""What each adapter lets learn by its settings; bad settings name their key."""

import pytest
import torch

from sslaudio.adapters import attentive, bitfit, bottleneck, lora, prompt
from sslaudio.adapters.bottleneck import Squeeze

BATCH = (
    torch.randn(2, 64, 96, generator=torch.Generator().manual_seed(1)),
    torch.tensor([96, 96]),
)


def learning(encoder) -> set[str]:
    return {name for name, weight in encoder.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("backbone", ["ast", "mast"])
def test_bitfit_lets_every_bias_learn_and_gains_if_asked(small_encoder, backbone):
    encoder = small_encoder(backbone)
    biases = {name for name, _ in encoder.named_parameters() if name.endswith(".bias")}
    gains = {name.replace(".bias", ".weight") for name in biases if "norm" in name}

    bitfit.build(bitfit.Config()).adapt(encoder)
    assert learning(encoder) == biases

    bitfit.build(bitfit.Config(norm_gains=True)).adapt(encoder)
    assert learning(encoder) == biases | gains


@pytest.mark.parametrize("backbone", ["ast", "mast"])
def test_bottlenecks_leave_the_norms_if_asked(small_encoder, backbone):
    encoder = small_encoder(backbone)
    norms = {name for name, _ in encoder.named_parameters() if "norm" in name}
    bottleneck.build(bottleneck.Config(norms=True)).adapt(encoder)
    with_norms = learning(encoder)
    bottleneck.build(bottleneck.Config(norms=False)).adapt(encoder)

    assert with_norms - learning(encoder) == norms
    assert {name.split(".")[-3] for name in learning(encoder)} == {"after_attn", "after_mlp"}


@torch.no_grad()
def test_a_squeeze_adds_what_comes_back_up():
    squeeze, token = Squeeze(2, 1), torch.tensor([3.0, -1.0])
    squeeze.down.weight.copy_(torch.tensor([[1.0, 2.0]]))
    squeeze.down.bias.fill_(1.0)
    squeeze.up.weight.copy_(torch.tensor([[2.0], [-1.0]]))

    # Down: 3 - 2 + 1 = 2; gelu(2) = 1.9545; up: 3.9090 and -1.9545.
    assert torch.allclose(squeeze(token), torch.tensor([6.9090, -2.9545]), atol=1e-4)


@torch.no_grad()
def test_squeezes_sit_before_the_sums(small_encoder):
    encoder = small_encoder("ast")
    bottleneck.build(bottleneck.Config()).adapt(encoder)
    block, tokens = encoder.backbone.blocks[0], torch.randn(2, 7, 128)
    for squeeze in (block.after_attn, block.after_mlp):
        torch.nn.init.normal_(squeeze.up.weight)

    attended = tokens + block.after_attn(block.attn(block.norm1(tokens)))
    expected = attended + block.after_mlp(block.mlp(block.norm2(attended)))

    assert torch.allclose(block(tokens), expected)


@pytest.mark.parametrize(
    ("module", "settings", "said"),
    [
        (lora, {"rank": 0}, r"adapter.rank is 0; it is at least 1"),
        (lora, {"alpha": 0}, r"adapter.alpha is 0"),
        (lora, {"dropout": 1.0}, r"adapter.dropout is 1; .*under 1"),
        (lora, {"targets": ()}, r"adapter.targets is empty; choose.*qkv, proj, fc1, fc2"),
        (bottleneck, {"dim": 0}, r"adapter.dim is 0"),
        (prompt, {"count": 0}, r"adapter.count is 0"),
        (attentive, {"heads": 0}, r"adapter.heads is 0"),
    ],
)
def test_a_setting_that_cannot_be_names_its_key(module, settings, said):
    with pytest.raises(ValueError, match=said):
        module.Config(**settings)
