"""Files of any length as batches of windows: read once, a piece at a time.

In:  files, and which of their samples each window has.
Out: windows with their place, in batches of like length; files that cannot be read.

A very long file takes no more memory than a short one: what waits is a few batches of windows.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sslaudio.data.buckets import by_length
from sslaudio.data.decode import DecodeError
from sslaudio.data.pieces import cut_out, samples_of

BATCH_SECONDS = 64.0
"""Sound of one forward pass, padding included; a longer window goes alone."""
AHEAD = 4
"""Batches' worth of windows that are sorted by length together."""
Spans = list[tuple[int, int]]
"""First sample of each window, and the one behind its last."""


class Piece(NamedTuple):
    """A window of a file."""

    file: int
    """Place of its file."""
    number: int
    """Its own in the file, from 0."""
    waveform: np.ndarray


Failures = dict[int, DecodeError]
"""Why a file cannot be read, by its place."""


def counted(files: Sequence[Path], sample_rate: int) -> tuple[dict[int, int], Failures]:
    """Samples of every file that can be opened, and why the others cannot, by place."""
    samples: dict[int, int] = {}
    failures: Failures = {}
    for place, file in enumerate(files):
        try:
            samples[place] = samples_of(file, sample_rate)
        except DecodeError as error:
            failures[place] = error
    return samples, failures


def batches(
    files: Sequence[Path], sample_rate: int, spans: Mapping[int, Spans], failures: Failures
) -> Iterator[list[Piece]]:
    """Windows of files, those of like length together; a file that ends early is a failure."""
    most = round(BATCH_SECONDS * sample_rate)
    waiting: list[Piece] = []
    samples = 0
    for piece in _pieces(files, sample_rate, spans, failures):
        waiting.append(piece)
        samples += len(piece.waveform)
        if samples >= AHEAD * most:
            yield from _sorted(waiting, most)
            waiting, samples = [], 0
    yield from _sorted(waiting, most)


def laid(
    batch: Sequence[Piece], device: torch.device
) -> tuple[Float[Tensor, "windows samples"], Int[Tensor, " windows"]]:
    """The waveforms of a batch, padded, and their lengths."""
    lengths = torch.tensor([len(piece.waveform) for piece in batch])
    waveforms = torch.zeros(len(batch), int(lengths.max()))
    for row, piece in zip(waveforms, batch, strict=True):
        row[: len(piece.waveform)] = torch.from_numpy(piece.waveform)
    return waveforms.to(device), lengths.to(device)


def _pieces(
    files: Sequence[Path], sample_rate: int, spans: Mapping[int, Spans], failures: Failures
) -> Iterator[Piece]:
    for place, own in spans.items():
        if place in failures:
            continue
        try:
            for number, waveform in enumerate(cut_out(files[place], sample_rate, own)):
                if not len(waveform):
                    raise DecodeError(str(files[place]), "ends before its header says")
                yield Piece(place, number, waveform)
        except DecodeError as error:
            failures[place] = error


def _sorted(pieces: Sequence[Piece], most: int) -> Iterator[list[Piece]]:
    for rows in by_length([len(piece.waveform) for piece in pieces], most):
        yield [pieces[row] for row in rows]
