"""Dropped rows and columns of MAST: what stays gets what a slow, whole grid with holes gives."""

import pytest
import torch

from sslaudio.backbones import mast

PAIRS = list[list[int]]


def model(bins: int, patch: int, stride: int, **settings) -> mast.MAST:
    torch.manual_seed(0)
    config = mast.Config(stem_patch=(patch, patch), stem_stride=(stride, stride), **settings)
    backbone = mast.build(config, bins, 96).eval()
    for name, weight in backbone.named_parameters():
        norm = "norm" in name and name.endswith("weight")
        torch.nn.init.normal_(weight, mean=float(norm), std=0.1)
    return backbone.requires_grad_(False)


def pictures(bins: int, *lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    mel = torch.randn(len(lengths), bins, max(lengths), generator=torch.Generator().manual_seed(1))
    frames = torch.tensor(lengths)
    return mel.masked_fill(torch.arange(max(lengths)) >= frames[:, None, None], 0.0), frames


ALL = [0, 1, 2, 3]
"""Rows of units in 128 bins at a stem stride of 4."""


@pytest.mark.parametrize(
    ("stem", "settings", "bins", "lengths", "rows", "columns"),
    [
        # Columns alone; the last unit has one token of eight, and a clip's own end is a border.
        ((7, 4), {}, 128, (98, 70, 98), [ALL] * 3, [[0, 2, 3], [0, 2], [1, 3]]),
        # Rows alone; 30 bins more than whole units.
        ((7, 4), {}, 62, (70, 33), [[0], [1]], [[0, 1, 2], [0, 1]]),
        # Both, other ones in every clip, neighbours and holes.
        ((7, 4), {}, 90, (98, 98), [[0, 2], [1, 2]], [[0, 1, 3], [0, 2, 3]]),
        ((7, 4), {"key_stride": 8}, 64, (100, 40), [[1], [0]], [[1, 3], [0, 1]]),
        ((7, 4), {"key_stride": 1, "expand": "mlp"}, 64, (60, 40), [[1], [0]], [[1], [1]]),
        # A stem that reaches to the right: its sums miss taps of the next unit.
        ((16, 10), {}, 128, (330, 250, 170), [[0, 1]] * 3, [[0, 2, 3], [1, 3], [0]]),
        ((16, 10), {}, 176, (180, 90), [[0, 2], [1, 2]], [[1, 2], [0]]),
        # One that cannot reach anything, and one that reaches both ways.
        ((16, 16), {}, 300, (300, 140), [[0, 2], [0, 1]], [[0, 2], [0, 1]]),
        ((12, 4), {"stem_padding": (4, 4)}, 64, (110, 60), [[0], [1]], [[0, 2, 3], [1]]),
    ],
)
def test_what_stays_is_a_whole_grids_with_holes(
    slow_mast, kept_units, stem, settings, bins, lengths, rows, columns
):
    backbone = model(bins, *stem, **settings)
    mel, frames = pictures(bins, *lengths)
    kept = kept_units(backbone.grid(max(lengths)), rows, columns)

    laid, seen = backbone(mel, frames, kept=kept).laid()

    for clip, length in enumerate(lengths):
        whole, gone = slow_mast(backbone, mel[clip, :, :length], rows[clip], columns[clip])
        width = whole.shape[1]
        assert torch.equal(seen[clip, :, :width], ~gone) and not seen[clip, :, width:].any()
        assert torch.allclose(laid[clip, :, :width][~gone], whole[~gone], atol=1e-4)


@pytest.mark.parametrize(
    ("patch", "frames", "sums"),
    [  # by hand: ones over a patch give its area, wherever taps are lost to the dropped unit 1
        (16, 106, [[256, 256, 256], [256, 256, 256]]),
        # The first column loses three of seven frames to the border; column 16 to unit 1.
        (7, 96, [[28, 49, 49], [49, 49, 49]]),
    ],
)
def test_a_missing_tap_is_made_up_for_and_the_border_is_not(kept_units, patch, frames, sums):
    backbone = model(32, patch, 4)
    torch.nn.init.ones_(backbone.stem.weight)
    torch.nn.init.zeros_(backbone.stem.bias)
    starts = []
    backbone.blocks[0].register_forward_pre_hook(lambda _, args: starts.append(args[0]))

    backbone(torch.ones(1, 32, frames), kept=kept_units(backbone.grid(frames), [[0]], [[0, 2]]))

    second_row = starts[0][0, 1, :, 0]
    assert second_row[[0, 1, 7]].tolist() == pytest.approx(sums[0])
    assert second_row[[8, 9, 14]].tolist() == pytest.approx(sums[1])


def test_hidden_patches_are_hidden_in_what_stays(slow_mast, kept_units):
    backbone = model(90, 7, 4)
    lengths, rows, columns = (98, 70), [[0, 2], [1, 2]], [[0, 2, 3], [1, 2]]
    mel, frames = pictures(90, *lengths)
    grid = backbone.grid(98)
    hidden = torch.rand(2, *grid, generator=torch.Generator().manual_seed(5)) < 0.4
    token = backbone.mask_token[0]

    tokens = backbone(mel, frames, hidden.flatten(1), kept_units(grid, rows, columns))

    laid, _ = tokens.laid()
    for clip, length in enumerate(lengths):
        picture = mel[clip, :, :length].clone()
        for row, column in hidden[clip].nonzero().tolist():
            there = picture[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            there.copy_(token[: there.shape[0], : there.shape[1]])
        whole, gone = slow_mast(backbone, picture, rows[clip], columns[clip])
        assert torch.allclose(laid[clip, :, : whole.shape[1]][~gone], whole[~gone], atol=1e-4)


def test_dropping_saves_the_work():
    from torch.utils.flop_counter import FlopCounterMode

    from sslaudio.augments.base import Draws
    from sslaudio.backbones.drop import keep

    backbone = model(128, 7, 4)
    mel, frames = pictures(128, 512)
    draws = Draws(torch.Generator().manual_seed(0), 0, 1, 1)
    work = []
    for share in (0.0, 0.5):
        with FlopCounterMode(display=False) as counter:
            backbone(mel, frames, kept=keep(backbone, frames, 512, share, draws))
        work.append(counter.get_total_flops())

    assert work[1] < 0.5 * work[0]
