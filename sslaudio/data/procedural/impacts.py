"""Impacts: things that are struck and ring, in the modes of a bar, a plate, a bottle, wood."""

import numpy as np

from sslaudio.data.procedural.filters import Sound, at_peak, between


def impact(random: np.random.Generator, samples: int, rate: int) -> Sound:
    """Something struck once, or dropped so that it strikes again and again."""
    strikes = np.zeros(samples, np.float32)
    at, gap, force = random.uniform(0, 0.1) * samples / rate, between(random, 0.05, 0.4), 1.0
    again = random.random() < 0.4
    shrink = random.uniform(0.6, 0.95)
    while at * rate < samples:
        _strike(strikes, int(at * rate), force, int(between(random, 1, 60)))
        if not again or gap < 0.004:
            break
        at, gap, force = at + gap, gap * shrink, force * shrink
    return at_peak(_ringing(random, strikes, rate))


def _strike(strikes: Sound, at: int, force: float, hardness: int) -> None:
    """A push of ``hardness`` samples: the longer, the duller."""
    end = min(len(strikes), at + hardness)
    strikes[at:end] += force * np.hanning(hardness + 2)[1:-1][: end - at]


def _ringing(random: np.random.Generator, strikes: Sound, rate: int) -> Sound:
    """The strikes through resonances; high ones die sooner."""
    from scipy.signal import lfilter  # half a second, which no other sound is to wait for

    lowest, stretch = between(random, 100, 2000), random.uniform(0.7, 2.0)
    longest, damping = between(random, 0.01, 1.0), random.uniform(0, 1.5)
    out = strikes * np.float32(random.uniform(0, 0.3))
    for mode in range(int(random.integers(2, 9))):
        pitch = lowest * (1 + mode * random.uniform(0.8, 1.2)) ** stretch
        if pitch > 0.45 * rate:
            break
        seconds = longest * (pitch / lowest) ** -damping
        radius = np.exp(-1 / (seconds * rate))
        ring = [1.0, -2 * radius * np.cos(2 * np.pi * pitch / rate), radius**2]
        gain = random.uniform(0.2, 1) * np.sin(2 * np.pi * pitch / rate)
        out += lfilter([gain], ring, strikes).astype(np.float32)
    return out
