"""Training's stream of shards with an index: any position of an endless order, at once.

What stands at a position depends on the seed alone (:mod:`sslaudio.data.plan`), so the position is
the whole state, for any number of ranks and workers.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt64
from torch import Tensor

from sslaudio.data.crops import At, Crop, Crops
from sslaudio.data.index import CorruptError
from sslaudio.data.kept import Kept
from sslaudio.data.plan import Plan, key_of, uniform
from sslaudio.data.range_cache import RangeCache
from sslaudio.data.selection import open_selections
from sslaudio.data.stream import Batch, ExactStream
from sslaudio.data.tally import Corrupt

_CROP_KEY, _REPLACEMENT_KEY = 3, 4
_LONGEST_EPOCH = 2**31
"""Clips of an epoch whose square is a 64-bit number: the plan multiplies such."""
_REPLACEMENTS = 16
"""Clips that are tried in the place of a corrupt one."""


class ShardStream(ExactStream):
    """One rank's share of the endless order of the clips."""

    def _open(self) -> None:
        config = self.config
        self.selections, weights = open_selections(
            config.shards,
            split=config.split,
            exclude=config.exclude,
            sample_rate=self.sample_rate,
            cache=RangeCache(Path(config.cache), config.cache_megabytes) if config.cache else None,
        )
        self.plan = Plan(
            tuple(selection.counts() for selection in self.selections),
            weights,
            self.seed,
            batch=config.batch,
            recordings=self._recordings,
        )
        self._check_clips()
        kept = Kept(config.kept_megabytes * 2**20 // max(1, config.workers))
        self.crops = Crops(self.selections, self.clip_samples, kept)
        corpora = [selection.index.corpus for selection in self.selections]
        self.names = [
            name if corpora.count(name) == 1 else f"{name}_{number}"
            for number, name in enumerate(corpora)
        ]

    @property
    def clips(self) -> int:
        """Clips that take part."""
        return self.plan.clips

    @property
    def seconds(self) -> float:
        """Sound that takes part."""
        return sum(selection.seconds() for selection in self.selections)

    @property
    def told(self) -> str:
        """Clips and hours."""
        return f"{self.clips:,} clips, {self.seconds / 3600:.2f} h"

    def expected(self) -> list[int]:
        """Clips that an epoch has of each corpus."""
        return self.plan.draws

    def epoch(self, position: int) -> int:
        """The epoch that the clip at ``position`` belongs to, 0 the first."""
        return self.plan.epoch(position)

    def whole_count(self, most: int | None = None) -> int:
        """All, or so many at most."""
        return min(self.clips, most or self.clips)

    def whole_clips(self, most: int | None = None) -> Iterator[Float32[Tensor, "samples"]]:
        """Spread evenly over all, in the order of folders, shards and the clips in a shard."""
        if most is not None and most < 1:
            raise ValueError(f"there are no {most} clips to take; ask for 1 or more")
        taken = self.whole_count(most)
        return self._whole(np.arange(taken) * self.clips // taken)

    def read(self, positions: Int64[np.ndarray, "clips"]) -> Batch:
        """The clips at some positions, decoded."""
        places = self.plan.locate(positions)
        chances = uniform(positions, key_of(self.seed, _CROP_KEY)).tolist()
        at = list(map(At, places.source.tolist(), places.shard.tolist(), places.nth.tolist()))
        crops: list[Crop] = []
        corrupt: list[Corrupt | None] = []
        for row, found in enumerate(self.crops.read(at, chances)):
            if isinstance(found, CorruptError):
                crops.append(self._another(at[row].source, int(positions[row]), found))
                corrupt.append(Corrupt.of(found))
            else:
                crops.append(found)
                corrupt.append(None)
        waveforms = np.zeros((len(crops), self.clip_samples), np.float32)
        for row, crop in enumerate(crops):
            waveforms[row, : len(crop.waveform)] = crop.waveform
        return Batch(
            torch.from_numpy(waveforms),
            torch.tensor([len(crop.waveform) for crop in crops]),
            [crop.key for crop in crops],
            torch.from_numpy(places.source),
            [crop.recording for crop in crops],
            corrupt,
        )

    def _another(self, source: int, position: int, error: CorruptError) -> Crop:
        """A crop of another clip of the folder in place of the one at a position."""
        for at, chance in self._others(source, position):
            [found] = self.crops.read([at], [chance])
            if not isinstance(found, CorruptError):
                return found
        raise error

    def _others(self, source: int, position: int) -> Iterator[tuple[At, float]]:
        """Clips of a folder; last come those whose recording the batch of a position hears."""
        first = position - position % self.config.batch
        batch = self.plan.locate(np.arange(first, first + self.config.batch))
        mine = batch.source == source
        places = zip(batch.shard[mine].tolist(), batch.nth[mine].tolist(), strict=True)
        heard = {int(self._recordings(source, shard)[nth]) for shard, nth in places}
        last = []
        for attempt in range(_REPLACEMENTS):
            key = key_of(self.seed, _REPLACEMENT_KEY, attempt)
            turn, chance = uniform(np.array([position, -1 - position]), key).tolist()
            at = At(source, *self.plan.some(source, turn))
            if int(self._recordings(source, at.shard)[at.nth]) in heard:
                last.append((at, chance))
            else:
                yield at, chance
        yield from last

    def _recordings(self, source: int, shard: int) -> UInt64[np.ndarray, "clips"]:
        return self.selections[source].recordings(shard)

    def _whole(self, wanted: Int64[np.ndarray, "clips"]) -> Iterator[Float32[Tensor, "samples"]]:
        """Whole clips by their number among those that take part, rising."""
        counts = np.concatenate(self.plan.counts)
        ends = np.cumsum(counts)
        shards = np.searchsorted(ends, wanted, "right")
        firsts = np.cumsum([0, *map(len, self.plan.counts)])
        sources = np.searchsorted(firsts, shards, "right") - 1
        columns = sources, shards - firsts[sources], wanted - (ends - counts)[shards]
        for found in self.crops.whole(map(At, *(column.tolist() for column in columns))):
            if isinstance(found, CorruptError):
                warnings.warn(f"left out: {found}", stacklevel=2)
            else:
                yield torch.from_numpy(found)

    def _count(self, positions: Int64[np.ndarray, "clips"], batch: Batch) -> None:
        epochs = positions // self.plan.epoch_clips
        self.tally.add(epochs, batch.sources.numpy(), batch.corrupt)

    def _check_clips(self) -> None:
        if self.clips < self.config.batch:
            raise ValueError(
                f"data.batch is {self.config.batch}, but data.shards gives {self.clips} clips of "
                f"split {self.config.split!r}; set data.batch to {self.clips} or fewer"
            )
        if self.plan.epoch_clips > _LONGEST_EPOCH:
            raise ValueError(
                f"the weights of data.shards make an epoch of {self.plan.epoch_clips:.3g} clips, "
                f"more than {_LONGEST_EPOCH:,}; weights are relative, so give lower ones"
            )
