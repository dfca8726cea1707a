"""Rooms: what walls send back, early and one by one, late and all at once."""

import numpy as np

from sslaudio.data.procedural.filters import Sound, at_peak, between


def in_a_room(random: np.random.Generator, sound: Sound, rate: int) -> Sound:
    """A sound and its echoes, of the same length.

    Source: Moorer 1979: noise that dies away exponentially is what a hall sounds like.
    """
    seconds = between(random, 0.05, 1.2)
    length = min(len(sound), int(seconds * rate))
    time = np.arange(length, dtype=np.float32) / rate
    answer = random.standard_normal(length, np.float32) * np.exp(-6.9 * time / np.float32(seconds))
    answer[: int(random.uniform(0.002, 0.02) * rate)] = 0
    dull = random.uniform(0, 0.9)
    answer = np.convolve(answer, dull ** np.arange(16), "same")
    early = (random.uniform(0.001, 0.05, 6) * rate).astype(int)
    answer[early[early < length]] += random.uniform(-3, 3, int((early < length).sum()))
    size = 1 << (len(sound) + length - 1).bit_length()
    spectrum = np.fft.rfft(sound, size) * np.fft.rfft(answer.astype(np.float32), size)
    wet = at_peak(np.fft.irfft(spectrum, size)[: len(sound)])
    return sound + wet * np.float32(between(random, 0.05, 1.0))
