"""Training's stream of procedural sound, alone or among the clips of shards.

Whole clips of every batch are procedural, spread evenly over it; the others are the clips of the
shards in their own order, none left out. What stands at a position depends on the seed alone.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from sslaudio.data.indexed import ShardStream
from sslaudio.data.plan import key_of
from sslaudio.data.procedural.scenes import scene
from sslaudio.data.stream import Batch, ExactStream

_KEY, _WHOLE_KEY = 21, 22
_MEASURED = 1024
"""Clips that stand for an endless corpus where all were asked for."""


class BlendedStream(ExactStream):
    """One rank's share of batches of procedural and other sound."""

    def _open(self) -> None:
        config = self.config
        self.others = config.batch - round(config.procedural * config.batch)
        """Clips of each batch that the shards give."""
        if self.others == config.batch or (config.procedural < 1 and not self.others):
            raise ValueError(
                f"data.procedural is {config.procedural:g}, which of a batch of {config.batch} "
                f"clips is {config.batch - self.others}; raise data.batch, or set data.procedural "
                f"to {1 / config.batch:g} or more and at most {1 - 1 / config.batch:g}, or 0 or 1"
            )
        self.real = self._shards() if self.others else None
        """The stream of the other clips."""
        self.names = self.real.names if self.real else ["procedural"]
        self.selections = self.real.selections if self.real else []

    @property
    def told(self) -> str:
        """What there is beside procedural sound."""
        share = f"{1 - self.others / self.config.batch:.0%} of each batch procedural sound"
        if self.real:
            return f"{self.real.told}; {share}"
        unheard = ", ".join(self.config.shards)
        return "procedural sound alone" + (f"; nothing of {unheard}" if unheard else "")

    def expected(self) -> list[int] | None:
        """Clips that an epoch has of each corpus that ends."""
        return self.real.expected() if self.real else None

    def epoch(self, position: int) -> int:
        """The epoch of the shards; procedural sound has one."""
        return self.real.epoch(int(self._others_before(np.array(position)))) if self.real else 0

    def read(self, positions: Int64[np.ndarray, "clips"]) -> Batch:
        """The clips at some positions, decoded or made."""
        is_other, places = self._among(positions)
        size = len(places)
        batch = Batch(
            torch.zeros(size, self.clip_samples),
            torch.full((size,), self.clip_samples),
            [f"procedural-{place}" for place in places],
            torch.full((size,), len(self.config.shards)),
            [None] * size,
            [None] * size,
        )
        for row in np.flatnonzero(~is_other):
            batch.waveforms[row] = torch.from_numpy(self._scene(int(places[row]), _KEY))
        if self.real and is_other.any():
            _take(batch, np.flatnonzero(is_other), self.real.read(places[is_other]))
        return batch

    def whole_count(self, most: int | None = None) -> int:
        """Clips of the shards and procedural ones, in their shares."""
        return sum(self._whole_counts(most))

    def whole_clips(self, most: int | None = None) -> Iterator[Float32[Tensor, "samples"]]:
        """Clips of the shards spread evenly over all, then procedural ones of their own."""
        others, made = self._whole_counts(most)
        if self.real:
            yield from self.real.whole_clips(others)
        for number in range(made):
            yield torch.from_numpy(self._scene(number, _WHOLE_KEY))

    def _shards(self) -> ShardStream:
        config = replace(self.config, batch=self.others, procedural=0.0)
        return ShardStream(config, sample_rate=self.sample_rate, seed=self.seed)

    def _whole_counts(self, most: int | None) -> tuple[int, int]:
        if not self.real:
            return 0, most or _MEASURED
        all_others = self.real.whole_count(None)
        share = self.others / self.config.batch
        others = all_others if most is None else max(1, min(all_others, round(most * share)))
        return others, max(1, round(others * (1 - share) / share))

    def _among(
        self, positions: Int64[np.ndarray, "clips"]
    ) -> tuple[Bool[np.ndarray, "clips"], Int64[np.ndarray, "clips"]]:
        """Which positions the shards fill, and each one's place among those of its kind."""
        before = self._others_before(positions)
        is_other = self._others_before(positions + 1) > before
        return is_other, np.where(is_other, before, positions - before)

    def _others_before(self, positions: Int64[np.ndarray, "*any"]) -> Int64[np.ndarray, "*any"]:
        """Clips of the shards that stand before some positions."""
        batch, row = np.divmod(positions, self.config.batch)
        return batch * self.others + row * self.others // self.config.batch

    def _count(self, positions: Int64[np.ndarray, "clips"], batch: Batch) -> None:
        if self.real:
            is_other, places = self._among(positions)
            corrupt = [batch.corrupt[row] for row in np.flatnonzero(is_other)]
            epochs = places[is_other] // self.real.plan.epoch_clips
            self.tally.add(epochs, batch.sources.numpy()[is_other], corrupt)

    def _scene(self, number: int, key: int) -> Float32[np.ndarray, "samples"]:
        return scene(key_of(self.seed, key), number, self.clip_samples, self.sample_rate)


def _take(batch: Batch, rows: Int64[np.ndarray, "others"], others: Batch) -> None:
    """Put clips of the shards into their rows."""
    at = torch.from_numpy(rows)
    for field in ("waveforms", "lengths", "sources"):
        getattr(batch, field)[at] = getattr(others, field)
    for field in ("keys", "recordings", "corrupt"):
        for row, value in zip(rows, getattr(others, field), strict=True):
            getattr(batch, field)[row] = value
