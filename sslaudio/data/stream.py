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
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from sslaudio.data.decode import DecodeError, decode_bytes
from sslaudio.data.index import Index, StoredClip
from sslaudio.data.kept import LOSSLESS, Kept, Sound, in_16_bits
from sslaudio.data.loader import read_ahead
from sslaudio.data.plan import Plan, key_of, uniform
from sslaudio.data.selection import Split, open_selections

_CROP_KEY = 3


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
        if not 0 <= rank < ranks or accumulation < 1:
            raise ValueError(
                f"there is no rank {rank} of {ranks} processes with {accumulation} micro-batches; "
                f"ranks count from 0, training.accumulation from 1"
            )
        parts = ranks * accumulation
        if config.batch % parts:
            raise ValueError(
                f"data.batch is {config.batch}, which {ranks} processes x {accumulation} "
                f"accumulated micro-batches cannot share equally; set data.batch to "
                f"{-(-config.batch // parts) * parts} or another multiple of {parts}"
            )
        self.config = config
        self.sample_rate = sample_rate
        """Hz of every clip."""
        self.seed = seed
        self.rank = rank
        self.ranks = ranks
        self.accumulation = accumulation
        self.clip_samples = max(1, round(config.clip_seconds * sample_rate))
        self.selections, weights = open_selections(
            config.shards, split=config.split, exclude=config.exclude, sample_rate=sample_rate
        )
        self.plan = Plan(tuple(s.counts() for s in self.selections), weights, seed)
        self._check_clips()
        self._kept = Kept(config.kept_megabytes * 2**20 // max(1, config.workers))

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
        read = functools.partial(self._read_part, position)
        return read_ahead(read, self.config.workers)

    def whole_clips(self, most: int | None = None) -> Iterator[Float32[Tensor, "samples"]]:
        """The clips that take part, whole, each once whatever its folder's weight.

        For measuring the sound itself, not what training hears of it.

        Args:
            most: so many clips at most, spread evenly over all of them; None gives all.

        Returns:
            Mono samples in [-1, 1], in the order of folders, shards and the clips in a shard.

        Raises:
            ValueError: a clip cannot be read; it names the shard, the clip and the cure.
        """
        if most is not None and most < 1:
            raise ValueError(f"there are no {most} clips to take; ask for 1 or more")
        taken = self.clips if most is None else min(most, self.clips)
        return self._whole(np.arange(taken) * self.clips // taken)

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
        waveforms = np.zeros((len(positions), self.clip_samples), np.float32)
        lengths, keys, recordings = [], [], []
        for row, (source, shard, nth) in enumerate(
            zip(places.source, places.shard.tolist(), places.nth, strict=True)
        ):
            place = (int(source), shard, int(nth))
            sound = self._kept.get(place) or self._keep(place)
            if sound is not None:
                start, length = self._span(len(sound.samples), float(chances[row]))
                waveform, key, recording = sound.crop(start, length), sound.key, sound.recording
            else:
                waveform, clip = self._crop(place, float(chances[row]))
                key, recording = clip.key, clip.fields.get("recording")
            waveforms[row, : len(waveform)] = waveform
            lengths.append(len(waveform))
            keys.append(key)
            recordings.append(recording)
        return Batch(
            torch.from_numpy(waveforms),
            torch.tensor(lengths),
            keys,
            torch.from_numpy(places.source),
            recordings,
        )

    def _span(self, samples: int, chance: float) -> tuple[int, int]:
        """Start and length of the crop at the share ``chance`` of where a clip's can begin."""
        length = min(samples, self.clip_samples)
        return int(chance * (samples - length + 1)), length

    def _crop(
        self, place: tuple[int, int, int], chance: float
    ) -> tuple[Float32[np.ndarray, "samples"], StoredClip]:
        """Decode the crop of a clip alone."""
        index, clip = self._clip(place)
        start, length = self._span(clip.samples, chance)
        return _decoded(index, place[1], clip, start, length), clip

    def _keep(self, place: tuple[int, int, int]) -> Sound | None:
        """Decode a clip whole and keep it; None where it is not to be kept."""
        if self.selections[place[0]].index.codec != LOSSLESS or self._kept.full:
            return None
        index, clip = self._clip(place)
        waveform = _decoded(index, place[1], clip)
        sound = Sound(clip.key, clip.fields.get("recording"), in_16_bits(waveform))
        self._kept.put(place, sound)
        return sound

    def _clip(self, place: tuple[int, int, int]) -> tuple[Index, StoredClip]:
        source, shard, nth = place
        selection = self.selections[source]
        return selection.index, selection.index.clip(shard, int(selection.members(shard)[nth]))

    def _whole(self, wanted: Int64[np.ndarray, "clips"]) -> Iterator[Float32[Tensor, "samples"]]:
        """Whole clips by their number among those that take part, rising."""
        first = 0
        for selection, counts in zip(self.selections, self.plan.counts, strict=True):
            for shard, count in enumerate(counts.tolist()):
                start, end = np.searchsorted(wanted, [first, first + count])
                # A shard that gives no clip is not opened.
                members = selection.members(shard)[wanted[start:end] - first] if end > start else ()
                for member in members:
                    clip = selection.index.clip(shard, int(member))
                    yield torch.from_numpy(_decoded(selection.index, shard, clip))
                first += count

    def _read_part(self, position: int, number: int) -> Batch:
        return self.read(self.positions(position, number))

    def _check_clips(self) -> None:
        if self.clips < self.config.batch:
            raise ValueError(
                f"data.batch is {self.config.batch}, but data.shards gives {self.clips} clips of "
                f"split {self.config.split!r}; set data.batch to {self.clips} or fewer"
            )


def _decoded(
    index: Index, shard: int, clip: StoredClip, start: int = 0, length: int | None = None
) -> Float32[np.ndarray, "samples"]:
    """A clip's samples from ``start`` on, ``length`` of them or all.

    Raises:
        ValueError: there is not the sound that the index tells of.
    """
    try:
        waveform = decode_bytes(
            clip.audio,
            index.sample_rate,
            start_seconds=start / index.sample_rate,
            seconds=None if length is None else length / index.sample_rate,
            name=clip.key,
        )
    except DecodeError as error:
        raise index.corrupt(shard, clip.key, error.reason) from error
    if len(waveform) != (clip.samples if length is None else length):
        reason = f"{len(waveform)} samples, its index says {clip.samples}"
        raise index.corrupt(shard, clip.key, reason)
    return waveform
