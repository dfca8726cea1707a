"""Notes: harmonic tones of instruments that never were, one after the other or together."""

import numpy as np

from sslaudio.data.procedural.filters import Sound, at_peak, between, wander

_TABLE = 2048
_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), tuple(range(12)))
"""Semitones from the lowest note: major, minor, pentatonic, chromatic."""


def notes(random: np.random.Generator, samples: int, rate: int) -> Sound:
    """A tune of one instrument."""
    lowest = between(random, 60, 700)
    scale = _SCALES[random.integers(len(_SCALES))]
    table = _instrument(random, max(1, int(rate / 2 / (4 * lowest))))
    attack, decay = between(random, 0.003, 0.15), between(random, 0.05, 2.0)
    bend = random.uniform(0, 0.02)
    out = np.zeros(samples, np.float32)
    at = int(random.uniform(0, 0.1) * samples)
    while at < samples:
        length = min(samples - at, int(between(random, 0.06, 0.8) * rate))
        for _ in range(int(random.integers(1, 4)) if random.random() < 0.3 else 1):
            semitones = scale[random.integers(len(scale))] + 12 * random.integers(0, 2)
            pitch = lowest * 2.0 ** (semitones / 12 + bend * wander(random, length, 4))
            out[at : at + length] += _tone(pitch, table, attack, decay, rate)
        at += length if random.random() < 0.8 else int(1.5 * length)
    return at_peak(out)


def _instrument(random: np.random.Generator, partials: int) -> Sound:
    """One period of a sum of harmonics that fall by some dB an octave, some of them missing."""
    number = np.arange(1, min(partials, 60) + 1)
    levels = number ** -random.uniform(0.3, 2.5) * (random.random(len(number)) < 0.8)
    if random.random() < 0.3:
        levels[1::2] *= 0.1  # a closed pipe has odd harmonics
    levels[0] = max(levels[0], 0.3)
    spectrum = np.zeros(_TABLE // 2 + 1, np.complex128)
    spectrum[number] = levels * np.exp(2j * np.pi * random.random(len(number)))
    return at_peak(np.fft.irfft(spectrum).astype(np.float32))


def _tone(pitch: np.ndarray, table: Sound, attack: float, decay: float, rate: int) -> Sound:
    """A note of a moving pitch (Hz) that comes in ``attack`` and dies away in ``decay`` seconds."""
    phase = np.cumsum(pitch * (_TABLE / rate)).astype(np.int64) & (_TABLE - 1)
    time = np.arange(len(pitch), dtype=np.float32) / rate
    loudness = np.minimum(1, time / attack) * np.exp(-time / decay)
    loudness *= np.minimum(1, (time[-1] - time + 1e-3) / 0.01)
    return (table[phase] * loudness).astype(np.float32)
