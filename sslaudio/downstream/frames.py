"""An embedding a column of the token grid, with its time, of files of any length.

In:  an encoder and audio files.
Out: for every file float32 ``[frames, dim]`` and the seconds that each frame sees; ``.npz`` files.

A long file is read window by window, as :meth:`Encoder.tokens` cuts it, and only the embeddings of
all of it are held: they are what :meth:`Encoder.frames` gives of the whole.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64

from sslaudio.backbones.encoder import Encoder, Window
from sslaudio.data.progress import ProgressMaker, silent
from sslaudio.downstream import windows
from sslaudio.downstream.clips import padded
from sslaudio.downstream.embed import evaluating
from sslaudio.downstream.windows import Piece
from sslaudio.training.storage import replacing


class Framed(NamedTuple):
    """What :func:`embed_frames` made of files."""

    keys: list[str]
    """Paths of the files that could be read, in the order given."""
    embeddings: Float32[np.ndarray, "frames dim"]
    """Of all files, one after the other."""
    offsets: Int64[np.ndarray, " edges"]
    """Rows of file i are ``offsets[i]`` to ``offsets[i + 1]`` (left out)."""
    times: Float32[np.ndarray, "frames 2"]
    """Seconds at which what a frame sees begins and ends, before attention."""
    failures: list[tuple[str, str]]
    """Path of each file that could not be read, and the reason alone."""
    cut: list[str]
    """Files of which a model of fixed length heard the beginning alone."""


class Plan:
    """How an encoder hears a file: its windows, and the samples of each.

    A model of fixed length hears the beginning alone, which is its picture.
    """

    def __init__(self, encoder: Encoder, samples: int) -> None:
        front_end = encoder.front_end
        self.times = encoder.spans(samples)
        frames = front_end.config.frames(samples)
        whole = [Window(0, 0, int(encoder.backbone.columns(torch.tensor([frames]))))]
        fixed = front_end.config.legacy_frames is not None
        self.windows = whole if fixed else encoder.windows(frames)
        self.shown = [encoder.shown(window, frames) for window in self.windows]
        self.stretches = [front_end.config.stretch(first, last) for first, last in self.shown]
        self.spans = [(start, min(end, samples)) for start, end, _ in self.stretches]
        self.finer = encoder.backbone.finer(encoder.pooled_block)

    def rows(self, window: Window) -> tuple[int, int]:
        """Which columns of the file a window gives."""
        return window.first * self.finer, min(window.last * self.finer, len(self.times))


def embed_frames(
    encoder: Encoder, files: Sequence[Path], *, progress: ProgressMaker = silent
) -> Framed:
    """Embed every column of files; what cannot be read is listed, not fatal."""
    features, rate = encoder.front_end.config, encoder.sample_rate
    samples, failures = windows.counted(files, rate)
    plans = {place: Plan(encoder, count) for place, count in samples.items()}
    spans = {place: plan.spans for place, plan in plans.items()}
    made: dict[tuple[int, int], np.ndarray] = {}
    total = sum(map(len, spans.values()))
    with progress("embedding", total) as advance, evaluating(encoder), torch.inference_mode():
        for batch in windows.batches(files, rate, spans, failures):
            for piece, rows in zip(batch, _embedded(encoder, batch, plans), strict=True):
                made[piece.file, piece.number] = rows
            advance(len(batch))
    read = [place for place in spans if place not in failures]
    heard = [_heard(plans[place]) for place in read]
    own = [
        np.concatenate([made.pop((place, number)) for number in range(len(spans[place]))])
        for place in read
    ]
    return Framed(
        keys=[str(files[place]) for place in read],
        embeddings=np.concatenate(own) if own else np.zeros((0, 0), np.float32),
        offsets=np.cumsum([0, *map(len, own)], dtype=np.int64),
        times=np.concatenate(heard) if heard else np.zeros((0, 2), np.float32),
        failures=[(str(files[place]), failures[place].reason) for place in sorted(failures)],
        cut=[str(files[place]) for place in read if features.cuts(samples[place])],
    )


def write_npz(path: Path, framed: Framed) -> None:
    """Write ``keys``, ``embeddings``, ``offsets`` and ``times``, whole or not at all."""
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez(
            file,
            keys=np.array(framed.keys, np.str_),
            embeddings=framed.embeddings,
            offsets=framed.offsets,
            times=framed.times,
        )


def _heard(plan: Plan) -> Float32[np.ndarray, "frames 2"]:
    """Times of the columns that see any of the sound: padding of a fixed length is none."""
    times = plan.times.numpy()
    return times[times[:, 0] < times[:, 1]]


def _embedded(
    encoder: Encoder, batch: Sequence[Piece], plans: dict[int, Plan]
) -> list[Float[np.ndarray, "frames dim"]]:
    """Rows of each window of a batch."""
    waveforms, lengths = windows.laid(batch, encoder.front_end.window.device)
    pictures, frames = encoder.front_end(waveforms, lengths)
    if encoder.front_end.config.legacy_frames is not None:
        made = encoder.frames(pictures, frames).cpu().numpy()
        counts = [len(_heard(plans[piece.file])) for piece in batch]
    else:
        shown, counts = [], []
        for piece, picture in zip(batch, pictures, strict=True):
            plan = plans[piece.file]
            first, last = plan.shown[piece.number]
            before = plan.stretches[piece.number][2]
            shown.append(picture[:, before : before + last - first])
            start, end = plan.rows(plan.windows[piece.number])
            counts.append(end - start)
        made = encoder.frames_of_windows(*padded(shown)).cpu().numpy()
    return [rows[:count].copy() for rows, count in zip(made, counts, strict=True)]
