"""Filters and courses that move in time: what every procedural sound is made with."""

import numpy as np
from jaxtyping import Float32, Float64

Sound = Float32[np.ndarray, "samples"]
"""Mono samples."""
Course = Float64[np.ndarray, "times"]
"""A value for each of some times."""

HOP = 256
"""Samples between two columns of a moving filter."""
_WINDOW = np.sqrt(np.hanning(2 * HOP + 1)[:-1]).astype(np.float32)


def columns(samples: int) -> int:
    """Columns that a filter of a sound of ``samples`` has."""
    return -(-samples // HOP) + 1


def hertz(rate: int) -> Float64[np.ndarray, "bins"]:
    """Frequencies of a filter's bins."""
    return np.linspace(0, rate / 2, HOP + 1)


def filtered(sound: Sound, gains: Float64[np.ndarray, "columns bins"]) -> Sound:
    """A sound through a filter that moves.

    Short-time spectra under the root of a Hann window, half overlapping: gains of 1 change nothing.

    Args:
        sound: what is filtered.
        gains: of each bin (:func:`hertz`) at each column (:func:`columns`).
    """
    padded = np.zeros((len(gains) + 1) * HOP, np.float32)
    padded[HOP : HOP + len(sound)] = sound
    frames = np.lib.stride_tricks.sliding_window_view(padded, 2 * HOP)[::HOP]
    spectra = np.fft.rfft(frames * _WINDOW, axis=1)
    spectra *= gains.astype(np.float32)
    shaped = np.fft.irfft(spectra, axis=1) * _WINDOW
    out = np.zeros((len(gains) + 1, HOP), np.float32)
    out[:-1] += shaped[:, :HOP]
    out[1:] += shaped[:, HOP:]
    return out.ravel()[HOP : HOP + len(sound)]


def between(random: np.random.Generator, low: float, high: float, size: int | None = None):  # type: ignore[no-untyped-def]
    """Numbers drawn evenly on a logarithmic scale."""
    return np.exp(random.uniform(np.log(low), np.log(high), size))


def wander(random: np.random.Generator, times: int, points: int) -> Course:
    """A course through random values in [-1, 1], straight between ``points`` of them."""
    values = random.uniform(-1, 1, points + 1)
    return np.interp(np.linspace(0, points, times), np.arange(points + 1), values)


def at_peak(sound: Sound, peak: float = 1.0) -> Sound:
    """A sound scaled to its largest absolute value; silence stays."""
    largest = float(np.abs(sound).max(initial=0.0))
    return sound * np.float32(peak / largest) if largest > 0 else sound


def faded(sound: Sound, fade: int) -> Sound:
    """A sound that comes and goes over ``fade`` samples."""
    fade = min(fade, len(sound) // 2)
    if fade:
        ramp = np.linspace(0, 1, fade, dtype=np.float32)
        sound[:fade] *= ramp
        sound[-fade:] *= ramp[::-1]
    return sound
