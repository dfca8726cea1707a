"""Which clips of a folder of shards take part: by split, without the excluded ones.

In:  an opened index, the wanted splits, the excluded members of each shard.
Out: how many of each shard's clips take part, and which member the n-th of them is.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Int64

from sslaudio.data.index import SPLIT_CODES, Index

Split = Literal["train", "validation", "test", "noise", "all"]
"""``train`` is also every clip without a split (ESC-50 has folds only); ``all`` is everything."""


def splits_of(split: Split) -> tuple[str, ...]:
    """The clips' ``split`` values that a wanted split stands for; "" is none."""
    return {"all": SPLIT_CODES, "train": ("", "train")}.get(split, (split,))


@dataclass
class Selection:
    """The clips of one folder that take part."""

    index: Index
    splits: tuple[str, ...]
    """Wanted values of ``split``."""
    excluded: dict[int, np.ndarray]
    """Members to leave out, by shard."""
    _members: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def counts(self) -> Int64[np.ndarray, "shards"]:
        """Clips of each shard that take part; opens only shards that have excluded clips."""
        counts = self.index.split_counts(self.splits)
        for shard in self.excluded:
            counts[shard] = len(self.members(shard))
        return counts

    def members(self, shard: int) -> np.ndarray:
        """Members of a shard that take part, in the tar's order."""
        if shard not in self._members:
            offsets = self.index.offsets(shard)
            taken = np.isin(offsets["split"], [SPLIT_CODES.index(s) for s in self.splits])
            taken[self.excluded.get(shard, np.empty(0, np.int64))] = False
            self._members[shard] = np.flatnonzero(taken).astype(np.uint32)
        return self._members[shard]

    def seconds(self) -> float:
        """Sound that takes part."""
        totals = self.index.totals.splits
        seconds = sum(totals[split]["seconds"] for split in self.splits if split in totals)
        codes = [SPLIT_CODES.index(split) for split in self.splits]
        for shard, members in self.excluded.items():
            rows = self.index.offsets(shard)[members]
            lost = rows["samples"][np.isin(rows["split"], codes)]
            seconds -= int(lost.sum()) / self.index.sample_rate
        return seconds
