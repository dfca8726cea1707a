"""Which patches to hide: any share of any grid, for clips of any length, without loops.

In:  where a clip's patches are, random numbers, the share to hide and its shape.
Out: a boolean mask, exactly ``round(share * patches)`` of each clip's own patches hidden; where
whole columns or rows are, ``round(share * columns)`` of those.
"""

from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sslaudio.augments.base import Draws
from sslaudio.backbones.base import Grid

Shape = Literal["uniform", "columns", "rows", "clusters", "inverse_blocks"]
"""Each patch by itself, whole columns of time, whole rows of frequency, squares that are hidden, or
squares that alone are seen."""
SHAPES: tuple[Shape, ...] = get_args(Shape)
SIDES = (3, 5)
"""Smallest and largest side of a cluster where none is set; SSAST's."""


class Area(NamedTuple):
    """Where the clips' own patches lie on the batch's grid."""

    grid: Grid
    rows: int
    """Rows, from the lowest on, that hold any of the picture."""
    columns: Int[Tensor, " clips"]
    """Columns of each clip that hold any of its sound."""
    free: Bool[Tensor, "clips patches"]
    """Which patches may be hidden: all in those rows and columns, but for dropped ones."""


def hide(
    shape: Shape, span: int | None, share: float, area: Area, draws: Draws
) -> Bool[Tensor, "clips patches"]:
    """Hide ``share`` of each clip's own patches, at least one; all only where there is but one.

    Args:
        shape: one of :data:`SHAPES`.
        span: columns or rows of a run, side of a square; unset: each clip draws one of 3, 4 and 5.
        share: share of a clip's patches, columns or rows to hide. A clip of one column, where
            columns are hidden (or of one row, where rows are), has patches of it hidden.
        area: where the clips' patches are.
        draws: where the random numbers come from.

    Source: SSAST (arXiv:2110.09784), section 2.2, hides clusters of 3 to 5 patches square that
    grow to the upper right only, so that its lowest mel row is hidden half as often as the
    middle ones. Here every patch looks at the ``span`` random numbers from its own on, round the
    clip's own border, and the patches that see the lowest are hidden: no edge, and no end to wait
    for. Inverse blocks (Baevski et al. 2022, data2vec 2.0, arXiv:2212.07525, section 3.2) are the
    same with seen for hidden.
    """
    score = _score(shape, span, area, draws).masked_fill(~area.free, torch.inf)
    wanted = counts(share, area.free)
    if shape == "inverse_blocks":
        return (rank(score) >= (area.free.sum(dim=1) - wanted)[:, None]) & area.free
    hidden = rank(score) < wanted[:, None]
    if shape not in ("columns", "rows"):
        return hidden
    axis = 1 if shape == "columns" else 2
    laid = score.unflatten(1, tuple(area.grid))
    lines = laid.amin(dim=axis)
    there = lines.isfinite()
    whole = rank(lines) < counts(share, there)[:, None]
    whole = whole.unsqueeze(axis).expand_as(laid).flatten(1) & area.free
    return torch.where((there.sum(dim=1) > 1)[:, None], whole, hidden)


def counts(share: float, free: Bool[Tensor, "clips places"]) -> Int[Tensor, " clips"]:
    """How many places of each clip to hide: at least one, and one less than all at most."""
    places = free.sum(dim=1)
    wanted = (share * places + 0.5).long().clamp(min=1)
    return torch.minimum(wanted, (places - 1).clamp(min=1))


def rank(score: Float[Tensor, "clips places"]) -> Int[Tensor, "clips places"]:
    """Position of each place when its clip's scores are sorted upwards."""
    return score.argsort(dim=1).argsort(dim=1)


def sides(span: int | None, draws: Draws) -> Int[Tensor, " clips"]:
    """``span`` for every clip; unset: each clip's own draw from :data:`SIDES`."""
    if span is not None:
        return torch.full((draws.clips,), span, device=draws.device)
    low, high = SIDES
    return low + (draws.uniform(1)[:, 0] * (high + 1 - low)).long()


def _score(
    shape: Shape, span: int | None, area: Area, draws: Draws
) -> Float[Tensor, "clips patches"]:
    """A random number for each patch, the lowest of a clip in the shape that is wanted."""
    rows, columns = area.grid
    field = draws.uniform(1 if shape == "columns" else rows, 1 if shape == "rows" else columns)
    if shape != "uniform":
        most = SIDES[1] if span is None else span
        spans = sides(span, draws)
        if shape != "columns":
            down = torch.full_like(area.columns, area.rows)
            field = lowest_around(field.transpose(1, 2), spans, down, most).transpose(1, 2)
        if shape != "rows":
            field = lowest_around(field, spans, area.columns, most)
    # What one number hides together is told apart by column (or row), then by patch.
    line = draws.uniform(rows, 1) if shape == "rows" else draws.uniform(1, columns)
    score = (field.double() + 1e-6 * line).expand(-1, rows, columns).flatten(1)
    return score + 1e-9 * draws.uniform(rows * columns)


def lowest_around(
    field: Float[Tensor, "clips other places"],
    spans: Int[Tensor, " clips"],
    own: Int[Tensor, " clips"],
    most: int,
) -> Float[Tensor, "clips other places"]:
    """The lowest of the numbers from each place on, along the last axis.

    Args:
        field: a number a place.
        spans: how many numbers each clip's places look at.
        own: places of each clip; behind the last comes the first again.
        most: the largest of ``spans``.
    """
    places = field.shape[2]
    step = torch.arange(min(most, places), device=field.device)
    place = torch.arange(places, device=field.device)
    place = (place[:, None] + step) % own[:, None, None]
    around = field.gather(2, place.flatten(1)[:, None].expand(-1, field.shape[1], -1))
    too_far = (step >= spans[:, None])[:, None, None]
    return around.unflatten(2, (places, -1)).masked_fill(too_far, torch.inf).amin(dim=3)
