"""Scenes: the endless seeded corpus of procedural sound, a clip a number.

In:  a seed and a number.
Out: a clip: one to three sounds (a voice, a tune, something struck, a noise, a chirp, or a rhythm
     of one of these), some in a room, at levels and times of their own, over noise, through
     a microphone that hears more or less of it.
"""

import numpy as np

from sslaudio.data.procedural.chirps import chirp
from sslaudio.data.procedural.filters import (
    Sound,
    at_peak,
    between,
    columns,
    faded,
    filtered,
    hertz,
    wander,
)
from sslaudio.data.procedural.impacts import impact
from sslaudio.data.procedural.noises import noise
from sslaudio.data.procedural.notes import notes
from sslaudio.data.procedural.rooms import in_a_room
from sslaudio.data.procedural.voices import voice

KINDS = {"voice": voice, "notes": notes, "impact": impact, "noise": noise, "chirp": chirp}
"""What a scene is made of; and rhythms of these."""
_SHARES = (0.35, 0.2, 0.15, 0.15, 0.15)
_EVENT_SECONDS = (0.03, 0.4)


def scene(seed: int, number: int, samples: int, rate: int) -> Sound:
    """The ``number``-th clip of a seed's corpus: mono, in [-1, 1]."""
    random = np.random.default_rng([seed, number])
    out = np.zeros(samples, np.float32)
    for _ in range(int(random.choice([1, 2, 3], p=[0.55, 0.3, 0.15]))):
        first, length = _stretch(random, samples, rate)
        sound = at_peak(_sound(random, length, rate), 10 ** -random.uniform(0, 1))
        out[first : first + length] += faded(sound, 64)
    if random.random() < 0.5:
        out = in_a_room(random, out, rate)
    out = at_peak(out)
    out = out + at_peak(noise(random, samples, rate), 10 ** random.uniform(-4.5, -0.7))
    if random.random() < 0.5:
        out = filtered(out, _microphone(random, samples, rate))
    return at_peak(out, 10 ** -random.uniform(0.05, 1.5))


def _stretch(random: np.random.Generator, samples: int, rate: int) -> tuple[int, int]:
    """Where a sound begins and how long it lasts: mostly all along."""
    if random.random() < 0.5:
        return 0, samples
    length = min(samples, max(rate // 10, int(random.uniform(0.2, 1) * samples)))
    return int(random.integers(0, samples - length + 1)), length


def _sound(random: np.random.Generator, samples: int, rate: int) -> Sound:
    kind = random.choice(list(KINDS), p=_SHARES)
    if kind == "voice" or random.random() < 0.6:
        return KINDS[kind](random, samples, rate)
    return rhythm(random, str(kind), samples, rate)


def rhythm(random: np.random.Generator, kind: str, samples: int, rate: int) -> Sound:
    """One short sound of a kind, or two in turn, at a beat with gaps."""
    events = [
        KINDS[kind](random, int(between(random, *_EVENT_SECONDS) * rate), rate)
        for _ in range(1 + (random.random() < 0.4))
    ]
    beat = between(random, 0.06, 0.6)
    loose = random.uniform(0, 0.1)
    pattern = random.random(int(random.integers(2, 9))) < random.uniform(0.4, 1)
    pattern[0] = True
    out = np.zeros(samples, np.float32)
    for step in range(int(samples / rate / beat) + 1):
        if not pattern[step % len(pattern)]:
            continue
        at = int(max(0, step + loose * random.standard_normal()) * beat * rate)
        event = events[step % len(events)][: max(0, samples - at)]
        out[at : at + len(event)] += event * np.float32(random.uniform(0.5, 1))
    return out


def _microphone(random: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """Gains that colour a recording, and cut what lies above or below."""
    octaves = np.log2(np.maximum(hertz(rate), 20) / 1000)
    tilt = 10 ** (random.uniform(-0.15, 0.15) * octaves)
    colour = 10 ** (0.3 * wander(random, len(octaves), 12))
    top = between(random, 2500, rate)
    bottom = between(random, 20, 300)
    cut = 1 / (1 + (hertz(rate) / top) ** 8) / (1 + (bottom / np.maximum(hertz(rate), 1)) ** 4)
    return np.broadcast_to(tilt * colour * cut, (columns(samples), len(octaves)))
