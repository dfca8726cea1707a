"""Clips of shards to crops of one length, decoded.

In:  where clips lie, and where in each the crop is to begin.
Out: mono float32 samples in [-1, 1]; a clip that is damaged comes out as what is wrong with it.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from sslaudio.data.decode import DecodeError, decode_bytes
from sslaudio.data.index import CorruptError, Index, StoredClip
from sslaudio.data.kept import LOSSLESS, Kept, Sound, in_16_bits
from sslaudio.data.layout import FOREIGN
from sslaudio.data.selection import Selection

_ROUNDED = 2
"""Samples that a crop may have more or fewer once it is resampled."""
_WHOLE_TOGETHER = 32
"""Whole clips that are read together."""


class At(NamedTuple):
    """Where a clip lies."""

    source: int
    """Which folder."""
    shard: int
    """Which of its shards."""
    nth: int
    """Which of the shard's chosen clips."""


class Crop(NamedTuple):
    """A piece of a clip."""

    waveform: Float32[np.ndarray, "samples"]
    key: str
    recording: str | None


class Crops:
    """Reads crops, and keeps clips decoded while there is room.

    Args:
        selections: the folders.
        samples: length of a crop; a shorter clip gives all of itself.
        kept: clips that stay in memory.
    """

    def __init__(self, selections: Sequence[Selection], samples: int, kept: Kept) -> None:
        self.selections, self.samples, self.kept = selections, samples, kept

    def read(self, places: Sequence[At], chances: Sequence[float]) -> list[Crop | CorruptError]:
        """A crop of each clip, at the share ``chances`` of where it can begin, read together."""
        absent = [at for at in places if self.kept.get(at) is None]
        stored = dict(zip(absent, self._stored(absent), strict=True))
        return [
            self._crop(at, stored.get(at), chance)
            for at, chance in zip(places, chances, strict=True)
        ]

    def whole(
        self, places: Iterable[At]
    ) -> Iterator[Float32[np.ndarray, "samples"] | CorruptError]:
        """All of some clips; a few are read together, decoded one after the other."""
        places = iter(places)
        while few := list(itertools.islice(places, _WHOLE_TOGETHER)):
            for at, clip in zip(few, self._stored(few), strict=True):
                yield clip if isinstance(clip, CorruptError) else self._decoded(at, clip)

    def _crop(
        self, at: At, clip: StoredClip | CorruptError | None, chance: float
    ) -> Crop | CorruptError:
        sound = self.kept.get(at)
        if isinstance(clip, CorruptError):
            return clip
        if sound is None and clip is not None and self._stays(at):
            waveform = self._decoded(at, clip)
            if isinstance(waveform, CorruptError):
                return waveform
            sound = Sound(clip.key, _recording(clip), in_16_bits(waveform))
            self.kept.put(at, sound)
        if sound is not None:
            start, length = self._span(len(sound.samples), chance)
            return Crop(sound.crop(start, length), sound.key, sound.recording)
        assert clip is not None, "what is not kept was read"
        found = self._decoded(at, clip, *self._span(clip.samples, chance))
        if isinstance(found, CorruptError):
            return found
        return Crop(found, clip.key, _recording(clip))

    def _span(self, samples: int, chance: float) -> tuple[int, int]:
        """Start and length of the crop at the share ``chance`` of where a clip's can begin."""
        length = min(samples, self.samples)
        return int(chance * (samples - length + 1)), length

    def _stays(self, at: At) -> bool:
        return self._index(at).codec == LOSSLESS and not self.kept.full

    def _index(self, at: At) -> Index:
        return self.selections[at.source].index

    def _stored(self, places: Sequence[At]) -> list[StoredClip | CorruptError]:
        """Clips undecoded, each folder's read together."""
        found: dict[At, StoredClip | CorruptError] = {}
        for source in {at.source for at in places}:
            selection = self.selections[source]
            mine = [at for at in places if at.source == source]
            selection.index.open_offsets({at.shard for at in mine})
            members = [(at.shard, int(selection.members(at.shard)[at.nth])) for at in mine]
            found.update(zip(mine, selection.index.clips(members), strict=True))
        return [found[at] for at in places]

    def _decoded(
        self, at: At, clip: StoredClip, start: int = 0, length: int | None = None
    ) -> Float32[np.ndarray, "samples"] | CorruptError:
        """A clip's samples from ``start`` on, ``length`` of them or all."""
        index = self._index(at)
        try:
            waveform = decode_bytes(
                clip.audio,
                index.sample_rate,
                start_seconds=start / index.sample_rate,
                seconds=None if length is None else length / index.sample_rate,
                name=clip.key,
                resampled=index.codec == FOREIGN,
            )
        except DecodeError as error:
            return index.corrupt(at.shard, clip.key, "decode", error.reason)
        wanted = clip.samples if length is None else length
        if index.codec == FOREIGN and abs(len(waveform) - wanted) <= _ROUNDED:
            waveform = np.pad(waveform, (0, max(0, wanted - len(waveform))))[:wanted]
        if len(waveform) != wanted:
            reason = f"{len(waveform)} samples, its index says {clip.samples}"
            return index.corrupt(at.shard, clip.key, "length", reason)
        return waveform


def _recording(clip: StoredClip) -> str | None:
    told = clip.fields.get("recording")
    return None if told is None else str(told)
