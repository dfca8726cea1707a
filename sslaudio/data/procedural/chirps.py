"""Chirps: tones that glide, as birds, sirens and crickets make them."""

import numpy as np

from sslaudio.data.procedural.filters import Sound, at_peak, between, faded


def chirp(random: np.random.Generator, samples: int, rate: int) -> Sound:
    """A glide from one pitch to another, straight or bent, perhaps with a warble and overtones."""
    low, high = np.sort(between(random, 150, 0.4 * rate, 2))
    course = np.linspace(0, 1, samples) ** between(random, 0.3, 3)
    if random.random() < 0.5:
        course = 1 - course
    if random.random() < 0.3:
        course = 1 - np.abs(2 * course - 1)  # there and back
    octaves = course * np.log2(high / low)
    if random.random() < 0.4:
        turns = np.arange(samples) * (between(random, 4, 80) / rate)
        octaves = octaves + between(random, 0.01, 0.3) * np.sin(2 * np.pi * turns)
    pitch = np.minimum(low * 2.0**octaves, 0.48 * rate)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    sound = np.sin(phase)
    if random.random() < 0.4:
        sound += random.uniform(0.1, 0.6) * np.sin(2 * phase) * (2 * pitch < 0.48 * rate)
    return at_peak(faded(sound.astype(np.float32), int(between(random, 0.002, 0.1) * rate)))
