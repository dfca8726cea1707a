"""Learned positions on a grid, for clips of any length and grids of any size."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sslaudio.backbones.base import Grid

Rule = Literal["resized", "legacy_cut"]
"""How a table serves another grid. Where that has more places along an axis, the table is stretched
linearly, under either rule. Where it has fewer, ``legacy_cut`` cuts them out of the table's middle;
``resized`` shrinks the table when weights are loaded, and gives a clip that is shorter than the
table the first columns."""

Shrunk = Literal["first", "middle", "all"]
"""Which entries of a table a shorter axis gets."""


class LearnedPositions(nn.Module):
    """A learned vector for every place of a grid of the training clips' size.

    What a clip gets depends on its own length alone, never on its batch.

    Learning starts from sines of amplitude 1. The usual start, noise of deviation 0.02, drowns
    beside patch embeddings of deviation 1: masked prediction then idles for hundreds of steps
    until positions have grown (docs/results.md).

    Source: Gong et al. 2021 (AST, arXiv:2104.01778), section 2.2, whose code cuts the middle out
    for shorter clips (``legacy_cut``), so that the same second of sound gets another position in a
    shorter clip.
    """

    def __init__(self, grid: Grid, dim: int, rule: Rule = "resized") -> None:
        super().__init__()
        self.grid = grid
        self.rule = rule
        self.table = nn.Parameter(sines(grid, dim))

    def forward(
        self, columns: Int[Tensor, " clips"] | None, width: int
    ) -> Float[Tensor, "clips_or_1 patches dim"]:
        """Positions of every patch.

        Args:
            columns: how many columns of each clip are sound; unset: ``width``.
            width: columns of the batch's grid; what lies beyond a clip's own is arbitrary.
        """
        if self.rule == "resized" and width <= self.grid.columns:
            return self.table[:, :width].flatten(0, 1)[None]
        if columns is None:
            columns = torch.full((1,), width, device=self.table.device)
        place = torch.arange(width, device=columns.device)
        shrunk: Shrunk = "first" if self.rule == "resized" else "middle"
        places = source(place, columns, self.grid.columns, shrunk)
        return between(self.table.transpose(0, 1), places).transpose(1, 2).flatten(1, 2)


def fit(
    table: Float[Tensor, "rows columns dim"], grid: Grid, rule: Rule
) -> Float[Tensor, "rows2 columns2 dim"]:
    """A table for another grid, each axis by itself.

    Source of ``legacy_cut``: AST's code, src/models/ast_models.py, in either of its two imports.
    """
    shrunk: Shrunk = "all" if rule == "resized" else "middle"
    for axis, count in enumerate(grid):
        places = source(
            torch.arange(count, device=table.device),
            torch.tensor([count], device=table.device),
            table.shape[axis],
            shrunk,
        )
        table = between(table.transpose(0, axis), places)[0].transpose(0, axis)
    return table


def source(
    place: Int[Tensor, " places"],
    count: Int[Tensor, " clips"],
    there: int,
    shrunk: Shrunk,
) -> Float[Tensor, "clips places"]:
    """Where in a table of ``there`` entries each ``place`` of an axis of ``count`` lies.

    A longer axis is stretched over the table with the borders of the outer entries on each other
    (``align_corners`` false). A shorter one takes the ``first`` entries, those in the ``middle``,
    or is shrunk over ``all``.
    """
    count = count[:, None]
    stretched = (place + 0.5) * (there / count) - 0.5
    if shrunk == "all":
        return stretched.clamp(0, there - 1)
    start = there // 2 - count // 2 if shrunk == "middle" else torch.zeros_like(count)
    return torch.where(count > there, stretched, (place + start).float()).clamp(0, there - 1)


def between(
    table: Float[Tensor, "there *values"], places: Float[Tensor, "clips places"]
) -> Float[Tensor, "clips places *values"]:
    """Entries of a table at whole places, and linearly between them."""
    low = places.floor()
    share = (places - low).reshape(*places.shape, *(1,) * (table.dim() - 1))
    low = low.long()
    high = (low + 1).clamp(max=len(table) - 1)
    return table[low] * (1 - share) + table[high] * share


def sines(grid: Grid, dim: int) -> Float[Tensor, "rows columns dim"]:
    """Sines and cosines of the column, and of the row where there are several, half of dim each.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.5, on two axes as MAE lays it out.
    """

    def wave(places: int, width: int) -> Float[Tensor, "places width"]:
        rates = 10_000.0 ** (-torch.arange((width + 1) // 2) / ((width + 1) // 2))
        phase = torch.arange(places)[:, None] * rates
        return torch.cat([phase.sin(), phase.cos()], dim=1)[:, :width]

    in_time = dim - dim // 2 if grid.rows > 1 else dim
    columns = wave(grid.columns, in_time).expand(grid.rows, -1, -1)
    rows = wave(grid.rows, dim - in_time)[:, None].expand(-1, grid.columns, -1)
    return torch.cat([rows, columns], dim=2)
