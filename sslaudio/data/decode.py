"""Sound files to samples: the one place that decodes, mixes down and resamples.

In:  a file, a member of an uncompressed tar, or bytes: WAV, FLAC, OGG (Vorbis, Opus) or
     MP3, any rate, any number of channels.
Out: mono float32 samples in [-1, 1] at the rate asked for.

Channels are averaged; soxr resamples at its HQ setting (the resampler changes scores, so it is
named in the index). A crop is sought before it is decoded: two seconds of a long file cost two
seconds.
"""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32

RESAMPLER = "soxr HQ"
"""What resamples; written into every index."""

MOST_SAMPLES = 1 << 29
"""Most samples, over all channels or once they are resampled, that are decoded at once: 2 GiB. A
small file may claim any number, and any rate."""

_UNKNOWN_FRAMES = 1 << 40


class DecodeError(ValueError):
    """A sound that cannot be used, with its name and the reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type["DecodeError"], tuple[str, str]]:
        return DecodeError, (self.name, self.reason)


def decode(
    path: Path,
    sample_rate: int,
    *,
    start_seconds: float = 0.0,
    seconds: float | None = None,
    byte_range: tuple[int, int] | None = None,
) -> Float32[np.ndarray, "samples"]:
    """Read a sound file, or a part of it.

    Args:
        path: the file, or an uncompressed tar that holds it.
        sample_rate: Hz of the result.
        start_seconds: where to begin.
        seconds: how much to read; None reads to the end. A file that ends earlier gives less.
        byte_range: (offset, size) of a member inside ``path``.

    Raises:
        DecodeError: nothing usable is there; it names the file and the reason.
    """
    return decode_bytes(
        read_bytes(path, byte_range),
        sample_rate,
        start_seconds=start_seconds,
        seconds=seconds,
        name=str(path),
    )


def read_bytes(path: Path, byte_range: tuple[int, int] | None = None) -> bytes:
    """The bytes of a file, or of a member of an uncompressed tar."""
    try:
        with path.open("rb") as file:
            if byte_range is None:
                return file.read()
            file.seek(byte_range[0])
            data = file.read(byte_range[1])
    except FileNotFoundError:
        raise DecodeError(str(path), "missing") from None
    except OSError as error:
        raise DecodeError(str(path), f"cannot be read: {error.strerror}") from error
    if len(data) < byte_range[1]:
        reason = f"ends {byte_range[1] - len(data)} bytes inside the member at {byte_range[0]}"
        raise DecodeError(str(path), reason)
    return data


def decode_bytes(
    data: bytes,
    sample_rate: int,
    *,
    start_seconds: float = 0.0,
    seconds: float | None = None,
    name: str = "bytes",
    resampled: bool = True,
) -> Float32[np.ndarray, "samples"]:
    """As :func:`decode`, from bytes.

    Args:
        data: a sound file.
        sample_rate: Hz of the result.
        start_seconds: where to begin.
        seconds: how much to read; None reads to the end.
        name: what a :class:`DecodeError` calls it.
        resampled: whether it may be at another rate.

    Raises:
        DecodeError: nothing usable is there.
    """
    if not data:
        raise DecodeError(name, "empty: 0 bytes")
    with opened(io.BytesIO(data), name) as sound:
        native_rate = sound.samplerate
        if native_rate != sample_rate and not resampled:
            raise DecodeError(name, f"is at {native_rate} Hz, not {sample_rate}")
        channels = _read(sound, start_seconds, seconds, sample_rate, name)
        from_integers = sound.subtype.startswith("PCM_")
    if from_integers and channels.shape == (len(channels) or 1, 1) and native_rate == sample_rate:
        return channels[:, 0]  # in [-1, 1] as it is
    return limited(resample(mono(channels, name), native_rate, sample_rate))


def seconds_of(data: bytes, name: str) -> float:
    """Length of a sound file, as its header tells it.

    Raises:
        DecodeError: it is none; it names ``name``.
    """
    with opened(io.BytesIO(data), name) as sound:
        return sound.frames / sound.samplerate


class Straight(soundfile.SoundFile):
    """A sound that is read on from where it was sought to.

    soundfile seeks before and after every read, to where it stands: half of a short crop's time.
    In an MP3, whose frames lean on the ones before, what comes next is wrong then.
    """

    def seekable(self) -> bool:
        """Say no, so that nothing is sought but by :meth:`seek`."""
        return False


def check_length(sound: soundfile.SoundFile, frames: int, sample_rate: int, name: str) -> None:
    """Refuse to hold so many frames of a sound at once, brought to a rate in Hz.

    Raises:
        DecodeError: they are too many; it names ``name``.
    """
    if frames * max(sound.channels, sample_rate / sound.samplerate) > MOST_SAMPLES:
        hours = frames / sound.samplerate / 3600
        raise DecodeError(name, f"too long: {hours:.1f} h at once; cut it, by --segment-seconds")


def too_short(name: str, lasts_seconds: float, start_seconds: float) -> DecodeError:
    """The error for a sound of which something behind its end was asked."""
    reason = f"lasts {lasts_seconds:g} s, so nothing is left from {start_seconds:g} s on"
    return DecodeError(name, f"too short: {reason}")


@contextmanager
def opened(file: BinaryIO, name: str) -> Iterator[soundfile.SoundFile]:
    """A sound to read from, as long as it tells its length.

    Raises:
        DecodeError: it is none, or cannot be read on; it names ``name``.
    """
    try:
        with Straight(file) as sound:
            if sound.frames >= _UNKNOWN_FRAMES:
                reason = "does not tell its length (written to a pipe?); encode it again"
                raise DecodeError(name, reason)
            yield sound
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise DecodeError(name, f"cannot be decoded: {_reason(error)}") from error


def mono(
    channels: Float32[np.ndarray, "samples channels"], name: str
) -> Float32[np.ndarray, "samples"]:
    """The mean of channels that hold sound.

    Raises:
        DecodeError: they hold none.
    """
    mean = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)
    if not len(mean):
        raise DecodeError(name, "holds no samples")
    if not math.isfinite(_peak(mean)):
        raise DecodeError(name, "holds samples that are not finite numbers")
    return mean


def limited(waveform: Float32[np.ndarray, "samples"]) -> Float32[np.ndarray, "samples"]:
    """A waveform in [-1, 1]."""
    return waveform if _peak(waveform) <= 1.0 else np.clip(waveform, -1.0, 1.0)


def resample(
    waveform: Float32[np.ndarray, "samples"], from_rate: int, to_rate: int
) -> Float32[np.ndarray, "resampled"]:
    """Bring mono samples from one rate (Hz) to another; at least one sample is left."""
    if from_rate == to_rate:
        return waveform
    resampled = soxr.resample(waveform, from_rate, to_rate, quality="HQ")
    return resampled if len(resampled) else waveform[:1]


def _read(
    sound: soundfile.SoundFile,
    start_seconds: float,
    seconds: float | None,
    sample_rate: int,
    name: str,
) -> Float32[np.ndarray, "samples channels"]:
    """Seek, then decode no more than was asked for."""
    start = min(round(start_seconds * sound.samplerate), sound.frames)
    wanted = sound.frames - start
    if start and not wanted:
        raise too_short(name, sound.frames / sound.samplerate, start_seconds)
    if seconds is not None:
        wanted = min(wanted, round(seconds * sound.samplerate))
    check_length(sound, wanted, sample_rate, name)
    if start:
        sound.seek(start)
    channels = sound.read(wanted, dtype="float32", always_2d=True)
    # An MP3's length may be an estimate; any other format knows its own.
    if len(channels) < wanted and sound.format != "MP3":
        raise DecodeError(name, f"truncated: {len(channels)} of {wanted} samples")
    return channels


def _peak(waveform: Float32[np.ndarray, "samples"]) -> float:
    """Largest absolute value; not finite if any sample is not."""
    return float(max(waveform.max(), -waveform.min()))


def _reason(error: Exception) -> str:
    """libsndfile's own words, without the address of our buffer."""
    words = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return " ".join(words.split()).rstrip(".")
