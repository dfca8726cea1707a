"""Noises: wind, water, engines, crackle; noise through filters that move."""

import numpy as np
from jaxtyping import Float64

from sslaudio.data.procedural.filters import (
    HOP,
    Course,
    Sound,
    at_peak,
    between,
    columns,
    filtered,
    hertz,
    wander,
)


def noise(random: np.random.Generator, samples: int, rate: int) -> Sound:
    """Noise or crackle of a slope, through bands that move, its loudness in waves or pulses."""
    sound = random.standard_normal(samples, np.float32)
    if random.random() < 0.3:
        sound *= random.random(samples, np.float32) < between(random, 0.0005, 0.05)
    times = columns(samples)
    gains = (np.maximum(hertz(rate), 50) / 1000) ** -random.uniform(0, 1.5)
    gains = gains * _bands(random, times, rate)
    return at_peak(filtered(sound, gains * _loudness(random, times, rate)[:, None]))


def _bands(
    random: np.random.Generator, times: int, rate: int
) -> Float64[np.ndarray, "columns bins"]:
    octaves = np.log2(np.maximum(hertz(rate), 20))
    gains = np.full((times, len(octaves)), random.uniform(0, 0.2))
    for _ in range(int(random.integers(1, 4))):
        middle = random.uniform(7, 12.5) + random.uniform(0, 2) * wander(random, times, 5)
        gains += np.exp(-(((octaves - middle[:, None]) / between(random, 0.05, 1.5)) ** 2))
    return gains


def _loudness(random: np.random.Generator, times: int, rate: int) -> Course:
    if random.random() < 0.4:
        turns = np.cumsum(between(random, 1, 30) * 2.0 ** (0.3 * wander(random, times, 4)))
        turns *= HOP / rate
        pulse = 0.5 + 0.5 * np.cos(2 * np.pi * (turns + random.random()))
        return pulse ** between(random, 0.5, 8)
    return 10 ** (random.uniform(0, 1) * wander(random, times, int(random.integers(1, 12))))
