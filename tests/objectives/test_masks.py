"""Masks by their shares, on any grid, for clips of any length."""

import pytest
import torch

from sslaudio.augments.base import Draws
from sslaudio.backbones.base import Grid, sounding
from sslaudio.objectives.legacy import hide_as_ssast
from sslaudio.objectives.masks import SHAPES, Area, hide

SHARES = (0.1, 0.3, 0.5, 0.78, 0.9)
GRIDS = ((8, 12), (8, 3), (8, 6), (1, 48), (4, 12), (8, 32))
SPANS = {"uniform": None, "columns": 1, "rows": 1, "clusters": None, "inverse_blocks": 5}


def draws(clips: int, seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), 0, clips, clips)


def area(rows: int, *columns: int, clips: int = 1) -> Area:
    """``clips`` clips of so many columns each."""
    grid, own = Grid(rows, max(columns)), torch.tensor(columns * clips)
    return Area(grid, rows, own, sounding(grid, own))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("rows_columns", GRIDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_hides_its_share_evenly_over_rows_and_columns(shape, rows_columns, share):
    rows, columns = rows_columns
    if shape == "rows" and rows == 1:
        pytest.skip("a picture of one row has no rows to hide")
    clips = 4_000 if rows > 1 else 16_000  # of one row, a column is a single patch

    hidden = hide(shape, SPANS[shape], share, area(rows, columns, clips=clips), draws(clips))

    # By hand: whole columns (rows) are as many as their share rounds to, else patches are; at
    # least one of them, and not all.
    lines = {"columns": columns, "rows": rows}.get(shape, rows * columns)
    target = min(max(int(share * lines + 0.5), 1), lines - 1) / lines
    assert (hidden.sum(1) == round(target * rows * columns)).all()
    laid = hidden.view(clips, rows, columns).float()
    assert (laid.mean((0, 2)) - target).abs().max() < 0.02
    assert (laid.mean((0, 1)) - target).abs().max() < 0.02


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_shorter_clips_beside_longer_ones_are_hidden_as_evenly(shape, share):
    clips = 4_000

    hidden = hide(shape, SPANS[shape], share, area(4, 12, 5, clips=clips), draws(2 * clips))

    short = hidden[1::2].view(clips, 4, 12).float()
    lines = {"columns": 5, "rows": 4}.get(shape, 20)
    target = int(share * lines + 0.5) / lines
    assert not short[:, :, 5:].any()
    assert (hidden[1::2].sum(1) == round(target * 20)).all()
    assert (short[:, :, :5].mean((0, 2)) - target).abs().max() < 0.02
    assert (short[:, :, :5].mean((0, 1)) - target).abs().max() < 0.02


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_any_share_leaves_each_clip_something_hidden_and_something_seen(shape, share):
    clips = area(8, 64, 7, 6, 3, 2, 1)

    hidden = hide(shape, SPANS[shape], share, clips, draws(6))

    assert not (hidden & ~clips.free).any()
    assert (hidden.sum(1) >= 1).all()
    assert (hidden.sum(1) < clips.free.sum(1)).all()


def test_a_clip_of_one_patch_is_hidden_whole():
    for shape in SHAPES:
        assert hide(shape, SPANS[shape], 0.5, area(1, 4, 1), draws(2))[1].tolist() == [
            True, False, False, False,
        ]  # fmt: skip


@pytest.mark.parametrize(("shape", "axis"), [("columns", 1), ("rows", 2)])
def test_lines_are_hidden_whole_and_in_runs(shape, axis):
    clips = area(20, 20, clips=500)

    single = hide(shape, 1, 0.5, clips, draws(500)).view(500, 20, 20)
    runs = hide(shape, 4, 0.5, clips, draws(500)).view(500, 20, 20)

    # Borders between hidden and seen: 10 of 20 at random make 10 on average, runs of 4 far fewer.
    borders = []
    for mask in (single, runs):
        assert (mask.all(axis) == mask.any(axis)).all()
        line = mask.any(axis)
        borders.append((line[:, 1:] != line[:, :-1]).sum(1).float().mean())
    assert borders[0] == pytest.approx(10, abs=0.5)
    assert borders[1] < 6.5


def squares(mask: torch.Tensor, side: int) -> torch.Tensor:
    """Which patches lie in a square of ``side`` that is all True, round the borders."""
    shifts = [(row, column) for row in range(side) for column in range(side)]
    full = torch.stack([mask.roll((-r, -c), (1, 2)) for r, c in shifts]).all(0)
    return torch.stack([full.roll((r, c), (1, 2)) for r, c in shifts]).any(0)


def test_clusters_are_squares_and_inverse_blocks_are_what_squares_leave():
    clips = area(8, 32, clips=300)

    hidden = hide("clusters", 3, 0.3, clips, draws(300)).view(300, 8, 32)
    seen = ~hide("inverse_blocks", 5, 0.8, clips, draws(300)).view(300, 8, 32)

    # All lie in whole squares but the last one of a clip, which is cut to the share.
    assert (hidden & ~squares(hidden, 3)).sum((1, 2)).max() < 9
    assert (seen & ~squares(seen, 5)).sum((1, 2)).max() < 25
    assert squares(seen, 5).any((1, 2)).all()


def test_a_cluster_is_3_to_5_patches_square_each_as_often():
    # So few patches are hidden that they are one square of 5 by 5, or more of smaller ones.
    hidden = hide("clusters", None, 25 / 1024, area(32, 32, clips=3_000), draws(3_000))
    laid = hidden.view(-1, 32, 32)

    held = [squares(laid, side).flatten(1).any(1).float().mean() for side in (3, 4, 5, 6)]

    assert held[0] > 0.99
    assert held[1:] == pytest.approx([2 / 3, 1 / 3, 0.0], abs=0.05)


ROWS = {  # SSAST's own code on 8 by 64 patches, low mel rows first
    400: (0.42, 0.67, 0.81, 0.87, 0.89, 0.89, 0.89, 0.82),
    250: (0.20, 0.37, 0.50, 0.57, 0.59, 0.59, 0.59, 0.50),
    100: (0.07, 0.14, 0.20, 0.24, 0.26, 0.26, 0.25, 0.15),
}


@pytest.mark.parametrize("patches", ROWS)
def test_legacy_masks_have_the_published_codes_edges(patches):
    clips = area(8, 64, clips=4_000)

    hidden = hide_as_ssast(patches / 512, clips, draws(4_000)).view(-1, 8, 64).float()

    assert (hidden.sum((1, 2)) == patches).all()
    assert hidden.mean((0, 2)).tolist() == pytest.approx(ROWS[patches], abs=0.02)
    assert not hidden[:, 0, 0].any()


def published(patches: int, wanted: int, columns: int, generator: torch.Generator) -> list[int]:
    """``gen_maskid_patch`` in its own words."""
    side = int(torch.randint(3, 6, (), generator=generator))
    chosen: set[int] = set()
    while len(chosen) <= wanted:
        start = int(torch.randint(patches, (), generator=generator))
        for i in range(side):
            for j in range(side):
                candidate = start + columns * i + j
                if 0 < candidate < patches:
                    chosen.add(candidate)
    return sorted(chosen)[:wanted]


@pytest.mark.parametrize(("rows", "columns", "wanted"), [(8, 6, 30), (4, 9, 10), (8, 12, 90)])
def test_legacy_masks_are_the_published_loops_in_every_patch(rows, columns, wanted):
    patches, generator = rows * columns, torch.Generator().manual_seed(5)
    expected = torch.zeros(patches)
    for _ in range(8_000):
        expected[published(patches, wanted, columns, generator)] += 1 / 8_000
    # Beside a longer clip, whose grid is another.
    both = area(rows, columns, columns + 5, clips=8_000)

    hidden = hide_as_ssast(wanted / patches, both, draws(16_000))[::2]

    ours = hidden.view(-1, rows, columns + 5)[:, :, :columns].flatten(1).float()
    # The same masks over 30,000 clips differ by 0.01 at most; so few leave 0.03 to chance.
    assert ours.mean(0).sub(expected).abs().max() < 0.04


@pytest.mark.parametrize("columns", [1, 2, 3, 6, 32])
@pytest.mark.parametrize("rows", [1, 2, 8])
def test_legacy_masks_end_at_any_share_of_any_grid(rows, columns):
    clips = area(rows, columns, clips=50)
    for share in (0.01, 0.78, 0.999):
        hidden = hide_as_ssast(share, clips, draws(50))

        assert (hidden.sum(1) <= max(1, rows * columns - 1)).all()
        assert hidden.any() or rows * columns == 1


def test_legacy_masks_of_one_row_are_uniform():
    hidden = hide_as_ssast(0.5, area(1, 48, clips=4_000), draws(4_000))

    assert (hidden.sum(1) == 24).all()
    assert (hidden.float().mean(0) - 0.5).abs().max() < 0.04
