"""Which patches to hide: any share of any grid, for clips of any length, without loops.

In:  where a clip's patches are sound, random numbers, the share to hide and its shape.
Out: a boolean mask, exactly ``round(share * patches)`` of each clip's own patches hidden.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sslaudio.augments.base import Draws
from sslaudio.backbones.base import Grid

SHAPES = ("uniform", "columns", "clusters")
"""Ways to choose patches: each by itself, whole columns of time, or squares."""


def hide(
    shape: str,
    span: int,
    share: float,
    sound: Bool[Tensor, "clips patches"],
    grid: Grid,
    draws: Draws,
) -> Bool[Tensor, "clips patches"]:
    """Hide ``share`` of each clip's own patches, at least one; all only where there is but one.

    Args:
        shape: one of :data:`SHAPES`.
        span: columns of a run (``columns``), or side of a square (``clusters``).
        share: share of a clip's patches to hide.
        sound: patches that are not wholly padding.
        grid: rows and columns that ``patches`` is laid out in.
        draws: where the random numbers come from.

    Source: SSAST (arXiv:2110.09784), section 2.2, hides clusters of 3 to 5 patches square that
    grow to the upper right only, so that its lowest mel row is hidden half as often as the
    middle ones. Here every patch looks at the ``span`` random numbers from its own on, round the
    border, and the patches that see the lowest are hidden: no edge, and no end to wait for.
    """
    rows, columns = grid
    high, wide = {"uniform": (1, 1), "columns": (1, span), "clusters": (span, span)}[shape]
    high, wide = min(high, rows), min(wide, columns)
    field = draws.uniform(1, 1 if shape == "columns" else rows, columns)
    around = nn.functional.pad(field, (0, wide - 1, 0, high - 1), mode="circular")
    lowest = -nn.functional.max_pool2d(-around, (high, wide), stride=1)
    # What one number hides together is told apart by column, then by patch.
    score = lowest.double() + 1e-6 * draws.uniform(1, 1, columns)
    score = score[:, 0].expand(-1, rows, -1).flatten(1) + 1e-9 * draws.uniform(rows * columns)
    return rank(score.masked_fill(~sound, 2.0)) < counts(share, sound)[:, None]


def counts(share: float, sound: Bool[Tensor, "clips patches"]) -> Int[Tensor, " clips"]:
    """How many patches of each clip to hide: at least one, and one less than all at most."""
    patches = sound.sum(dim=1)
    wanted = (share * patches + 0.5).long().clamp(min=1)
    return torch.minimum(wanted, (patches - 1).clamp(min=1))


def rank(score: Float[Tensor, "clips patches"]) -> Int[Tensor, "clips patches"]:
    """Place of each patch when its clip's scores are sorted upwards."""
    return score.argsort(dim=1).argsort(dim=1)
