"""A seeded set of one-second clips whose class is an order in time, and nothing else.

In:  how many clips, and a seed.
Out: shards of corpus ``synth`` with train, validation and test clips of ten classes.

Every clip holds the same eight chirps, each once: four pitches, gliding up and gliding down. The
class is the order of the pitches (:data:`ORDERS`); base pitch, tempo, start, loudness, noise and
which of a pitch's two glides comes first are drawn at random, alike for every class. So loudness,
mean spectrum, its spread over time and length tell nothing; the course of the pitch tells all.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float64

from sslaudio.data import progress as progress_display
from sslaudio.data import shards
from sslaudio.data.corpora.base import Clip
from sslaudio.data.index import Index
from sslaudio.data.progress import ProgressMaker

SAMPLE_RATE = 16_000
ORDERS = {
    "rise": (0, 0, 1, 1, 2, 2, 3, 3),
    "fall": (3, 3, 2, 2, 1, 1, 0, 0),
    "rise and fall": (0, 1, 2, 3, 3, 2, 1, 0),
    "fall and rise": (3, 2, 1, 0, 0, 1, 2, 3),
    "rise twice": (0, 1, 2, 3, 0, 1, 2, 3),
    "fall twice": (3, 2, 1, 0, 3, 2, 1, 0),
    "wide then narrow": (0, 3, 0, 3, 1, 2, 1, 2),
    "narrow then wide": (1, 2, 1, 2, 0, 3, 0, 3),
    "low pairs then high": (0, 1, 0, 1, 2, 3, 2, 3),
    "high pairs then low": (3, 2, 3, 2, 1, 0, 1, 0),
}
"""Class to the pitches of its eight chirps, 0 the lowest; each pitch comes twice."""

_SPLITS = (
    "train",
    "train",
    "test",
    "train",
    "validation",
    "train",
    "train",
    "test",
    *["train"] * 2,
)
_FEWEST_CLIPS = len(ORDERS) * len(_SPLITS)
_BASE_HZ = (300.0, 800.0)
_STEP_OCTAVES = 0.45
_GLIDE_OCTAVES = 0.2
_CHIRP_SECONDS = (0.085, 0.110)
_PEAK_DB = (-30.0, -6.0)
_NOISE_DB = (-40.0, -15.0)
_OVERTONE = 0.4


def build(
    out: Path,
    *,
    clips: int = 1_000,
    seed: int = 0,
    progress: ProgressMaker = progress_display.shown,
) -> tuple[Index, bool]:
    """Write the set as shards; as :func:`sslaudio.data.shards.build`, it can be run again.

    Seven tenths train, one validates, two test; the classes come equally often in each.
    """
    if clips < _FEWEST_CLIPS:
        raise ValueError(
            f"--clips is {clips}, too few for ten classes in three splits; "
            f"set it to {_FEWEST_CLIPS} or more"
        )
    if seed < 0:
        raise ValueError(f"--seed is {seed}; set it to 0 or more")
    with tempfile.TemporaryDirectory() as folder:
        sounds = [write_clip(Path(folder), number, seed) for number in range(clips)]
        return shards.build(sounds, out, corpus="synth", jobs=1, progress=progress)


def write_clip(folder: Path, number: int, seed: int) -> Clip:
    """Write the ``number``-th clip of a set as 16-bit WAV."""
    label = list(ORDERS)[number % len(ORDERS)]
    split = _SPLITS[number // len(ORDERS) % len(_SPLITS)]
    path = folder / f"seed-{seed}-clip-{number:06d}.wav"
    waveform = synthesise(label, np.random.default_rng([seed, number]))
    soundfile.write(path, waveform, SAMPLE_RATE, "PCM_16")
    clip = Clip(path, path.name, label=label, split=split, licence="CC0 1.0")
    return replace(clip, recording=path.stem)


def synthesise(label: str, random: np.random.Generator) -> Float64[np.ndarray, "samples"]:
    """One second of a class, mono, in [-1, 1]."""
    chirp_seconds = random.uniform(*_CHIRP_SECONDS)
    base_hz = np.exp(random.uniform(*np.log(_BASE_HZ)))
    clean = np.zeros(SAMPLE_RATE)
    start = random.uniform(0.0, 1.0 - chirp_seconds * len(ORDERS[label]))
    rises = random.integers(0, 2, size=4).astype(bool)  # does a pitch's first chirp rise?
    for pitch in ORDERS[label]:
        chirp = _chirp(base_hz * 2.0 ** (pitch * _STEP_OCTAVES), chirp_seconds, rises[pitch])
        first = round(start * SAMPLE_RATE)
        clean[first : first + len(chirp)] += chirp[: SAMPLE_RATE - first]
        rises[pitch] = not rises[pitch]
        start += chirp_seconds
    noise = random.standard_normal(SAMPLE_RATE) * 10.0 ** (random.uniform(*_NOISE_DB) / 20)
    waveform = clean + noise
    peak = 10.0 ** (random.uniform(*_PEAK_DB) / 20)
    return waveform * peak / np.abs(waveform).max()


def _chirp(middle_hz: float, seconds: float, rises: bool) -> Float64[np.ndarray, "samples"]:
    """A tone with one overtone that glides through ``middle_hz``, faded in and out."""
    samples = round(seconds * SAMPLE_RATE)
    course = np.linspace(-0.5, 0.5, samples) * (1 if rises else -1)
    phase = 2 * np.pi * np.cumsum(middle_hz * 2.0 ** (course * _GLIDE_OCTAVES)) / SAMPLE_RATE
    tone = np.sin(phase) + _OVERTONE * np.sin(2 * phase)
    return tone * np.sin(np.linspace(0, np.pi, samples)) ** 0.5
