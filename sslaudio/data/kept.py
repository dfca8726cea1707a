"""Decoded clips that stay in memory, so that a small corpus is decoded once and not every epoch.

In:  16-bit samples as a lossless shard holds them.
Out: the same samples, until the room is full: what is in stays, what comes later is not kept. In a
     corpus larger than the room each clip comes once an epoch, and putting one out for another
     would gain nothing.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int16

LOSSLESS = "flac"
"""The codec of shards whose samples are 16 bit, so that a kept clip is the decoded one exactly."""
_SCALE = 32_768


@dataclass(frozen=True)
class Sound:
    """A whole clip in 16 bits, and what a batch tells of it."""

    key: str
    recording: str | None
    samples: Int16[np.ndarray, "samples"]

    def crop(self, start: int, length: int) -> Float32[np.ndarray, "length"]:
        """``length`` samples in [-1, 1] from ``start`` on, to the bit as decoding gives them."""
        return self.samples[start : start + length].astype(np.float32) / np.float32(_SCALE)


def in_16_bits(waveform: Float32[np.ndarray, "samples"]) -> Int16[np.ndarray, "samples"]:
    """Samples that came from 16 bits, back in them."""
    return (waveform * np.float32(_SCALE)).astype(np.int16)


@dataclass
class Kept:
    """Clips by where they lie."""

    room_bytes: int
    sounds: dict[Hashable, Sound] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether nothing more is kept."""
        return self.room_bytes <= 0

    def get(self, place: Hashable) -> Sound | None:
        """The clip at ``place``, if it is kept."""
        return self.sounds.get(place)

    def put(self, place: Hashable, sound: Sound) -> None:
        """Keep a clip; the first for which there is no room ends it."""
        self.room_bytes -= sound.samples.nbytes
        if not self.full:
            self.sounds[place] = sound
