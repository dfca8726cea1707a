"""What training drinks from: endless batches of waveforms, this process's share of them.

In:  shards, by their index (:mod:`sslaudio.data.indexed`) or tars of others without one
     (:mod:`sslaudio.data.unindexed`), and a position: clips taken by all ranks together since
     training began.
Out: this rank's micro-batches from there on: random crops of ``clip_seconds``, zero-padded,
     with their true lengths.

A global batch is the positions [p, p + batch), cut into accumulation x ranks equal parts;
micro-batch ``a`` of rank ``r`` is part ``a * ranks + r``.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from sslaudio.data.loader import read_ahead
from sslaudio.data.selection import Selection, Split
from sslaudio.data.tally import Corrupt, Tally


@dataclass(frozen=True)
class Config:
    """What to hear, and how much at a time."""

    shards: tuple[str, ...] = ()
    """Folders of shards: ``DIR``, or ``DIR=weight``. The weight says how often a clip of that
    folder is drawn relative to a clip of a folder of weight 1; every clip of a folder is drawn
    once before any comes again."""
    procedural: float = 0.0
    """Share of each batch that is procedural sound, made when it is heard and never twice
    (sslaudio/data/procedural), in whole clips; with 1 nothing else is heard, whatever ``shards``
    names."""
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
        if not 0 <= self.procedural <= 1:
            raise ValueError(f"data.procedural is {self.procedural:g}; it is a share, 0 to 1")
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


class Stream(ABC):
    """One rank's share of every batch."""

    names: list[str]
    """The corpora, as counts are told of them."""
    selections: Sequence[Selection] = ()
    """What is heard of folders with an index."""

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
        """Open what ``config.shards`` names, and check that it gives whole batches.

        Args:
            config: what to hear.
            sample_rate: Hz of every clip, as the front end wants it.
            seed: of the order and of the crops.
            rank: this process, 0 the first.
            ranks: processes that share each batch.
            accumulation: micro-batches a process makes of its share.

        Raises:
            ValueError: what is named cannot be heard so; it says why and which key to change.
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
        """Samples of a crop."""
        self.part = config.batch // (ranks * accumulation)
        """Clips of a micro-batch."""
        self._open()
        self.tally = Tally(len(self.names), config.corrupt_share, config.corrupt_in_a_row)
        """What this process has taken so far."""

    @property
    @abstractmethod
    def told(self) -> str:
        """What there is, in words."""

    @abstractmethod
    def expected(self) -> list[int] | None:
        """Clips that an epoch has of each corpus; None where nobody knows."""

    @abstractmethod
    def epoch(self, position: int) -> int:
        """The epoch that the clip at ``position`` belongs to, 0 the first."""

    @abstractmethod
    def batches(self, position: int = 0) -> Iterator[Batch]:
        """This rank's micro-batches from global ``position`` on, without end.

        Raises:
            ValueError: more clips than :attr:`tally` allows are corrupt, or something cannot be
                read at all; it names it and the cure.
        """

    @abstractmethod
    def whole_count(self, most: int | None = None) -> int:
        """Clips that :meth:`whole_clips` gives at most, corrupt ones among them; 0: not known."""

    @abstractmethod
    def whole_clips(self, most: int | None = None) -> Iterator[Float32[Tensor, "samples"]]:
        """The clips that take part, whole, each once whatever its folder's weight.

        For measuring the sound itself, not what training hears of it. Corrupt clips are left out
        with a warning.

        Args:
            most: so many clips at most; None gives all.

        Returns:
            Mono samples in [-1, 1].
        """

    @abstractmethod
    def _open(self) -> None:
        """Find what there is, :attr:`names` among it."""

    def _read_ahead(self, read: Callable[[int], Batch]) -> Iterator[Batch]:
        """The micro-batches that ``read`` makes, by the workers."""
        clip_bytes = 4 * self.clip_samples + 2 * 8
        return read_ahead(read, self.config.workers, self.part * clip_bytes)


class ExactStream(Stream):
    """A stream of which the position is the whole state: what stands there the seed alone tells."""

    @abstractmethod
    def read(self, positions: Int64[np.ndarray, "clips"]) -> Batch:
        """The clips at some positions.

        Raises:
            CorruptError: a clip is, and so are all that were tried in its place.
        """

    @abstractmethod
    def _count(self, positions: Int64[np.ndarray, "clips"], batch: Batch) -> None:
        """Tell the tally of a micro-batch."""

    def batches(self, position: int = 0) -> Iterator[Batch]:
        """What stands at ``position`` and after it; the same however it was reached."""
        if position < 0:
            raise ValueError(f"a stream cannot start at position {position}; give 0 or more")
        read = functools.partial(self._read_part, position)
        for number, batch in enumerate(self._read_ahead(read)):
            self._count(self.positions(position, number), batch)
            yield batch

    def positions(self, position: int, number: int) -> Int64[np.ndarray, "clips"]:
        """Global positions of this rank's ``number``-th micro-batch after ``position``."""
        step, turn = divmod(number, self.accumulation)
        first = position + step * self.config.batch + (turn * self.ranks + self.rank) * self.part
        return np.arange(first, first + self.part)

    def _read_part(self, position: int, number: int) -> Batch:
        positions = self.positions(position, number)
        try:
            return self.read(positions)
        except OSError as error:
            step = int(positions[0]) // self.config.batch + 1
            raise ValueError(f"at step {step}: {error}") from error
