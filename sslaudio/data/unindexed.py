"""Tars without an index, from anyone, through webdataset's own pipeline.

In:  paths or addresses of tars, ``pipe:`` commands among them, with braces for many.
Out: micro-batches of crops, as :class:`sslaudio.data.stream.Stream` gives them.

What can be kept of our rules is kept: the order of the tars is a keyed permutation, another each
pass; processes and workers get different tars of it, and where there are fewer tars than workers,
different samples; each sample comes once a pass. What cannot: a pass is not counted beforehand, a
tar that was cut short loses its tail (webdataset does not tell), and a resumed run begins a pass of
its own.
"""

import functools
import itertools
import json
import random
import tarfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, cast

import numpy as np
import torch
import webdataset
from jaxtyping import Float32
from torch import Tensor
from webdataset import tariterators
from webdataset.shardlists import expand_urls

from sslaudio.data.corpora.base import SUFFIXES
from sslaudio.data.decode import DecodeError, decode_bytes, seconds_of
from sslaudio.data.layout import LONGEST_JSON
from sslaudio.data.plan import key_of, permute, uniform
from sslaudio.data.selection import splits_of
from sslaudio.data.stream import Batch, Stream
from sslaudio.data.tally import Corrupt

SHUFFLED = 512
"""Samples, still encoded, that are shuffled among themselves."""
LARGEST = 1 << 30
"""Bytes of a sound; more is a bomb."""

_TAR_KEY, _SHUFFLE_KEY, _CROP_KEY = 11, 12, 13
_KINDS = tuple(suffix.removeprefix(".") for suffix in SUFFIXES)


def is_unindexed(shards: str) -> bool:
    """Whether an entry of ``data.shards`` names tars themselves, and no folder of them."""
    return shards.startswith("pipe:") or shards.endswith((".tar", ".tar.gz", ".tgz"))


class TarStream(Stream):
    """One rank's share of the tars' samples, pass after pass."""

    def _open(self) -> None:
        """Take down the tars; none is opened."""
        if self.config.exclude:
            raise ValueError(
                "data.exclude needs an index to know what a rule matches; make one with "
                "`sslaudio shards index DIR` and give the folder as data.shards"
            )
        self.tars = [tar for entry in self.config.shards for tar in expand_urls(entry)]
        """Addresses, braces written out."""
        self.names = ["tars"]

    @property
    def told(self) -> str:
        """Tars, and what goes without an index."""
        return (
            f"{len(self.tars)} tars without an index, in webdataset's own pipeline: their clips "
            f"are not counted, and resume is not exact (`sslaudio shards index DIR` mends both)"
        )

    def expected(self) -> None:
        """Nobody knows."""
        return

    def epoch(self, position: int) -> int:
        """Always the first: how long a pass is, nobody knows."""
        return 0

    def batches(self, position: int = 0) -> Iterator[Batch]:
        """This rank's micro-batches; another ``position`` gives another order."""
        for batch in self._read_ahead(_Reader(self, position)):
            self.tally.add(np.zeros(self.part, np.int64), batch.sources.numpy(), batch.corrupt)
            yield batch

    def whole_count(self, most: int | None = None) -> int:
        """The bound, if there is one."""
        return most or 0

    def whole_clips(self, most: int | None = None) -> Iterator[Float32[Tensor, "samples"]]:
        """The first ``most`` clips of a pass, whole; None gives all of it."""
        samples = _samples(self.tars, lambda corrupt: warnings.warn(str(corrupt), stacklevel=2))
        chosen = (sample for sample in samples if self.takes(sample))
        for sample in itertools.islice(chosen, most):
            try:
                audio = decode_bytes(sample.audio, self.sample_rate, name=sample.key)
            except DecodeError as error:
                warnings.warn(f"left out: {error}", stacklevel=2)
                continue
            yield torch.from_numpy(audio)

    def takes(self, sample: "_Sample") -> bool:
        """Whether a sample is of the split that is wanted."""
        told = sample.fields.get("split", "")
        return (told if isinstance(told, str) else "") in splits_of(self.config.split)


@dataclass(frozen=True)
class _Sample:
    """A sound as it lies in a tar."""

    tar: str
    key: str
    audio: bytes
    fields: dict[str, Any]


@dataclass
class _Reader:
    """Makes one worker's micro-batches, one after the other."""

    stream: TarStream
    position: int
    _crops: Iterator[Any] | None = field(default=None, repr=False)
    _corrupt: list[Corrupt] = field(default_factory=list, repr=False)

    def __call__(self, number: int) -> Batch:
        if self._crops is None:
            self._crops = self._endless(number % max(1, self.stream.config.workers))
        crops, corrupt = [], []
        for waveform, key, recording in itertools.islice(self._crops, self.stream.part):
            crops.append((waveform, key, recording))
            corrupt.append(self._corrupt.pop() if self._corrupt else None)
        waveforms = torch.zeros(self.stream.part, self.stream.clip_samples)
        for row, (waveform, _, _) in zip(waveforms, crops, strict=True):
            row[: len(waveform)] = torch.from_numpy(waveform)
        return Batch(
            waveforms,
            torch.tensor([len(waveform) for waveform, _, _ in crops]),
            [key for _, key, _ in crops],
            torch.zeros(self.stream.part, dtype=torch.long),
            [recording for _, _, recording in crops],
            corrupt,
        )

    def _endless(self, worker: int) -> Iterator[tuple[np.ndarray, str, str | None]]:
        """Crops of this worker's share, pass after pass."""
        stream = self.stream
        workers = max(1, stream.config.workers)
        part, parts = stream.rank * workers + worker, stream.ranks * workers
        for turn in itertools.count():
            key = key_of(stream.seed, self.position, turn)
            order = permute(np.arange(len(stream.tars)), len(stream.tars), key_of(key, _TAR_KEY))
            tars = [stream.tars[which] for which in order]
            strided = len(tars) < parts
            mine = tars if strided else tars[part::parts]
            samples = _samples(mine, self._corrupt.append)
            if strided:
                samples = itertools.islice(samples, part, None, parts)
            chosen = (sample for sample in samples if stream.takes(sample))
            own = random.Random(key_of(key, _SHUFFLE_KEY, part))
            shuffled = webdataset.shuffle(SHUFFLED, initial=SHUFFLED, rng=own)(chosen)
            heard = 0
            for number, sample in enumerate(shuffled):
                chance = uniform(np.array([number]), key_of(key, _CROP_KEY, part))
                crop = self._crop(sample, float(chance[0]))
                if crop is not None:
                    heard += 1
                    yield crop
            if not heard:
                worst = f"; {self._corrupt[-1].reason}" if self._corrupt else ""
                raise ValueError(
                    f"no clip of split {stream.config.split!r} could be heard in {mine[0]} and the "
                    f"{len(mine) - 1} other tars of worker {part} of {parts}{worst}; see "
                    f"data.shards and data.split, or make an index with `sslaudio shards index DIR`"
                )

    def _crop(self, sample: _Sample, chance: float) -> tuple[np.ndarray, str, str | None] | None:
        stream = self.stream
        try:
            seconds = seconds_of(sample.audio, sample.key)
            start = chance * max(0.0, seconds - stream.config.clip_seconds)
            waveform = decode_bytes(
                sample.audio,
                stream.sample_rate,
                start_seconds=start,
                seconds=stream.config.clip_seconds,
                name=sample.key,
            )
        except DecodeError as error:
            self._corrupt.append(Corrupt(sample.tar, sample.key, "decode", error.reason))
            return None
        recording = sample.fields.get("recording")
        told = None if recording is None else str(recording)
        return waveform[: stream.clip_samples], sample.key, told


def _samples(tars: Sequence[str], told: Any) -> Iterator[_Sample]:
    """Sounds of tars, in order; what is wrong with a tar is told, and the next one opened."""

    def failed(tar: str, error: Exception) -> bool:
        told(Corrupt(tar, "", "tar", " ".join(str(error).split())))
        return True

    for tar in tars:
        handler = functools.partial(failed, tar)
        opened = tariterators.url_opener(iter([{"url": tar}]), handler=handler)
        for one in tariterators.group_by_keys(_members(opened, handler), handler=handler):
            kind = next((kind for kind in _KINDS if kind in one), None)
            if kind is not None:
                yield _Sample(tar, one["__key__"], one[kind], _fields(one.get("json")))


def _members(
    opened: Iterator[dict[str, Any]], handler: Callable[[Exception], bool]
) -> Iterator[dict[str, Any]]:
    """What webdataset reads of opened tars, but for what is neither sound nor JSON.

    A tar with a member larger than any sound is not read further: compressed, it may be a few
    megabytes that fill all memory.
    """
    for one in opened:
        try:
            with tarfile.open(fileobj=one["stream"], mode="r|*") as archive:
                for member in archive:
                    suffix = PurePosixPath(member.name).suffix.lower()
                    if not member.isreg() or suffix not in (*SUFFIXES, ".json"):
                        continue
                    if member.size > (LONGEST_JSON if suffix == ".json" else LARGEST):
                        raise ValueError(f"{member.name} has {member.size} bytes")
                    content = archive.extractfile(member)
                    assert content is not None, "a regular member has content"
                    yield {"fname": member.name, "data": content.read(), "__url__": one["url"]}
                    cast(Any, archive).members = []  # or all headers would be kept
        except Exception as error:
            handler(error)


def _fields(text: bytes | None) -> dict[str, Any]:
    """What a sample's JSON tells; nothing where it is none."""
    try:
        fields = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}
