"""SSAST's masks as its published code draws them, faults and all.

Source: YuanGongND/ssast, src/models/ast_models.py, ``gen_maskid_patch`` and ``gen_maskid_frame``.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sslaudio.augments.base import Draws
from sslaudio.objectives.masks import SIDES, Area, counts, hide, sides


def hide_as_ssast(share: float, area: Area, draws: Draws) -> Bool[Tensor, "clips patches"]:
    """Clusters on a grid of several rows, single patches on one of one row.

    The code draws starts, over and over, and hides from each a square of a side that the clip drew
    once (3, 4 or 5), towards later and higher patches; what leaves the grid on the right comes in
    on the left a row higher, and the very first patch never is hidden. It stops when more are
    hidden than are wanted and keeps the lowest numbers, so that low mel rows are hidden seldom
    and the last patches of a clip hardly ever. Where nearly all are wanted it never stops.

    Here every start has a random number for the moment of its first draw, of which the order alone
    matters. A patch is hidden from the lowest of its starts' moments on, and the moment when the
    code stops is that of the first patch too many: the same masks, without the loop. It hides
    all but two patches at most, and of a single patch nothing.
    """
    if area.rows == 1:
        return hide("uniform", None, share, area, draws)
    rows, columns = area.grid
    moments = draws.uniform(rows * columns)
    side = sides(None, draws)
    moments = _lowest_before(moments, side, torch.ones_like(side))
    moments = _lowest_before(moments, side, area.columns)
    patches = area.rows * area.columns
    place = torch.arange(rows * columns, device=moments.device)
    never = (place == 0) | (place >= patches[:, None])
    moments = moments.masked_fill(never, torch.inf)
    wanted = torch.minimum(counts(share, area.free), (patches - 2).clamp(min=1))[:, None]
    end = moments.sort(dim=1).values.gather(1, wanted.clamp(max=rows * columns - 1))
    hidden = (moments <= end) & moments.isfinite()
    hidden &= hidden.cumsum(dim=1) <= wanted
    # So far patches are counted on each clip's own grid.
    own = place // columns * area.columns[:, None] + place % columns
    return hidden.gather(1, own.clamp(max=rows * columns - 1)) & area.free


def _lowest_before(
    moments: Float[Tensor, "clips places"], side: Int[Tensor, " clips"], step: Int[Tensor, " clips"]
) -> Float[Tensor, "clips places"]:
    """The lowest of ``side`` moments: a place's own, that ``step`` places before, and so on."""
    back = torch.arange(SIDES[1], device=moments.device)
    place = torch.arange(moments.shape[1], device=moments.device)[:, None]
    place = place - (back * step[:, None])[:, None]
    out = (place < 0) | (back >= side[:, None])[:, None]
    before = moments.gather(1, place.clamp(min=0).flatten(1)).view_as(place)
    return before.masked_fill(out, torch.inf).amin(dim=2)
