"""Decomposed relative positions: one table an axis, for grids and clips of any size.

The weight of a key at distance (rows, columns) from a query grows by q·(R_rows + R_columns).

Source: Li et al. 2022 (MViTv2, arXiv:2112.01526), section 4.1, as SS-MAST (arXiv:2211.01515)
takes it over; on the query that is not yet divided by the root of its width, as the code of both
has it. SlowFast's code stretches a table to the batch's grid; here a clip gets what its own length
asks for: its distances themselves where the table holds them, the table stretched where not.
"""

from math import ceil

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sslaudio.backbones.axis import Axis
from sslaudio.backbones.positions import between


class RelativeTable(nn.Module):
    """A learned vector for every distance between a query and a key along one axis.

    Distances are counted in the finer of the two grids. The table is laid out as MViTv2's:
    ``2 * reach - 1`` entries, distance 0 at ``reach - ratio`` where a key covers ``ratio`` queries.
    """

    def __init__(self, size: int, query_stride: int, key_stride: int, width: int) -> None:
        """For block inputs of ``size`` tokens, pooled by the strides to queries and keys."""
        super().__init__()
        finer = min(query_stride, key_stride)
        self.query_step, self.key_step = query_stride // finer, key_stride // finer
        self.query_stride, self.key_stride = query_stride, key_stride
        self.table = nn.Parameter(torch.zeros(2 * self._reach(size) - 1, width))
        nn.init.trunc_normal_(self.table, std=0.02)

    def _reach(self, size: int) -> int:
        """Distances one way on a block input of ``size`` tokens."""
        return ceil(size / self.key_stride) * self.key_step

    def fitted(self, table: Float[Tensor, "entries width"]) -> Float[Tensor, "entries2 width"]:
        """Another grid's table for this one: the same distances, or stretched where it has few."""
        there, here = (len(table) + 1) // 2, (len(self.table) + 1) // 2
        distance = torch.arange(len(self.table), device=table.device) - (here - self.key_step)
        share = min(1.0, (there - self.key_step) / max(1, here - self.key_step))
        entry = (there - self.key_step + share * distance).clamp(0, len(table) - 1)
        return between(table, entry[None])[0]

    def forward(
        self, query: Axis, key: Axis, size: int, device: torch.device
    ) -> Float[Tensor, "clips_or_1 queries keys width"]:
        """The vector of every pair.

        Args:
            query: the queries' axis.
            key: the keys' axis.
            size: of the whole axis that both were pooled from.
            device: where to.
        """
        distance = (
            query.places(device)[:, :, None] * self.query_step
            - key.places(device)[:, None] * self.key_step
        )
        reach = (len(self.table) + 1) // 2
        zero = reach - self.key_step
        longest = self._reach(size)
        if longest <= reach:
            entry = (distance + zero).clamp(0, len(self.table) - 1)
            return nn.functional.embedding(entry, self.table)
        own = torch.tensor([longest], device=device)
        if key.count is not None:
            own = key.count * self.key_step
        share = (reach - self.key_step) / (own - self.key_step).clamp(min=1)
        share = share.where(own > reach, 1.0)
        entry = (zero + share[:, None, None] * distance).clamp(0, len(self.table) - 1)
        return between(self.table, entry.flatten(1)).unflatten(1, entry.shape[1:])
