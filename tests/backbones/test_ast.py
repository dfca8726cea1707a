"""AST: grid, lengths, hiding, against an independent transformer."""

import resource
from functools import partial

import pytest
import torch

from sslaudio.backbones import ast
from sslaudio.backbones.base import Grid, Tokens
from sslaudio.backbones.encoder import Encoder, cut
from sslaudio.backbones.pooling import pool, slice_weights
from sslaudio.features.front_end import Config as Features
from sslaudio.features.front_end import FrontEnd


def model(frames: int = 96, **settings) -> ast.AST:
    torch.manual_seed(0)
    backbone = ast.build(ast.Config(**settings), 128, frames).eval()
    for parameter in backbone.parameters():  # a fresh start is too tame to show mistakes
        torch.nn.init.normal_(parameter, std=0.1)
    return backbone


def pictures(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    frames = torch.tensor(lengths)
    mel = torch.randn(len(lengths), 128, max(lengths), generator=torch.Generator().manual_seed(1))
    for row, length in enumerate(lengths):
        mel[row, :, length:] = 0
    return mel, frames


@pytest.mark.parametrize(
    ("patch", "stride", "frames", "grid"),
    [  # AST's own grids, by hand: floor((128 - 16) / s) + 1, floor((T - 16) / s) + 1
        ((16, 16), (10, 10), 1024, (12, 101)),
        ((16, 16), (10, 10), 512, (12, 50)),
        ((16, 16), (12, 12), 1024, (10, 85)),
        ((16, 16), None, 1024, (8, 64)),
        ((128, 2), None, 1024, (1, 512)),
        ((16, 16), None, 98, (8, 7)),
        ((16, 16), None, 3, (8, 1)),
    ],
)
def test_grids_are_asts(patch, stride, frames, grid):
    assert model(patch=patch, stride=stride).grid(frames) == Grid(*grid)


def test_a_rest_that_fills_no_patch_is_left_out_where_asked_for():
    backbone = ast.build(ast.Config(whole_patches=True), 100, 96)
    mel = pictures(70)[0][:, :100]

    embedded = backbone.patch_embed(backbone.patchify(mel))

    assert backbone.grid(70) == Grid(6, 4)  # 4 of 100 bins and 6 of 70 frames are left
    expected = backbone.patch_embed.proj(mel[:, None]).flatten(2).transpose(1, 2)
    assert torch.allclose(embedded, expected, atol=1e-4)


def test_positions_of_the_prefix_are_added_to_it():
    apart, mel = model(prefix_positions=True), pictures(96)[0]
    joined = model()
    weights = apart.state_dict()
    positions = weights.pop("prefix_positions")

    joined.load_state_dict({**weights, "prefix": weights["prefix"] + positions})

    assert positions.abs().max() > 0.1
    assert torch.equal(apart(mel).prefix, joined(mel).prefix)


def test_patches_run_low_band_first_then_in_time():
    backbone = model(patch=(64, 2))
    mel = (100 * torch.arange(128.0)[:, None] + torch.arange(6.0))[None]

    patches = backbone.patchify(mel)

    assert patches.shape == (1, 6, 128)
    # By hand: the second patch is bins 0-63, frames 2-3.
    assert patches[0, 1, :4].tolist() == [2, 3, 102, 103]
    assert patches[0, 3, 0] == 6_400


def test_embedding_patches_equals_the_convolution():
    backbone = model(patch=(16, 16), stride=(10, 10))
    mel, _ = pictures(96)

    embedded = backbone.patch_embed(backbone.patchify(mel))

    expected = backbone.patch_embed.proj(mel[:, None]).flatten(2).transpose(1, 2)
    assert torch.allclose(embedded, expected, atol=1e-4)


def test_blocks_equal_timms():
    from timm.models.vision_transformer import Block

    backbone = model()
    mel, frames = pictures(96, 96)
    start = []
    backbone.blocks[0].register_forward_pre_hook(lambda _, args: start.append(args[0]))

    tokens = backbone(mel, frames)

    hidden = start[0]
    for block in backbone.blocks:
        peer = Block(128, 4, 4.0, qkv_bias=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6))
        peer.load_state_dict(block.state_dict())  # the same names, too
        hidden = peer.eval()(hidden)
    assert torch.allclose(tokens.patches, backbone.norm(hidden)[:, 2:], atol=1e-3)


@pytest.mark.parametrize("lengths", [(96, 50, 20, 3), (300, 96, 140)])
def test_a_clip_is_encoded_the_same_alone_and_in_any_batch(lengths):
    backbone = model()
    mel, frames = pictures(*lengths)

    together = backbone(mel, frames)

    for row, length in enumerate(lengths):
        alone = backbone(mel[row : row + 1, :, :length], frames[row : row + 1])
        ours = together.patches[row].unflatten(0, tuple(together.grid))
        theirs = alone.patches[0].unflatten(0, tuple(alone.grid))
        assert torch.allclose(ours[:, : theirs.shape[1]], theirs, atol=1e-4)


def test_hidden_patches_are_not_seen():
    backbone = model()
    mel, frames = pictures(96, 96)
    hidden = torch.zeros(2, 48, dtype=torch.bool)
    hidden[:, 5] = True
    changed = mel.clone()
    changed[:, :16, 80:96] += 3  # patch 5 is the lowest band's last

    before, after = backbone(mel, frames, hidden), backbone(changed, frames, hidden)

    assert torch.equal(before.patches, after.patches)
    assert not torch.allclose(backbone(mel, frames).patches, backbone(changed, frames).patches)


def test_drop_path_leaves_clips_out_in_training_only():
    backbone = model(drop_path=0.9)
    mel, frames = pictures(96, 96)

    assert torch.equal(backbone(mel, frames).patches, backbone(mel, frames).patches)
    backbone.train()
    assert not torch.equal(backbone(mel, frames).patches, backbone(mel, frames).patches)


def test_slices_share_a_column_on_their_border():
    weights = slice_weights(torch.tensor([3]), width=4, count=2)

    # By hand: 1.5 columns each; the middle column counts half in both.
    assert torch.allclose(weights[0, 0], torch.tensor([2 / 3, 1 / 3, 0, 0]))
    assert torch.allclose(weights[0, 1], torch.tensor([0, 1 / 3, 2 / 3, 0]))


def test_pooling_by_hand():
    laid = torch.tensor([[[1.0, 2.0, 9.0], [3.0, 6.0, 9.0]]])  # rows x columns, third is padding
    tokens = laid.reshape(1, 6, 1)

    sound = torch.tensor([[True, True, False] * 2])
    prefix = torch.tensor([[[4.0], [7.0]]])

    pooled = pool(
        Tokens(tokens, Grid(2, 3), sound, prefix),
        torch.tensor([2]),
        ("mean", "max", "std", "slices2", "row_mean", "cls"),
    )

    std = torch.tensor([1.0, 2.0, 3.0, 6.0]).std(unbiased=False).item()
    assert pooled[0].tolist() == pytest.approx([3, 6, std, 2, 4, 1.5, 4.5, 5.5])


def test_what_was_dropped_is_not_pooled():
    tokens = torch.tensor([[[2.0], [6.0], [50.0]]])
    sound = torch.tensor([[True, True, False]])
    index = torch.tensor([[0, 5, 3]])  # of 2 x 3: low band's first column, high band's third

    pooled = pool(
        Tokens(tokens, Grid(2, 3), sound, torch.zeros(1, 0, 1), index),
        torch.tensor([3]),
        ("mean", "max", "slices3", "row_mean"),
    )

    assert pooled[0].tolist() == pytest.approx([4, 6, 2, 0, 6, 2, 6])


def test_windows_are_equal_and_cover_the_clip():
    windows = cut(torch.tensor([6, 7, 31]), window=6)

    assert [(w.clip, w.first, w.last) for w in windows] == [
        (0, 0, 6), (1, 0, 7), (2, 0, 6), (2, 6, 12), (2, 12, 18), (2, 18, 24), (2, 24, 31),
    ]  # fmt: skip


@pytest.mark.parametrize("block", [None, 2])
def test_an_embedding_does_not_depend_on_the_batch(block):
    front_end = FrontEnd(Features(), -5.0, 4.0)
    encoder = Encoder(front_end, model(), ("mean", "max", "std", "slices4"), block, 96).eval()
    waveforms = 0.1 * torch.randn(4, 48_000, generator=torch.Generator().manual_seed(2))
    lengths = torch.tensor([48_000, 16_000, 7_000, 1_600])

    together = encoder(waveforms, lengths=lengths)

    assert together.shape == (4, encoder.dim)
    for row, length in enumerate(lengths.tolist()):
        alone = encoder(waveforms[row : row + 1, :length])
        assert torch.allclose(alone[0], together[row], atol=1e-4)


def test_a_long_file_is_embedded_in_little_memory_and_as_its_windows():
    encoder = Encoder(FrontEnd(Features(), -5.0, 4.0), model(), ("mean",), None, 96).eval()
    waveforms = 0.1 * torch.randn(1, 600 * 16_000, generator=torch.Generator().manual_seed(3))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with torch.inference_mode():
        encoder(waveforms)

    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 1_500  # megabytes for ten minutes; a copy a window would take 20,000


def test_gradients_of_an_embedding_reach_the_sound():
    encoder = Encoder(FrontEnd(Features(), -5.0, 4.0), model(), ("mean",), None, 96)
    sound = 0.1 * torch.randn(1, 8_000, generator=torch.Generator().manual_seed(4))
    sound.requires_grad_()

    encoder(sound).square().sum().backward()

    assert sound.grad.isfinite().all() and sound.grad.count_nonzero() > 7_000


def test_only_weights_that_reach_the_embedding_are_named():
    names = [
        name
        for name, _ in Encoder(
            FrontEnd(Features(), -5.0, 4.0), model(), ("mean",), 2, 96
        ).embedding_weights()
    ]

    assert {name.split(".")[2] for name in names if "blocks" in name} == {"0", "1"}
    assert not any("mask_token" in name or name.startswith("backbone.norm") for name in names)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"patch": (48, 16)}, r"cut 128 bins into patches of 48: 32 left over"),
        ({"patch": (256, 2)}, r"higher than the picture: set backbone.patch to at most 128"),
    ],
)
def test_a_patch_that_does_not_fit_says_what_to_change(settings, said):
    with pytest.raises(ValueError, match=said):
        model(**settings)
