"""Voices: a buzz of moving pitch, or breath, through the resonances of a mouth that moves.

Source: Fant 1960, the source-filter model of speech.
"""

import itertools

import numpy as np
from jaxtyping import Float64

from sslaudio.data.procedural.filters import (
    Course,
    Sound,
    between,
    columns,
    filtered,
    hertz,
    wander,
)

_FORMANTS = ((250, 900), (700, 2600), (1800, 3400), (3000, 4600))
"""Hz that the resonances of a vowel lie between."""
_WIDTHS = (80.0, 110.0, 160.0, 240.0)


def voice(random: np.random.Generator, samples: int, rate: int) -> Sound:
    """Syllables of one speaker, who may be a child, a man, or some animal."""
    seconds = samples / rate
    syllables = max(1, round(seconds * random.uniform(2.0, 7.0)))
    times = columns(samples)
    voiced, hissed = _loudness(random, times, syllables)
    buzz = _buzz(_pitch(random, samples, syllables, rate), rate)
    breath = random.standard_normal(samples, np.float32) * np.float32(0.3)
    mouth = _mouth(random, times, syllables, rate)
    vowels = filtered(buzz + breath * np.float32(random.uniform(0, 0.3)), mouth * voiced[:, None])
    return vowels + filtered(breath, _hiss(random, times, syllables, rate) * hissed[:, None])


def _pitch(random: np.random.Generator, samples: int, syllables: int, rate: int) -> Course:
    """Hz, sample by sample: a tune over the syllables, and a tremble."""
    base = between(random, 80, 500)
    tune = random.uniform(0.05, 0.5) * wander(random, samples, syllables)
    tremble = random.uniform(0, 0.03) * np.sin(
        np.linspace(0, 2 * np.pi * random.uniform(2, 7) * samples / rate, samples)
    )
    return base * 2.0 ** (tune + tremble)


def _buzz(pitch: Course, rate: int) -> Sound:
    """A sawtooth of a moving pitch, its corners rounded (PolyBLEP), that falls 6 dB an octave."""
    step = pitch / rate
    phase = np.cumsum(step) % 1.0
    saw = 2 * phase - 1
    after, before = phase < step, phase > 1 - step
    near = phase[after] / step[after]
    saw[after] -= 2 * near - near**2 - 1
    near = (phase[before] - 1) / step[before]
    saw[before] -= near**2 + 2 * near + 1
    return saw.astype(np.float32)


def _mouth(
    random: np.random.Generator, times: int, syllables: int, rate: int
) -> Float64[np.ndarray, "columns bins"]:
    """Gains of four resonances that go from vowel to vowel."""
    size = random.uniform(0.8, 1.3)
    at = hertz(rate)
    gains = np.full((times, len(at)), 0.01)
    for number, ((low, high), width) in enumerate(zip(_FORMANTS, _WIDTHS, strict=True)):
        middle = np.sqrt(low * high) * (high / low) ** (wander(random, times, 2 * syllables) / 2)
        away = (at - size * middle[:, None]) / (width * size)
        gains += 0.6**number / (1 + away**2)
    return gains


def _loudness(random: np.random.Generator, times: int, syllables: int) -> tuple[Course, Course]:
    """Of the voice and of the hiss at each column: a hill a syllable, a hiss before some."""
    voiced, hissed = np.zeros(times), np.zeros(times)
    edges = np.sort(random.uniform(0, times, syllables + 1))
    for start, end in itertools.pairwise(edges):
        first, last = int(start), max(int(start) + 2, int(end))
        hill = np.hanning(last - first + 2)[1:-1] ** 0.5 * random.uniform(0.3, 1)
        voiced[first:last] += hill[: times - first]
        if random.random() < 0.5:
            hissed[max(0, first - int(random.integers(2, 8))) : first + 1] = between(
                random, 0.02, 0.4
            )
    return voiced, hissed


def _hiss(
    random: np.random.Generator, times: int, syllables: int, rate: int
) -> Float64[np.ndarray, "columns bins"]:
    """Gains of a broad band that moves."""
    middle = between(random, 2500, 6500) * 2.0 ** (0.5 * wander(random, times, syllables))
    return np.exp(-(((hertz(rate) - middle[:, None]) / random.uniform(500, 2000)) ** 2))
