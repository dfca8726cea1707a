"""Long sound files, a piece at a time: read once from beginning to end, or one piece sought.

In:  a file, and which of its samples are wanted, at the rate asked for.
Out: pieces of mono float32 samples in [-1, 1], the same as :func:`sslaudio.data.decode.decode`
     gives of the whole file (MP3: but for rounding), for the resampler goes on from block to block.
     A piece that was sought and resampled is the same but for rounding, too.

What is held is a block and the piece that is being put together, however long the file is.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32

from sslaudio.data.decode import (
    DecodeError,
    check_length,
    limited,
    mono,
    opened,
    resample,
    too_short,
)

BLOCK = 1 << 18
"""Samples a channel that are decoded together: 16 s at 16 kHz."""
MARGIN_SECONDS = 0.05
"""Heard on either side of a piece that is sought and resampled: with 0.02 s, samples differ by no
more from the whole file's than with 0.25 s (3e-7, rates from 8 to 96 kHz)."""
LAST_OGG_PAGE = 1 << 18
"""Samples that the last page of an Ogg may hold: 255 packets of 1,024. libsndfile 1.2.2 seeks to
wrong places in it (by 144 samples in one of five seconds at 8 kHz), so it is read from before."""


def samples_of(path: Path, sample_rate: int) -> int:
    """Samples that a file has at a rate in Hz; at least one.

    Raises:
        DecodeError: nothing usable is there.
    """
    with _opened(path) as sound:
        count = sound.frames
        if sound.format == "MP3":  # whose header may tell an estimate
            count = sum(map(len, _channels(sound)))
        if not count:
            raise DecodeError(str(path), "holds no samples")
        # As many as soxr gives.
        return max(1, int(count * sample_rate / sound.samplerate + 0.5))


def cut_out(
    path: Path, sample_rate: int, spans: Sequence[tuple[int, int]]
) -> Iterator[Float32[np.ndarray, "samples"]]:
    """Pieces of a file in order; they may overlap.

    Args:
        path: the file.
        sample_rate: Hz of the pieces.
        spans: first sample of each piece and the one behind its last; the firsts rise. One that
            goes beyond the end gives what is there.

    Raises:
        DecodeError: nothing usable is there, or what is there ends before it should.
    """
    blocks = _blocks(path, sample_rate)
    held, place = np.zeros(0, np.float32), 0  # of the file's samples, those from place on
    for start, end in spans:
        kept = [held[start - place :]] if start < place + len(held) else []
        place += len(held)
        while place < end and (block := next(blocks, None)) is not None:
            kept.append(block[max(0, start - place) :])
            place += len(block)
        held = np.concatenate(kept) if kept else held[:0]
        place -= len(held)
        yield held[: end - start].copy()  # what lies behind it need not be kept for it


def sought(
    path: Path, sample_rate: int, start: int, end: int | None = None
) -> Float32[np.ndarray, "samples"]:
    """One piece of a file, at the cost of that piece (MP3: its frames are passed on the way).

    Pieces that lie end to end make up the whole file: where the rate changes, the resampler hears
    what lies around them.

    Args:
        path: the file.
        sample_rate: Hz of the piece.
        start: its first sample, at that rate.
        end: the one behind its last; None, or one beyond the file's end, gives what is there.

    Raises:
        DecodeError: nothing usable is there.
    """
    with _opened(path) as sound:
        rate, frames = sound.samplerate, sound.frames
        # Only every so many samples do both rates have one at the same time: begin at such a one.
        stretch, given = (one // math.gcd(rate, sample_rate) for one in (rate, sample_rate))
        margin = 0 if rate == sample_rate else round(MARGIN_SECONDS * sample_rate)
        stretches = max(0, start - margin) // given
        first, last = stretches * stretch, frames
        begin = min(first, max(0, frames - LAST_OGG_PAGE)) if sound.format == "OGG" else first
        if end is not None:
            last = min(frames, -(-(end + margin) * rate // sample_rate))
        if start and start * rate >= frames * sample_rate:
            raise too_short(str(path), frames / rate, start / sample_rate)
        check_length(sound, last - begin, sample_rate, str(path))
        if begin:
            sound.seek(begin)
        channels = sound.read(last - begin, dtype="float32", always_2d=True)[first - begin :]
        if len(channels) < last - first and sound.format != "MP3":
            reason = f"truncated: {len(channels)} of {last - first} samples from {first} on"
            raise DecodeError(str(path), reason)
    heard = resample(mono(channels, str(path)), rate, sample_rate)
    before = stretches * given
    piece = heard[start - before : None if end is None else end - before]
    if not len(piece):
        raise too_short(str(path), frames / rate, start / sample_rate)
    return limited(piece)


def _blocks(path: Path, sample_rate: int) -> Iterator[Float32[np.ndarray, "samples"]]:
    """All of a file, one block after the other."""
    with _opened(path) as sound:
        rate, left, given = sound.samplerate, sound.frames, 0
        check_length(sound, min(left, BLOCK), sample_rate, str(path))
        resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
        for channels in _channels(sound):
            left -= len(channels)
            ends = len(channels) < BLOCK
            if ends and left > 0 and sound.format != "MP3":
                reason = f"truncated: {sound.frames - left} of {sound.frames} samples"
                raise DecodeError(str(path), reason)
            heard = mono(channels, str(path)) if len(channels) or not given else channels[:, 0]
            block = heard
            if rate != sample_rate:
                block = resampler.resample_chunk(heard, last=ends)
                if ends and not given and not len(block):
                    block = heard[:1]
            if len(block):
                given += len(block)
                yield limited(block)


def _channels(sound: soundfile.SoundFile) -> Iterator[Float32[np.ndarray, "samples channels"]]:
    """Blocks from the beginning to the end; the last one is shorter than the others, or empty."""
    ends = False
    while not ends:
        channels = sound.read(BLOCK, dtype="float32", always_2d=True)
        ends = len(channels) < BLOCK
        yield channels


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """A file as a sound, in the words of :mod:`sslaudio.data.decode` where it is none."""
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise DecodeError(str(path), "empty: 0 bytes")
            with opened(file, str(path)) as sound:
                yield sound
    except FileNotFoundError:
        raise DecodeError(str(path), "missing") from None
    except OSError as error:
        raise DecodeError(str(path), f"cannot be read: {error.strerror}") from error
