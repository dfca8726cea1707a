"""Every backbone plug-in keeps the room's promises (sslaudio/backbones/base.py)."""

from dataclasses import is_dataclass

import pytest
import torch

from sslaudio import plugins
from sslaudio.augments.base import Draws
from sslaudio.backbones.base import Backbone, Kept
from sslaudio.backbones.drop import keep

BINS, FRAMES = 128, 96


def pictures(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    mel = torch.randn(len(lengths), BINS, max(lengths), generator=torch.Generator().manual_seed(1))
    frames = torch.tensor(lengths)
    return mel.masked_fill(torch.arange(max(lengths)) >= frames[:, None, None], 0.0), frames


@pytest.fixture(scope="module", params=plugins.names("backbones"))
def backbone(request) -> Backbone:
    module = plugins.load("backbones", request.param)
    assert is_dataclass(module.Config)
    torch.manual_seed(0)
    built = module.build(module.Config(), BINS, FRAMES).eval()
    for name, weight in built.named_parameters():  # a fresh start is too tame to show mistakes
        norm = "norm" in name and name.endswith("weight")
        torch.nn.init.normal_(weight, mean=float(norm), std=0.1)
    return built.requires_grad_(False)


def test_it_is_a_backbone_for_the_pictures_asked_for(backbone):
    assert isinstance(backbone, Backbone)
    assert isinstance(backbone, torch.nn.Module)
    assert backbone.bins == BINS
    assert min(*backbone.patch, *backbone.stride) >= 1


@pytest.mark.parametrize("frames", [1, 15, 16, 17, FRAMES, 3 * FRAMES + 5])
def test_tokens_lie_on_the_grid_one_a_patch(backbone, frames):
    mel, lengths = pictures(frames, max(1, frames // 2))

    tokens, patches, grid = backbone(mel, lengths), backbone.patchify(mel), backbone.grid(frames)

    assert tokens.grid == grid
    assert tokens.patches.shape == (2, grid.rows * grid.columns, backbone.dim)
    assert patches.shape[:2] == tokens.sound.shape == tokens.patches.shape[:2]
    assert torch.isfinite(tokens.patches).all()


def test_sound_is_the_columns_of_the_clips_own_length(backbone):
    mel, lengths = pictures(FRAMES, 50, 20, 3, 1)

    tokens, columns = backbone(mel, lengths), backbone.columns(lengths)

    for row, length in enumerate(lengths.tolist()):
        own = backbone.grid(length).columns
        assert columns[row] == own >= 1
        sound = tokens.sound[row].unflatten(0, tuple(tokens.grid))
        assert sound[:, :own].all() and not sound[:, own:].any()


@pytest.mark.parametrize("lengths", [(96, 50, 20, 3), (300, 96, 140), (40, 40)])
def test_a_clip_is_encoded_alone_as_in_any_batch(backbone, lengths):
    mel, frames = pictures(*lengths)

    together = backbone(mel, frames)

    for row, length in enumerate(lengths):
        alone = backbone(mel[row : row + 1, :, :length], frames[row : row + 1])
        ours = together.patches[row].unflatten(0, tuple(together.grid))
        theirs = alone.patches[0].unflatten(0, tuple(alone.grid))
        assert torch.allclose(ours[:, : theirs.shape[1]], theirs, atol=1e-4)


def test_hidden_patches_are_not_seen(backbone):
    mel, frames = pictures(FRAMES, FRAMES)
    high, wide = backbone.patch
    changed = mel.clone()
    changed[:, :high, :wide] += 3
    # Wherever the change shows, in overlapping patches too.
    hidden = (backbone.patchify(changed) != backbone.patchify(mel)).any(dim=2)

    before, after = backbone(mel, frames, hidden), backbone(changed, frames, hidden)

    assert hidden.any() and not hidden.all()
    assert torch.allclose(before.patches, after.patches, atol=1e-6)
    assert not torch.allclose(before.patches, backbone(mel, frames).patches, atol=1e-2)
    assert not torch.allclose(
        backbone(mel, frames).patches, backbone(changed, frames).patches, atol=1e-2
    )


def test_a_mask_may_be_laid_out_and_finer_where_parts_can_be_hidden(backbone):
    mel, frames = pictures(FRAMES, 40)
    grid = backbone.grid(FRAMES)
    hidden = torch.rand(2, *grid, generator=torch.Generator().manual_seed(2)) < 0.5
    expected = backbone(mel, frames, hidden.flatten(1)).patches

    laid = backbone(mel, frames, hidden).patches

    assert torch.equal(laid, expected)
    finer = hidden.repeat_interleave(4, 1).repeat_interleave(2, 2)
    if backbone.hides_parts:
        assert torch.equal(backbone(mel, frames, finer).patches, expected)
    else:
        with pytest.raises(ValueError, match="hides whole patches"):
            backbone(mel, frames, finer)


@pytest.mark.parametrize("length", [90, 96, 140])
def test_a_clip_with_hidden_patches_is_the_same_alone_and_beside_a_longer_one(backbone, length):
    mel, frames = pictures(length, 500)
    grid, own = backbone.grid(500), backbone.grid(length)
    hidden = torch.zeros(2, *grid, dtype=torch.bool)
    hidden[0, :, own.columns - 1 :] = True  # its last column, and what is padding

    together = backbone(mel, frames, hidden.flatten(1))

    alone = backbone(
        mel[:1, :, :length], frames[:1], hidden[:1, :, : own.columns].flatten(1).contiguous()
    )
    ours = together.patches[0].unflatten(0, tuple(grid))[:, : own.columns]
    assert torch.allclose(ours, alone.patches[0].unflatten(0, tuple(own)), atol=1e-4)


def test_hiding_nothing_is_not_hiding(backbone):
    mel, frames = pictures(FRAMES, 40)
    plain = backbone(mel, frames)

    none = backbone(mel, frames, torch.zeros_like(plain.sound))

    assert torch.allclose(none.patches, plain.patches, atol=1e-6)


def test_a_clip_is_hidden_alone_as_in_any_batch(backbone):
    mel, frames = pictures(FRAMES, 38)  # the shorter one ends inside a patch
    grid, own = backbone.grid(FRAMES), backbone.grid(38)
    hidden = torch.zeros(2, *grid, dtype=torch.bool)
    hidden[:, :, own.columns - 1 :] = True

    together = backbone(mel, frames, hidden.flatten(1))

    alone = backbone(mel[1:, :, :38], frames[1:], hidden[1:, :, : own.columns].flatten(1))
    ours = together.patches[1].unflatten(0, tuple(grid))[:, : own.columns]
    assert torch.allclose(ours.flatten(0, 1), alone.patches[0], atol=1e-4)


SHARES = (0.1, 0.25, 0.5, 0.6, 0.75)


def draws(clips: int, seed: int = 3) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), 0, clips, clips)


@pytest.mark.parametrize("share", SHARES)
def test_dropping_in_one_clip_or_changing_it_changes_no_other(backbone, share):
    mel, frames = pictures(320, 320, 200, 290)
    for shape in backbone.drop_shapes:
        kept = keep(backbone, frames, 320, share, draws(4), shape)
        changed = mel.clone()
        changed[1] += 3

        before, after = (backbone(one, frames, kept=kept).patches for one in (mel, changed))

        assert torch.isfinite(before).all()
        assert torch.equal(before[[0, 2, 3]], after[[0, 2, 3]])
        assert not torch.allclose(before[1], after[1], atol=1e-2)


@pytest.mark.parametrize("share", SHARES)
def test_what_is_dropped_is_not_seen(backbone, share):
    mel, frames = pictures(320, 320, 200)
    for shape in backbone.drop_shapes:
        kept = keep(backbone, frames, 320, share, draws(3), shape)
        grid = backbone.grid(320)
        seen = torch.zeros(3, grid.rows * grid.columns, dtype=torch.bool)
        seen.scatter_(1, kept.index, kept.sound)
        high, wide = backbone.stride
        gone = ~seen.unflatten(1, tuple(grid))
        gone = gone.repeat_interleave(high, 1).repeat_interleave(wide, 2)
        changed = mel.clone()
        changed[gone[:, :BINS, :320]] += 3

        before, after = (backbone(one, frames, kept=kept) for one in (mel, changed))

        sound = kept.sound[..., None]
        assert torch.allclose(before.patches * sound, after.patches * sound, atol=1e-5)
        assert torch.equal(before.sound, kept.sound)


@pytest.mark.parametrize("share", SHARES)
def test_a_clip_keeps_the_share_of_its_own_patches(backbone, share):
    _, frames = pictures(320, 96, 200)
    columns = backbone.columns(frames)
    kept = keep(backbone, frames, 320, share, draws(3), "columns")

    rows = backbone.grid(320).rows
    wanted = [max(1, n - int(share * n + 0.5)) for n in columns.tolist()]
    assert (kept.sound.sum(dim=1) / rows).tolist() == wanted
    assert kept.share == pytest.approx(1 - sum(wanted) / int(columns.sum()))
    place = kept.index % backbone.grid(320).columns
    assert (place < columns[:, None])[kept.sound].all()


@pytest.mark.parametrize("lengths", [(320, 140), (98, 70)])  # whole patches, and a last in part
def test_dropping_nothing_is_not_dropping(backbone, lengths):
    mel, frames = pictures(*lengths)
    plain = backbone(mel, frames)

    for shape in backbone.drop_shapes:
        kept = keep(backbone, frames, lengths[0], 0.0, draws(2), shape)
        tokens = backbone(mel, frames, kept=kept)

        laid, seen = tokens.laid()
        assert torch.equal(seen.flatten(1), plain.sound)
        expected = plain.patches * plain.sound[..., None]
        assert torch.allclose((laid * seen[..., None]).flatten(1, 2), expected, atol=1e-4)


def test_a_clip_keeps_and_gets_what_it_would_alone(backbone):
    mel, frames = pictures(320, 200)
    kept = keep(backbone, frames, 320, 0.5, draws(2), backbone.drop_shapes[0])
    together = backbone(mel, frames, kept=kept)
    grid = backbone.grid(200)
    own = kept.index[1:, kept.sound[1]]
    index = own // backbone.grid(320).columns * grid.columns + own % backbone.grid(320).columns
    alone = Kept(index, torch.ones_like(index, dtype=torch.bool), kept.rows, kept.share)

    tokens = backbone(mel[1:, :, :200], frames[1:], kept=alone)

    assert torch.allclose(tokens.patches[0], together.patches[1, kept.sound[1]], atol=1e-4)


def test_a_shape_that_would_break_the_grid_is_refused(backbone):
    with pytest.raises(ValueError, match=r"cannot drop 'stars', only"):
        keep(backbone, torch.tensor([96]), 96, 0.5, draws(1), "stars")


def test_without_lengths_all_is_sound(backbone):
    mel, frames = pictures(FRAMES, FRAMES)

    assert torch.allclose(backbone(mel).patches, backbone(mel, frames).patches, atol=1e-5)
    assert backbone(mel).sound.all()


def test_it_stops_at_any_depth_and_says_what_comes_out(backbone):
    mel, frames = pictures(FRAMES, 50)
    for depth in range(1, len(backbone.blocks) + 1):
        tokens = backbone(mel, frames, depth=depth)

        assert tokens.grid == backbone.grid(FRAMES, depth)
        assert tokens.patches.shape[2] == backbone.width(depth)
        own = tokens.sound.unflatten(1, tuple(tokens.grid))[:, 0].sum(dim=1)
        assert torch.equal(own, backbone.columns(frames, depth))
        finer = backbone.finer(depth)
        assert tokens.grid.columns <= backbone.grid(FRAMES).columns * finer


def test_pictures_of_another_height_are_refused(backbone):
    with pytest.raises(ValueError, match=r"mel_bins"):
        backbone(torch.zeros(1, BINS // 2, FRAMES), torch.tensor([FRAMES]))
