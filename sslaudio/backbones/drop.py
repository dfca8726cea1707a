"""Which patches leave before the backbone: patch-drop, drawn for each clip by itself.

In:  a backbone, the clips' lengths, the share to drop and its shape, random numbers; or a mask of
what stays.
Out: :class:`sslaudio.backbones.base.Kept`.

Source: Ghosh et al. 2022 (SS-MAST, arXiv:2211.01515), section 2: a share of the patches of the
log-mel is dropped before the encoder. Its code draws one set for the whole batch, in random order,
and breaks the grid that pooling needs.
"""

from math import sqrt

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sslaudio.augments.base import Draws
from sslaudio.backbones.base import Backbone, Grid, Kept, sounding

SHAPES = ("patches", "columns", "rows", "both")
"""Each patch by itself, whole columns of time, whole rows of frequency, or some of both."""


def check_share(share: float) -> None:
    """Refuse an ``objective.drop_share`` that is none.

    Raises:
        ValueError: it is below 0, or would leave nothing.
    """
    if not 0 <= share < 1:
        raise ValueError(
            f"objective.drop_share is {share:g}; it is the share of patches dropped, at least 0 "
            f"and under 1 (SS-MAST: 0.2)"
        )


def keep(
    backbone: Backbone,
    frames: Int[Tensor, " clips"],
    width: int,
    share: float,
    draws: Draws,
    shape: str | None = None,
) -> Kept:
    """Draw the patches that stay; every clip keeps at least one.

    Args:
        backbone: whose grid is drawn on.
        frames: columns of each picture that are sound.
        width: frames of the batch's pictures.
        share: share of a clip's own patches, columns or rows to drop, rounded to whole ones.
        draws: where the random numbers come from.
        shape: one of :data:`SHAPES`; unset: the backbone's usual one.

    Raises:
        ValueError: the backbone cannot drop this shape, or the share is none.
    """
    shape = shape or backbone.drop_shapes[0]
    if shape not in backbone.drop_shapes:
        raise ValueError(
            f"{type(backbone).__name__} cannot drop {shape!r}, only "
            f"{', '.join(backbone.drop_shapes)}: what is left must stay a grid"
        )
    if not 0 <= share < 1:
        raise ValueError(f"a share of {share:g} cannot be dropped; it is at least 0 and under 1")
    grid = backbone.grid(width)
    columns = backbone.columns(frames)
    if shape == "patches":
        sound = sounding(grid, columns)
        score = draws.uniform(sound.shape[1]).masked_fill(~sound, 2.0)
        index, seen = _lowest(score, columns * grid.rows, share)
        return Kept(index, seen, 1, _left(seen, columns * grid.rows))
    by_row = {"columns": 0.0, "rows": share, "both": 1 - sqrt(1 - share)}[shape]
    by_column = {"columns": share, "rows": 0.0, "both": 1 - sqrt(1 - share)}[shape]
    place = torch.arange(grid.columns, device=frames.device)
    score = draws.uniform(grid.columns).masked_fill(place >= columns[:, None], 2.0)
    column, seen = _lowest(score, columns, by_column)
    row, _ = _lowest(draws.uniform(grid.rows), torch.full_like(columns, grid.rows), by_row)
    index = (row[:, :, None] * grid.columns + column[:, None]).flatten(1)
    seen = seen.repeat(1, row.shape[1])
    return Kept(index, seen, row.shape[1], _left(seen, columns * grid.rows))


def staying(
    stays: Bool[Tensor, "clips patches"],
    grid: Grid,
    shape: str,
    patches: Int[Tensor, " clips"],
) -> Kept:
    """Keep the patches of a mask.

    Args:
        stays: which patches of each clip stay, at least one; whole columns or whole rows of it,
            where these are what the shape says.
        grid: rows and columns of ``stays``.
        shape: ``patches``, ``columns`` or ``rows``.
        patches: how many each clip has.
    """
    if shape == "patches":
        index, seen = _first(stays)
        return Kept(index, seen, 1, _left(seen, patches))
    laid = stays.unflatten(1, tuple(grid))
    row, _ = _first(laid.any(dim=2))
    column, seen = _first(laid.any(dim=1))
    index = (row[:, :, None] * grid.columns + column[:, None]).flatten(1)
    seen = seen.repeat(1, row.shape[1])
    return Kept(index, seen, row.shape[1], _left(seen, patches))


def _first(stays: Bool[Tensor, "clips places"]) -> tuple[Int[Tensor, "clips kept"], Tensor]:
    """The places that stay, rising, filled up with others to the largest count; and which do."""
    most = max(1, int(stays.sum(dim=1).max()))
    index = stays.int().argsort(dim=1, descending=True, stable=True)[:, :most].sort(dim=1).values
    return index, stays.gather(1, index)


def _lowest(
    score: Float[Tensor, "clips places"], count: Int[Tensor, " clips"], share: float
) -> tuple[Int[Tensor, "clips kept"], Tensor]:
    """The places of each clip's lowest scores, rising, and which of them are its own."""
    places = score.shape[1]
    most = max(1, places - int(share * places + 0.5))
    order = score.argsort(dim=1)[:, :most]
    wanted = (count - (share * count + 0.5).long()).clamp(min=1)
    own = torch.arange(most, device=score.device) < wanted[:, None]
    index, back = order.sort(dim=1)
    return index, own.gather(1, back)


def _left(seen: Tensor, patches: Int[Tensor, " clips"]) -> Float[Tensor, ""]:
    return 1 - seen.sum() / patches.sum()
