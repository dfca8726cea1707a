"""Which patches to hide: any share of any grid, for clips of any length, without loops.

In:  where a clip's patches are sound, random numbers, the share to hide.
Out: a boolean mask, exactly ``round(share * patches)`` of each clip's own patches hidden.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sslaudio.backbones.base import Grid

SHAPES = ("uniform", "columns", "clusters")
"""Ways to choose patches: each by itself, whole columns of time first, or smooth blobs."""


def hide(
    shape: str,
    share: float,
    sound: Bool[Tensor, "clips patches"],
    grid: Grid,
    draws: Float[Tensor, "clips patches"],
) -> Bool[Tensor, "clips patches"]:
    """Hide ``share`` of each clip's own patches, at least one and never all.

    Args:
        shape: one of :data:`SHAPES`.
        share: share of a clip's patches to hide.
        sound: patches that are not wholly padding.
        grid: rows and columns that ``patches`` is laid out in.
        draws: uniform numbers in [0, 1), one a patch.

    Source: SSAST (arXiv:2110.09784), section 2.2, hides clusters of 3 to 5 patches square that
    grow to the upper right only, so that its lowest mel row is hidden half as often as the
    middle ones. A smoothed random field, ranked, has no such edge and always ends.
    """
    score = draws
    if shape == "columns":
        first = draws.view(-1, grid.rows, grid.columns)[:, :1]
        # Ties inside a column fall by other digits of the draws, independent of the first row's.
        score = first.expand(-1, grid.rows, -1).flatten(1) + 1e-3 * (draws * 997 % 1)
    elif shape == "clusters":
        score = _smoothed(draws, grid)
    return rank(score.masked_fill(~sound, 2.0)) < counts(share, sound)[:, None]


def counts(share: float, sound: Bool[Tensor, "clips patches"]) -> Int[Tensor, " clips"]:
    """How many patches of each clip to hide: at least one, and one less than all at most."""
    patches = sound.sum(dim=1)
    wanted = (share * patches + 0.5).long().clamp(min=1)
    return torch.minimum(wanted, (patches - 1).clamp(min=1))


def rank(score: Float[Tensor, "clips patches"]) -> Int[Tensor, "clips patches"]:
    """Place of each patch when its clip's scores are sorted upwards."""
    return score.argsort(dim=1).argsort(dim=1)


def _smoothed(draws: Float[Tensor, "clips patches"], grid: Grid) -> Float[Tensor, "clips patches"]:
    """A random field averaged over 3 by 3 neighbours, every place equally likely to be low.

    At the border fewer neighbours are averaged; dividing by the root of their number gives
    every place the same spread.
    """
    field = draws.view(-1, 1, grid.rows, grid.columns) - 0.5
    ones = torch.ones_like(field[:1])
    kernel = torch.ones(1, 1, 3, 3, device=field.device)
    total = torch.nn.functional.conv2d(field, kernel, padding=1)
    neighbours = torch.nn.functional.conv2d(ones, kernel, padding=1)
    return (total / neighbours.sqrt()).flatten(1)
