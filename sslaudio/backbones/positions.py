"""Learned positions on a grid, for clips of any length."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sslaudio.backbones.base import Grid


class LearnedPositions(nn.Module):
    """A learned vector for every place of a grid of the training clips' size.

    A clip with fewer columns takes the first ones; a clip with more takes the table stretched in
    time to its own length, linearly. Both depend on the clip alone, never on its batch.

    Learning starts from sines of amplitude 1. The usual start, noise of deviation 0.02, drowns
    beside patch embeddings of deviation 1: masked prediction then idles for hundreds of steps
    until positions have grown (docs/results.md).

    Source: Gong et al. 2021 (AST, arXiv:2104.01778), section 2.2, which cuts the middle out for
    shorter clips, so that the same second of sound gets another position in a shorter clip.
    """

    def __init__(self, grid: Grid, dim: int) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(sines(grid, dim))

    def forward(
        self, columns: Int[Tensor, " clips"], width: int
    ) -> Float[Tensor, "clips_or_1 patches dim"]:
        """Positions of every patch.

        Args:
            columns: how many columns of each clip are sound.
            width: columns of the batch's grid; what lies beyond a clip's own is left at 0.
        """
        if width <= self.grid.columns:
            return self.table[:, :width].flatten(0, 1)[None]
        lengths, which = columns.unique(return_inverse=True)
        return torch.stack([self._stretched(int(n), width) for n in lengths])[which]

    def _stretched(self, columns: int, width: int) -> Float[Tensor, "patches dim"]:
        table = self.table[:, :columns]
        if columns > self.grid.columns:
            rows = self.table.permute(0, 2, 1)
            rows = nn.functional.interpolate(rows, columns, mode="linear", align_corners=False)
            table = rows.permute(0, 2, 1)
        return nn.functional.pad(table, (0, 0, 0, width - table.shape[1])).flatten(0, 1)


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
