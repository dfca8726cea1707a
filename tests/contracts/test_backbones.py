"""Every backbone plug-in keeps the room's promises (sslaudio/backbones/base.py)."""

from dataclasses import is_dataclass

import pytest
import torch

from sslaudio import plugins
from sslaudio.backbones.base import Backbone

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
    for weight in built.parameters():  # a fresh start is too tame to show mistakes
        torch.nn.init.normal_(weight, std=0.1)
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


def test_hiding_nothing_is_not_hiding(backbone):
    mel, frames = pictures(FRAMES, 40)
    plain = backbone(mel, frames)

    none = backbone(mel, frames, torch.zeros_like(plain.sound))

    assert torch.allclose(none.patches, plain.patches, atol=1e-6)


def test_pictures_of_another_height_are_refused(backbone):
    with pytest.raises(ValueError, match=r"mel_bins"):
        backbone(torch.zeros(1, BINS // 2, FRAMES), torch.tensor([FRAMES]))
