"""The stream that training drinks from: shards in, endless batches of waveforms out.

In:  folders of shards, and a position: clips taken by all ranks together since training began.
Out: this rank's micro-batches from there on: random crops of ``clip_seconds``, zero-padded,
     with their true lengths.

A global batch is the positions [p, p + batch), cut into accumulation x ranks equal parts;
micro-batch ``a`` of rank ``r`` is part ``a * ranks + r``. What stands at a position depends on
the seed alone (:mod:`sslaudio.data.plan`), so the position is the whole state.
"""

import functools
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt64
from torch import Tensor

from sslaudio.data.crops import At, Crop, Crops
from sslaudio.data.index import CorruptError
from sslaudio.data.kept import Kept
from sslaudio.data.loader import read_ahead
from sslaudio.data.plan import Plan, key_of, uniform
from sslaudio.data.range_cache import RangeCache
from sslaudio.data.selection import Split, open_selections
from sslaudio.data.tally import Corrupt, Tally

_CROP_KEY, _REPLACEMENT_KEY = 3, 4
_REPLACEMENTS = 16
"""Clips that are tried in the place of a corrupt one."""


@dataclass(frozen=True)
class Config:
    """What to hear, and how much at a time."""

    shards: tuple[str, ...] = ()
    """Folders of shards: ``DIR``, or ``DIR=weight``. The weight says how often a clip of that
    folder is drawn relative to a clip of a folder of weight 1; every clip of a folder is drawn
    once before any comes again."""
    batch: int = 128
    """Clips an optimiser step, over all ranks and accumulation."""
    clip_seconds: float = 1.0
    """Longer clips give a random crop of this length; shorter ones are padded with zeros."""
    split: Split = "train"
    """Which clips: ``train`` takes clips of that split or of none; ``all`` takes background
    noise too."""
    exclude: tuple[str, ...] = ()
    """Text files of clips to leave out, a rule a line: ``speaker:george``, ``fold:4``,
    ``recording:100032``, ``label:dog``, or a bare key, source or recording; before it
    ``fsdd: `` for one corpus alone."""
    corrupt_share: float = 0.01
    """Share of the clips read that may be corrupt; with more, from 1,000 read on, the run stops.
    Another clip of the same folder takes the place of a corrupt one."""
    corrupt_in_a_row: int = 100
    """Corrupt clips in a row that stop the run."""
    cache: str = ""
    """Folder that keeps what was read from addresses (``https://…``, ``s3://…``), for the next
    epoch and the next run; empty: nothing is kept. Changes no result."""
    cache_megabytes: float = 10_000.0
    """Most that the folder ``cache`` holds; what was asked for longest ago goes first."""
    workers: int = 0
    """Processes that decode ahead; 0 decodes in the training process. Changes no result."""
    kept_megabytes: int = 256
    """Memory, of each training process and shared out among its workers, for clips of FLAC shards
    that stay decoded; an hour of sound takes 115. 0 keeps none. Changes no result."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"data.batch is {self.batch}; set it to 1 or more")
        if not 0 < self.clip_seconds < math.inf:
            raise ValueError(f"data.clip_seconds is {self.clip_seconds:g}; set it above 0")
        if self.workers < 0:
            raise ValueError(f"data.workers is {self.workers}; set it to 0 or more")
        if self.kept_megabytes < 0:
            raise ValueError(f"data.kept_megabytes is {self.kept_megabytes}; set it to 0 or more")
        if not 0 <= self.corrupt_share <= 1:
            raise ValueError(f"data.corrupt_share is {self.corrupt_share:g}; it is a share, 0 to 1")
        if self.corrupt_in_a_row < 1:
            raise ValueError(
                f"data.corrupt_in_a_row is {self.corrupt_in_a_row}; set it to 1 or more"
            )
        if not 0 < self.cache_megabytes < math.inf:
            raise ValueError(f"data.cache_megabytes is {self.cache_megabytes:g}; set it above 0")

    def clip_samples(self, sample_rate: int) -> int:
        """Samples of ``clip_seconds`` at a rate in Hz."""
        return max(1, round(self.clip_seconds * sample_rate))

    def check_share(self, rank: int, ranks: int, accumulation: int) -> None:
        """Refuse what gives no whole micro-batches.

        Raises:
            ValueError: the batch does not divide, or there is no such rank.
        """
        if not 0 <= rank < ranks or accumulation < 1:
            raise ValueError(
                f"there is no rank {rank} of {ranks} processes with {accumulation} micro-batches; "
                f"ranks count from 0, training.accumulation from 1"
            )
        parts = ranks * accumulation
        if self.batch % parts:
            raise ValueError(
                f"data.batch is {self.batch}, which {ranks} processes x {accumulation} "
                f"accumulated micro-batches cannot share equally; set data.batch to "
                f"{-(-self.batch // parts) * parts} or another multiple of {parts}"
            )


@dataclass(frozen=True)
class Batch:
    """Clips that go through the model together."""

    waveforms: Float32[Tensor, "clips samples"]
    """Mono, in [-1, 1], zero behind each clip's end."""
    lengths: Int64[Tensor, "clips"]
    """Samples that are sound."""
    keys: list[str]
    """Names of the clips in their shards."""
    sources: Int64[Tensor, "clips"]
    """Which of ``data.shards`` each clip is from."""
    recordings: list[str | None]
    """Ids that clips of one recording share; None where the corpus does not tell."""
    corrupt: list[Corrupt | None]
    """For each clip the one that it replaces, which could not be heard; None: it is itself."""

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its waveforms and lengths on ``device``."""
        return Batch(
            self.waveforms.to(device, non_blocking=True),
            self.lengths.to(device, non_blocking=True),
            self.keys,
            self.sources,
            self.recordings,
            self.corrupt,
        )


class Stream:
    """One rank's share of the endless order of the clips."""

    def __init__(
        self,
        config: Config,
        *,
        sample_rate: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        accumulation: int = 1,
    ) -> None:
        """Open the folders and check that they give whole batches.

        Args:
            config: what to hear.
            sample_rate: Hz that the front end wants; shards at another rate are refused.
            seed: of the order and of the crops.
            rank: this process, 0 the first.
            ranks: processes that share each batch.
            accumulation: micro-batches a process makes of its share.
        """
        config.check_share(rank, ranks, accumulation)
        self.config = config
        self.sample_rate = sample_rate
        """Hz of every clip."""
        self.seed = seed
        self.rank = rank
        self.ranks = ranks
        self.accumulation = accumulation
        self.clip_samples = config.clip_samples(sample_rate)
        self.selections, weights = open_selections(
            config.shards,
            split=config.split,
            exclude=config.exclude,
            sample_rate=sample_rate,
            cache=RangeCache(Path(config.cache), config.cache_megabytes) if config.cache else None,
        )
        self.plan = Plan(
            tuple(selection.counts() for selection in self.selections),
            weights,
            seed,
            batch=config.batch,
            recordings=self._recordings,
        )
        self._check_clips()
        self.tally = Tally(len(weights), config.corrupt_share, config.corrupt_in_a_row)
        """What this process has taken so far."""
        kept = Kept(config.kept_megabytes * 2**20 // max(1, config.workers))
        self.crops = Crops(self.selections, self.clip_samples, kept)

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
        """What there is, in words."""
        return f"{self.clips:,} clips, {self.seconds / 3600:.2f} h"

    @property
    def names(self) -> list[str]:
        """The corpora, each with a number where one comes twice."""
        corpora = [selection.index.corpus for selection in self.selections]
        return [
            name if corpora.count(name) == 1 else f"{name}_{number}"
            for number, name in enumerate(corpora)
        ]

    def expected(self) -> list[int]:
        """Clips that an epoch has of each corpus."""
        return self.plan.draws

    def epoch(self, position: int) -> int:
        """The epoch that the clip at ``position`` belongs to, 0 the first."""
        return self.plan.epoch(position)

    def batches(self, position: int = 0) -> Iterator[Batch]:
        """This rank's micro-batches from global ``position`` on, without end.

        Raises:
            ValueError: more clips than :attr:`tally` allows are corrupt, or a shard cannot be
                read at all; it names the shard and the cure.
        """
        if position < 0:
            raise ValueError(f"a stream cannot start at position {position}; give 0 or more")
        read = functools.partial(self._read_part, position)
        for number, batch in enumerate(read_ahead(read, self.config.workers)):
            epochs = self.positions(position, number) // self.plan.epoch_clips
            self.tally.add(epochs, batch.sources.numpy(), batch.corrupt)
            yield batch

    def whole_count(self, most: int | None = None) -> int:
        """Clips that :meth:`whole_clips` gives, corrupt ones among them."""
        return min(self.clips, most or self.clips)

    def whole_clips(self, most: int | None = None) -> Iterator[Float32[Tensor, "samples"]]:
        """The clips that take part, whole, each once whatever its folder's weight.

        For measuring the sound itself, not what training hears of it. Corrupt clips are left out
        with a warning.

        Args:
            most: so many clips at most, spread evenly over all of them; None gives all.

        Returns:
            Mono samples in [-1, 1], in the order of folders, shards and the clips in a shard.
        """
        if most is not None and most < 1:
            raise ValueError(f"there are no {most} clips to take; ask for 1 or more")
        taken = self.whole_count(most)
        return self._whole(np.arange(taken) * self.clips // taken)

    def positions(self, position: int, number: int) -> Int64[np.ndarray, "clips"]:
        """Global positions of this rank's ``number``-th micro-batch after ``position``."""
        size = self.config.batch // (self.ranks * self.accumulation)
        step, turn = divmod(number, self.accumulation)
        first = position + step * self.config.batch + (turn * self.ranks + self.rank) * size
        return np.arange(first, first + size)

    def read(self, positions: Int64[np.ndarray, "clips"]) -> Batch:
        """The clips at some positions, decoded.

        Raises:
            CorruptError: a clip is, and so are all that were tried in its place.
        """
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
        for attempt in range(_REPLACEMENTS):
            key = key_of(self.seed, _REPLACEMENT_KEY, attempt)
            turn, chance = uniform(np.array([position, -1 - position]), key).tolist()
            shard, nth = self.plan.some(source, turn)
            [found] = self.crops.read([At(source, shard, nth)], [chance])
            if not isinstance(found, CorruptError):
                return found
        raise error

    def _recordings(self, source: int, shard: int) -> UInt64[np.ndarray, "clips"]:
        return self.selections[source].recordings(shard)

    def _whole(self, wanted: Int64[np.ndarray, "clips"]) -> Iterator[Float32[Tensor, "samples"]]:
        """Whole clips by their number among those that take part, rising."""
        first = 0
        for source, counts in enumerate(self.plan.counts):
            for shard, count in enumerate(counts.tolist()):
                start, end = np.searchsorted(wanted, [first, first + count])
                for found in self.crops.whole(source, shard, (wanted[start:end] - first).tolist()):
                    if isinstance(found, CorruptError):
                        warnings.warn(f"left out: {found}", stacklevel=2)
                    else:
                        yield torch.from_numpy(found)
                first += count

    def _read_part(self, position: int, number: int) -> Batch:
        positions = self.positions(position, number)
        try:
            return self.read(positions)
        except OSError as error:
            step = int(positions[0]) // self.config.batch + 1
            raise ValueError(f"at step {step}: {error}") from error

    def _check_clips(self) -> None:
        if self.clips < self.config.batch:
            raise ValueError(
                f"data.batch is {self.config.batch}, but data.shards gives {self.clips} clips of "
                f"split {self.config.split!r}; set data.batch to {self.clips} or fewer"
            )
