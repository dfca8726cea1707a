"""The stream that training drinks from: shards in, endless batches of waveforms out.

In:  folders of shards, and a position: clips taken by all ranks together since training began.
Out: this rank's micro-batches from there on: random crops of ``clip_seconds``, zero-padded,
     with their true lengths.

A global batch is the positions [p, p + batch), cut into accumulation x ranks equal parts;
micro-batch ``a`` of rank ``r`` is part ``a * ranks + r``. What stands at a position depends on
the seed alone (:mod:`sslaudio.data.plan`), so the position is the whole state.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from sslaudio.data.decode import DecodeError, decode_bytes
from sslaudio.data.exclude import excluded_members, read_rules
from sslaudio.data.index import Index
from sslaudio.data.plan import Places, Plan, key_of, uniform
from sslaudio.data.processes import die_with_parent
from sslaudio.data.selection import Selection, Split, splits_of

_CROP_KEY = 3
_PREFETCHED_BATCHES = 4


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
    workers: int = 0
    """Processes that decode ahead; 0 decodes in the training process. Changes no result."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"data.batch is {self.batch}; set it to 1 or more")
        if not 0 < self.clip_seconds < math.inf:
            raise ValueError(f"data.clip_seconds is {self.clip_seconds:g}; set it above 0")
        if self.workers < 0:
            raise ValueError(f"data.workers is {self.workers}; set it to 0 or more")


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

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its waveforms and lengths on ``device``."""
        return Batch(
            self.waveforms.to(device, non_blocking=True),
            self.lengths.to(device, non_blocking=True),
            self.keys,
            self.sources,
            self.recordings,
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
        parts = ranks * accumulation
        if config.batch % parts:
            raise ValueError(
                f"data.batch is {config.batch}, which {ranks} processes x {accumulation} "
                f"accumulated micro-batches cannot share equally; set data.batch to "
                f"{-(-config.batch // parts) * parts} or another multiple of {parts}"
            )
        self.config = config
        self.seed = seed
        self.rank = rank
        self.ranks = ranks
        self.accumulation = accumulation
        self.clip_samples = max(1, round(config.clip_seconds * sample_rate))
        folders, weights = _folders(config.shards)
        indexes = [Index.open(folder) for folder in folders]
        for index in indexes:
            _check_rate(index, sample_rate)
        rules = read_rules(config.exclude)
        excluded = excluded_members(rules, indexes) if rules else [{} for _ in indexes]
        splits = splits_of(config.split)
        self.selections = [
            Selection(index, splits, left_out)
            for index, left_out in zip(indexes, excluded, strict=True)
        ]
        self.plan = Plan(tuple(s.counts() for s in self.selections), weights, seed)
        self._check_clips()

    @property
    def clips(self) -> int:
        """Clips that take part."""
        return self.plan.clips

    @property
    def seconds(self) -> float:
        """Sound that takes part."""
        return sum(selection.seconds() for selection in self.selections)

    def epoch(self, position: int) -> int:
        """The epoch that the clip at ``position`` belongs to, 0 the first."""
        return self.plan.epoch(position)

    def batches(self, position: int = 0) -> Iterator[Batch]:
        """This rank's micro-batches from global ``position`` on, without end.

        Raises:
            ValueError: a clip cannot be read; it names the shard, the clip and the cure.
        """
        if position < 0:
            raise ValueError(f"a stream cannot start at position {position}; give 0 or more")
        if self.config.workers:
            yield from self._batches_of_workers(position)
        for number in itertools.count():
            yield self.read(self.positions(position, number))

    def _batches_of_workers(self, position: int) -> Iterator[Batch]:
        loader = DataLoader(
            _MicroBatches(self, position),
            batch_size=None,
            num_workers=self.config.workers,
            prefetch_factor=_PREFETCHED_BATCHES,
            worker_init_fn=_start_worker,
            multiprocessing_context="forkserver",
        )
        for batch in loader:
            if isinstance(batch, _Failure):
                raise ValueError(batch.message)
            yield batch

    def positions(self, position: int, number: int) -> Int64[np.ndarray, "clips"]:
        """Global positions of this rank's ``number``-th micro-batch after ``position``."""
        size = self.config.batch // (self.ranks * self.accumulation)
        step, turn = divmod(number, self.accumulation)
        first = position + step * self.config.batch + (turn * self.ranks + self.rank) * size
        return np.arange(first, first + size)

    def read(self, positions: Int64[np.ndarray, "clips"]) -> Batch:
        """The clips at some positions, decoded."""
        places = self.plan.locate(positions)
        chances = uniform(positions, key_of(self.seed, _CROP_KEY))
        waveforms = torch.zeros(len(positions), self.clip_samples)
        lengths, keys, recordings = [], [], []
        for row in range(len(positions)):
            selection, shard, member = self._member(places, row)
            waveform = self.crop(selection.index, shard, member, float(chances[row]))
            waveforms[row, : len(waveform)] = torch.from_numpy(waveform)
            lengths.append(len(waveform))
            keys.append(selection.index.key(shard, member))
            recordings.append(selection.index.fields(shard, member).get("recording"))
        sources = torch.from_numpy(places.source)
        return Batch(waveforms, torch.tensor(lengths), keys, sources, recordings)

    def crop(
        self, index: Index, shard: int, member: int, chance: float
    ) -> Float32[np.ndarray, "samples"]:
        """A clip, or a crop of it that begins at the share ``chance`` of where one can."""
        samples = int(index.offsets(shard)[member]["samples"])
        spare = max(0, samples - self.clip_samples)
        rate, start = index.sample_rate, int(chance * (spare + 1))
        audio = index.audio(shard, member)
        try:
            waveform = decode_bytes(
                audio, rate, start_seconds=start / rate, seconds=self.clip_samples / rate
            )
            if len(waveform) != min(samples, self.clip_samples):
                raise DecodeError("", f"{len(waveform)} samples instead of {samples}")
        except DecodeError as error:
            path = index.folder / index.shards[shard].name
            raise ValueError(
                f"{path}: clip {index.key(shard, member)} is corrupt ({error.reason}); run "
                f"`sslaudio shards verify {index.folder}`, then build the shards again"
            ) from error
        return waveform

    def _member(self, places: Places, row: int) -> tuple[Selection, int, int]:
        selection, shard = self.selections[places.source[row]], int(places.shard[row])
        return selection, shard, int(selection.members(shard)[places.nth[row]])

    def _check_clips(self) -> None:
        for selection, counts in zip(self.selections, self.plan.counts, strict=True):
            if not counts.sum():
                there = ", ".join(s or "none" for s in selection.index.totals.splits)
                raise ValueError(
                    f"{selection.index.folder} has no clip of data.split {self.config.split!r} "
                    f"that data.exclude leaves in; its clips are of split {there}"
                )
        if self.clips < self.config.batch:
            raise ValueError(
                f"data.batch is {self.config.batch}, but data.shards gives {self.clips} clips of "
                f"split {self.config.split!r}; set data.batch to {self.clips} or fewer"
            )


@dataclass(frozen=True)
class _Failure:
    """An error on its way from a worker, as one line and not as a traceback within another."""

    message: str


class _MicroBatches(IterableDataset[Any]):
    """Every ``workers``-th micro-batch, which the loader then takes in turn."""

    def __init__(self, stream: Stream, position: int) -> None:
        self.stream = stream
        self.position = position

    def __iter__(self) -> Iterator[Batch | _Failure]:
        worker = get_worker_info()
        assert worker is not None, "without workers the stream reads by itself"
        try:
            for number in itertools.count(worker.id, worker.num_workers):
                yield self.stream.read(self.stream.positions(self.position, number))
        except (ValueError, OSError) as error:
            yield _Failure(str(error))


def _start_worker(worker: int) -> None:
    """torch has given this process one thread already."""
    die_with_parent()


def _folders(shards: tuple[str, ...]) -> tuple[list[Path], tuple[float, ...]]:
    """Folders and weights of ``data.shards``."""
    if not shards:
        raise ValueError(
            "data.shards names no folder; give one made by `sslaudio shards build` or "
            "`sslaudio shards synth`"
        )
    pairs = [_folder_and_weight(text) for text in shards]
    folders = [folder for folder, _ in pairs]
    twice = {folder for folder in folders if folders.count(folder) > 1}
    if twice:
        raise ValueError(
            f"data.shards names {twice.pop()} twice; name it once, as DIR=2 to hear it twice"
        )
    return folders, tuple(weight for _, weight in pairs)


def _folder_and_weight(text: str) -> tuple[Path, float]:
    folder, equals, tail = text.rpartition("=")
    if not equals or Path(text).is_dir():
        return Path(text), 1.0
    try:
        weight = float(tail)
    except ValueError:
        raise ValueError(
            f"data.shards has {text!r}: {tail!r} is no number; write DIR or DIR=weight"
        ) from None
    if not 0 < weight < math.inf:
        raise ValueError(f"data.shards has {text!r}: a weight is above 0; leave the folder out")
    return Path(folder), weight


def _check_rate(index: Index, sample_rate: int) -> None:
    if index.sample_rate != sample_rate:
        raise ValueError(
            f"{index.folder} has shards at {index.sample_rate} Hz, but the front end wants "
            f"{sample_rate} Hz; build them again with --sample-rate {sample_rate}, or set "
            f"features.sample_rate to {index.sample_rate}"
        )
