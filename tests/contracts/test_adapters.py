"""Every adapter plug-in keeps the room's promises (sslaudio/adapters/base.py), on backbones."""

from dataclasses import is_dataclass

import pytest
import torch
from torch import Tensor

from sslaudio import plugins
from sslaudio.adapters.base import Adapter
from sslaudio.backbones.encoder import Encoder

POOLED = 2
BACKBONES = [("ast", None), ("ast", POOLED), ("mast", None), ("mast", POOLED)]


def pictures(*lengths: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mel = torch.randn(len(lengths), 64, max(lengths), generator=generator)
    frames = torch.tensor(lengths)
    return mel.masked_fill(torch.arange(max(lengths)) >= frames[:, None, None], 0.0), frames


BATCH = pictures(96, 96, 41)


@pytest.fixture(params=plugins.names("adapters"))
def name(request) -> str:
    return request.param


@pytest.fixture
def adapter(name: str) -> Adapter:
    module = plugins.load("adapters", name)
    assert is_dataclass(module.Config)
    return module.build(module.Config())


@pytest.fixture(params=BACKBONES, ids=lambda made: f"{made[0]}-{made[1] or 'all'}")
def make(request, small_encoder):
    return lambda: small_encoder(*request.param)


def learning(encoder: Encoder) -> dict[str, Tensor]:
    """What a saved adapter run holds."""
    return {
        name: weight.detach().clone()
        for name, weight in encoder.backbone.named_parameters()
        if weight.requires_grad
    }


def embed(encoder: Encoder, batch: tuple[Tensor, Tensor] = BATCH) -> Tensor:
    with torch.no_grad():
        return encoder.embed(*batch)


def train(encoder: Encoder, steps: int) -> None:
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    optimiser = torch.optim.SGD(weights, lr=0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        encoder.embed(*BATCH).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()


def test_the_encoder_starts_as_it_was(adapter, make):
    encoder = make()
    before = embed(encoder)

    adapter.adapt(encoder)

    assert isinstance(adapter, Adapter)
    assert torch.allclose(embed(encoder), before, atol=1e-6)


def test_what_learns_is_what_it_says_and_what_the_embedding_depends_on(adapter, make):
    encoder = make()
    adapter.adapt(encoder)

    found = {name for name, weight in encoder.named_parameters() if weight.requires_grad}

    assert bool(found) == (adapter.trains == "encoder")
    assert found <= {name for name, _ in encoder.embedding_weights()}
    assert adapter.trains in ("nothing", "head", "encoder")
    assert all(adapter.rate_share(name, encoder) > 0 for name in found)


def test_few_weights_learn_but_in_full(name, adapter, make):
    encoder = make()
    of_all = sum(weight.numel() for weight in encoder.backbone.parameters())
    adapter.adapt(encoder)

    count = sum(weight.numel() for weight in learning(encoder).values())

    if name == "full":
        assert count == sum(weight.numel() for _, weight in encoder.embedding_weights())
    else:
        assert count < 0.05 * of_all


def test_a_step_changes_the_embedding_and_nothing_that_is_frozen(adapter, make):
    encoder = make()
    adapter.adapt(encoder)
    if adapter.trains != "encoder":
        assert not encoder.embed(*BATCH).requires_grad
        return
    before = embed(encoder)
    state = {key: value.clone() for key, value in encoder.state_dict().items()}
    learns = {f"backbone.{key}" for key in learning(encoder)}

    train(encoder, steps=1)

    assert not torch.allclose(embed(encoder), before, atol=1e-4)
    changed = {key for key, value in encoder.state_dict().items() if not value.equal(state[key])}
    assert changed and changed <= learns


def test_every_weight_that_learns_gets_a_gradient_by_the_second_step(adapter, make):
    encoder = make()
    adapter.adapt(encoder)
    if adapter.trains != "encoder":
        pytest.skip("nothing in the encoder learns")

    train(encoder, steps=2)

    for name, weight in encoder.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None and weight.grad.any(), name


def test_what_it_learned_fills_a_base_that_is_adapted_anew(adapter, make):
    trained, other = make(), make()
    adapter.adapt(trained)
    if adapter.trains == "encoder":
        train(trained, steps=2)
    saved = learning(trained)

    torch.manual_seed(7)
    adapter.adapt(other)
    weights = dict(other.backbone.named_parameters())
    assert {name for name, weight in weights.items() if weight.requires_grad} == set(saved)
    with torch.no_grad():
        for name, value in saved.items():
            weights[name].copy_(value)

    assert torch.equal(embed(other), embed(trained))


def test_it_starts_alike_from_the_same_seed(adapter, make):
    starts = []
    for _ in range(2):
        encoder = make()
        torch.manual_seed(3)
        adapter.adapt(encoder)
        starts.append(learning(encoder))

    assert starts[0].keys() == starts[1].keys()
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])


def test_merged_it_is_plain_and_answers_the_same_or_it_refuses(name, adapter, make):
    encoder, plain = make(), make()
    adapter.adapt(encoder)
    if adapter.trains == "encoder":
        train(encoder, steps=3)
    if not adapter.merges:
        with pytest.raises(ValueError, match=rf"{name} cannot be merged.*lora"):
            adapter.merge(encoder)
        return
    before = embed(encoder)

    adapter.merge(encoder)

    assert torch.allclose(embed(encoder), before, atol=1e-5)
    plain.backbone.load_state_dict(encoder.backbone.state_dict())
    assert torch.equal(embed(plain), embed(encoder))
    adapter.adapt(encoder)  # and may be adapted again
    assert torch.allclose(embed(encoder), before, atol=1e-5)


def test_a_clip_is_embedded_alone_as_in_any_batch(adapter, make):
    encoder = make()
    adapter.adapt(encoder)
    if adapter.trains == "encoder":
        train(encoder, steps=3)

    together = embed(encoder)

    mel, frames = BATCH
    alone = embed(encoder, (mel[2:, :, :41], frames[2:]))
    assert torch.allclose(together[2:], alone, atol=1e-5)


def test_in_bfloat16_it_learns_what_it_would_in_float32(adapter, make):
    encoder = make()
    adapter.adapt(encoder)
    if adapter.trains == "encoder":
        train(encoder, steps=1)
    exact = embed(encoder)

    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder.embed(*BATCH)

    assert ((rough.detach() - exact).norm(dim=1) < 3e-2 * exact.norm(dim=1)).all()
    if adapter.trains == "encoder":
        rough.square().mean().backward()
        gradients = [w.grad for w in encoder.parameters() if w.requires_grad]
        assert all(g is not None and torch.isfinite(g).all() for g in gradients)
