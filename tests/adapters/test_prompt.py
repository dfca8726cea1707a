"""Gated prompts worked out query by query, for both kinds of attention."""

import pytest
import torch
from torch import Tensor

from sslaudio.adapters.prompt import Config, build

BATCH = (
    torch.randn(2, 64, 96, generator=torch.Generator().manual_seed(1)),
    torch.tensor([96, 50]),
)


def found_by_hand(attention, query: Tensor) -> Tensor:
    """What each query takes of the prompts, before the gate."""
    prompts, heads = attention.prompts.tokens[0], attention.heads
    weight, bias = attention.qkv.weight, attention.qkv.bias
    _, keys, values = (prompts @ weight.T + bias).chunk(3, dim=1)
    found = torch.zeros_like(query)
    for head in range(heads):
        key, value = (part.chunk(heads, dim=1)[head] for part in (keys, values))
        if hasattr(attention, "norm_k"):
            key, value = attention.norm_k(key), attention.norm_v(value)
        for clip in range(len(query)):
            for number, asked in enumerate(query[clip, head]):
                scores = torch.stack([asked @ one for one in key]) / len(asked) ** 0.5
                share = scores.exp() / scores.exp().sum()
                found[clip, head, number] = share @ value
    return found


@pytest.mark.parametrize("backbone", ["ast", "mast"])
@torch.no_grad()
def test_each_head_adds_its_gates_share_of_what_it_finds(small_encoder, backbone):
    encoder = small_encoder(backbone)
    build(Config(count=3)).adapt(encoder)
    mixed: dict[int, tuple[Tensor, Tensor]] = {}
    for number, block in enumerate(encoder.backbone.blocks):
        gate = torch.nn.init.normal_(block.attn.prompts.gate).tanh()
        attention = block.attn
        attention.prompts.register_forward_hook(
            lambda _, given, out, number=number: mixed.update({number: (given[0], out)})
        )

    encoder.embed(*BATCH)

    assert len(mixed) == len(encoder.backbone.blocks)
    for number, (query, out) in mixed.items():
        attention = encoder.backbone.blocks[number].attn
        gate = attention.prompts.gate.tanh()[:, None, None]
        assert torch.allclose(out, gate * found_by_hand(attention, query), atol=1e-5)


@pytest.mark.parametrize("backbone", ["ast", "mast"])
@torch.no_grad()
def test_what_is_found_goes_through_the_attentions_own_projection(small_encoder, backbone):
    encoder = small_encoder(backbone)
    attention = encoder.backbone.blocks[0].attn
    outs: list[Tensor] = []
    attention.register_forward_hook(lambda *call: outs.append(call[2]))
    encoder.embed(*BATCH)
    build(Config(count=1)).adapt(encoder)
    attention.prompts.gate.fill_(0.5)

    encoder.embed(*BATCH)

    # One prompt: whatever the query, its softmax is 1 and its value is what is found.
    value = (attention.prompts.tokens[0] @ attention.qkv.weight.T + attention.qkv.bias).chunk(3, 1)[
        2
    ]
    if backbone == "mast":
        value = attention.norm_v(value.unflatten(1, (attention.heads, -1))).flatten(1)
    added = torch.tanh(torch.tensor(0.5)) * value @ attention.proj.weight.T
    assert torch.allclose(outs[1] - outs[0], added.expand_as(outs[0]), atol=1e-4)


def test_at_first_the_gates_alone_get_a_gradient(small_encoder):
    encoder = small_encoder("ast")
    build(Config()).adapt(encoder)

    encoder.embed(*BATCH).square().mean().backward()

    for block in encoder.backbone.blocks:
        assert block.attn.prompts.gate.grad.all()
        assert not block.attn.prompts.tokens.grad.any()


@pytest.mark.parametrize("backbone", ["ast", "mast"])
def test_attention_maps_are_those_of_the_clips_own_tokens(small_encoder, backbone):
    encoder = small_encoder(backbone)
    waveforms = 0.1 * torch.randn(2, 16_000)
    plain = encoder.inspect(waveforms).blocks[0].attention
    build(Config()).adapt(encoder)
    for block in encoder.backbone.blocks:
        torch.nn.init.ones_(block.attn.prompts.gate)

    found = encoder.inspect(waveforms).blocks

    assert torch.allclose(found[0].attention, plain, atol=1e-6)
    assert all(torch.allclose(one.attention.sum(3), torch.ones(())) for one in found)
