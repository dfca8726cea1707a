"""The attentive head, worked out by hand, and what it leaves out."""

import pytest
import torch
from torch import Tensor

from sslaudio.adapters.attentive import AttentivePool, Config, build
from sslaudio.backbones.base import Grid, Tokens


def tokens(patches: Tensor, sound: Tensor | None = None) -> Tokens:
    clips, count, dim = patches.shape
    if sound is None:
        sound = torch.ones(clips, count, dtype=torch.bool)
    return Tokens(patches, Grid(1, count), sound, patches.new_zeros(clips, 0, dim))


def lively(dim: int = 6, heads: int = 2, classes: int = 3) -> AttentivePool:
    torch.manual_seed(0)
    head = AttentivePool(dim, heads, classes)
    for weight in head.parameters():
        torch.nn.init.normal_(weight)
    return head.requires_grad_(False)


def test_scores_are_those_worked_out_head_by_head():
    head, patches = lively(), torch.randn(2, 5, 6)

    scores = head(tokens(patches))

    for clip in range(2):
        normed = [
            (patch - patch.mean()) / (patch.var(unbiased=False) + 1e-5).sqrt()
            for patch in patches[clip]
        ]
        found = []
        for number in range(2):
            asked = torch.stack([patch @ head.query[number] / 6**0.5 for patch in normed])
            share = asked.exp() / asked.exp().sum()
            rows = slice(3 * number, 3 * number + 3)
            weight, bias = head.value.weight[rows], head.value.bias[rows]
            values = [weight @ patch + bias for patch in normed]
            found.append(sum(part * value for part, value in zip(share, values, strict=True)))
        expected = head.head.weight @ torch.cat(found) + head.head.bias
        assert torch.allclose(scores[clip], expected, atol=1e-5)


def test_padding_and_filled_up_patches_are_not_looked_at():
    head, patches = lively(), torch.randn(1, 4, 6)
    alone = head(tokens(patches))
    beside = torch.cat([patches, 1e4 * torch.ones(1, 3, 6)], dim=1)

    padded = head(tokens(beside, torch.tensor([[True] * 4 + [False] * 3])))

    assert torch.allclose(padded, alone, atol=1e-6)


@pytest.mark.parametrize("name", ["ast", "mast"])
@pytest.mark.parametrize("pooled_block", [None, 2])
def test_a_clip_scores_alone_as_in_any_batch(small_encoder, name, pooled_block):
    encoder = small_encoder(name, pooled_block)
    adapter = build(Config())
    adapter.adapt(encoder)
    head = adapter.head(encoder, classes=5)
    torch.nn.init.normal_(head.query)
    frames = torch.tensor([300, 41])  # the first is cut into windows
    mel = torch.randn(2, 64, 300).masked_fill(torch.arange(300) >= frames[:, None, None], 0.0)

    together = head(encoder.tokens(mel, frames))

    for clip, length in enumerate(frames.tolist()):
        alone = head(encoder.tokens(mel[clip : clip + 1, :, :length], frames[clip : clip + 1]))
        assert torch.allclose(together[clip], alone[0], atol=1e-5)


def test_only_the_head_gets_gradients(small_encoder):
    encoder = small_encoder("ast")
    adapter = build(Config())
    adapter.adapt(encoder)
    head = adapter.head(encoder, classes=5)

    with torch.autocast("cpu", torch.bfloat16):
        scores = head(encoder.tokens(torch.randn(2, 64, 96), torch.tensor([96, 50])))
    scores.float().logsumexp(dim=1).sum().backward()

    assert all(weight.grad is not None and weight.grad.any() for weight in head.parameters())
    assert all(weight.grad is None for weight in encoder.parameters())


def test_it_finds_the_one_patch_that_tells():
    torch.manual_seed(0)
    patches, place = torch.randn(512, 20, 16), torch.randint(20, (512,))
    sign = torch.randint(2, (512, 20))
    patches[:, :, 1] = 3.0 * (2 * sign - 1)  # every patch has an answer ...
    patches[torch.arange(512), place, 0] = 6.0  # ... and this one's is right
    targets = sign[torch.arange(512), place]
    head = AttentivePool(16, 2, 2)
    optimiser = torch.optim.AdamW(head.parameters(), lr=0.02)

    for _ in range(200):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(head(tokens(patches[:256])), targets[:256]).backward()
        optimiser.step()

    right = head(tokens(patches[256:])).argmax(dim=1) == targets[256:]
    assert right.float().mean() > 0.95  # a vote of all patches: 0.6


def test_heads_that_cannot_share_the_dim_are_refused():
    with pytest.raises(ValueError, match=r"adapter.heads is 4.*a dim of 6.*divisor"):
        AttentivePool(6, 4, 2)
