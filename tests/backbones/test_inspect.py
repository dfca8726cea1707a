"""Looking inside an encoder: states, maps, and where tokens lie, for every backbone."""

import math

import pytest
import torch

from sslaudio.backbones import ast, blocks, mast, pooling_attention
from sslaudio.backbones.attention import weights
from sslaudio.backbones.base import Grid
from sslaudio.backbones.encoder import Encoder
from sslaudio.backbones.inspect import inspect
from sslaudio.features.front_end import Config as Features
from sslaudio.features.front_end import FrontEnd

BACKBONES = {"ast": ast, "mast": mast}
LENGTHS = torch.tensor([16_000, 7_000, 1_600])


def encoder(name: str, features: Features | None = None, **settings) -> Encoder:
    torch.manual_seed(0)
    module = BACKBONES[name]
    front_end = FrontEnd(features or Features(), -5.0, 4.0)
    backbone = module.build(module.Config(**settings), front_end.config.bins, 96)
    for part, weight in backbone.named_parameters():
        norm = "norm" in part and part.endswith("weight")
        torch.nn.init.normal_(weight, mean=float(norm), std=0.1)
    return Encoder(front_end, backbone, ("mean",), None, 96).eval()


@pytest.fixture(scope="module", params=BACKBONES)
def model(request) -> Encoder:
    return encoder(request.param)


@pytest.fixture(scope="module")
def waveforms() -> torch.Tensor:
    return 0.1 * torch.randn(3, 16_000, generator=torch.Generator().manual_seed(2))


@torch.inference_mode()
def test_states_are_what_a_shallower_model_gives(model, waveforms):
    found = model.inspect(waveforms, lengths=LENGTHS)

    assert len(found.blocks) == len(model.backbone.blocks)
    for depth, block in enumerate(found.blocks, start=1):
        tokens = model.backbone(found.pictures, found.frames, depth=depth)
        assert torch.allclose(block.tokens.patches, tokens.patches, atol=1e-5)
        assert torch.allclose(block.tokens.prefix, tokens.prefix, atol=1e-5)
        assert torch.equal(block.tokens.sound, tokens.sound)
        assert block.tokens.grid == block.queries.grid == tokens.grid
    last = model.backbone(found.pictures, found.frames)
    assert torch.allclose(found.tokens.patches, last.patches, atol=1e-5)


def test_maps_share_one_among_the_keys_that_sound(model, waveforms):
    found = model.inspect(waveforms, lengths=LENGTHS)

    for depth, block in enumerate(found.blocks):
        prefix, grid = block.tokens.prefix.shape[1], block.keys.grid
        _, _, queries, keys = block.attention.shape
        assert queries == prefix + block.queries.grid.rows * block.queries.grid.columns
        assert keys == prefix + grid.rows * grid.columns
        assert torch.allclose(block.attention.sum(3), torch.ones(()), atol=1e-5)
        # A pooled key is sound where its clip alone would have it.
        stride = model.backbone.blocks[depth].attn.key_stride
        own = -(-model.backbone.columns(found.frames, depth) // stride)
        padding = torch.arange(grid.columns).repeat(grid.rows) >= own[:, None]
        of_padding = block.attention[..., prefix:].transpose(1, 3)[padding]
        assert padding.any() and not of_padding.any()
        assert (block.attention[..., prefix:].transpose(1, 3)[~padding] > 0).all()


def test_maps_are_what_the_values_are_mixed_by(model, waveforms, monkeypatch):
    expected = model(waveforms, lengths=LENGTHS)
    for module in (blocks, pooling_attention):
        monkeypatch.setattr(
            module,
            "attend",
            lambda query, key, value, *rest: weights(query, key, *rest) @ value,
        )

    assert torch.allclose(model(waveforms, lengths=LENGTHS), expected, atol=1e-4)


def hertz_of_bin(bin_: float) -> float:
    """Peak of Kaldi's mel band, 128 of them from 20 to 8,000 Hz."""
    low, high = (1127 * math.log(1 + edge / 700) for edge in (20, 8_000))
    return 700 * (math.exp((low + (bin_ + 1) * (high - low) / 129) / 1127) - 1)


def test_ast_tokens_lie_in_the_middle_of_their_patches(waveforms):
    found = encoder("ast").inspect(waveforms)

    for block in found.blocks:
        assert block.queries.grid == block.keys.grid == Grid(8, 7)
        # A window of 25 ms every 10 ms: frames 0 to 15 are centred on 12.5 to 162.5 ms.
        assert block.queries.seconds.tolist() == pytest.approx(
            [0.0875 + 0.16 * column for column in range(7)]
        )
        assert block.queries.hertz is not None
        between = (hertz_of_bin(7) + hertz_of_bin(8)) / 2
        assert block.queries.hertz[0].item() == pytest.approx(between, rel=1e-4)


def test_mast_tokens_lie_where_their_convolutions_are_centred(waveforms):
    found = encoder("mast").inspect(waveforms)

    first, second, last = found.blocks[0], found.blocks[1], found.blocks[-1]
    # The stem's kernels are centred on every fourth frame and bin; keys are every fourth of these.
    assert (first.queries.grid, first.keys.grid) == (Grid(32, 25), Grid(8, 7))
    assert first.queries.seconds[:3].tolist() == pytest.approx([0.0125, 0.0525, 0.0925])
    assert first.keys.seconds[:3].tolist() == pytest.approx([0.0125, 0.1725, 0.3325])
    # The second block pools queries and keys alike, by 2.
    assert (second.queries.grid, second.keys.grid) == (Grid(16, 13), Grid(16, 13))
    assert second.keys.seconds[:2].tolist() == pytest.approx([0.0125, 0.0925])
    assert (last.queries.grid, last.keys.grid) == (Grid(4, 4), Grid(8, 7))
    assert last.queries.seconds.tolist() == pytest.approx([0.0125, 0.3325, 0.6525, 0.9725])
    assert last.queries.hertz is not None
    assert last.queries.hertz.tolist() == pytest.approx(
        [hertz_of_bin(32 * row) for row in range(4)], rel=1e-4
    )


def test_cepstra_have_no_hertz(waveforms):
    found = encoder("ast", Features(kind="mfcc")).inspect(waveforms)

    assert found.blocks[0].queries.hertz is None
    assert len(found.blocks[0].queries.seconds) == found.tokens.grid.columns


def test_another_rate_is_resampled(model, waveforms):
    found = model.inspect(waveforms[:, :8_000], sample_rate=8_000)

    assert found.frames.tolist() == [98, 98, 98]


def test_nothing_is_left_behind_even_by_an_error(model, waveforms):
    backbone = model.backbone.train()
    backbone.norm.eval()

    found = model.inspect(waveforms)
    with pytest.raises(ValueError, match="bins"):
        inspect(backbone, found.pictures[:, :64], found.frames, model.front_end)

    for block in backbone.blocks:
        assert block.attn.maps is None and not block._forward_hooks
    assert backbone.training and backbone.blocks[0].training and not backbone.norm.training
    assert not found.tokens.patches.requires_grad
    model.eval()
