"""Clips to embeddings: decode in threads, batch by length, keep the order given.

In:  an encoder, and examples of a task or audio files and folders.
Out: one float32 vector a clip, in the order given; ``.npz`` files.

An encoder is a module with ``sample_rate`` (Hz), called as ``encoder(waveforms, lengths=lengths)``:
waveforms float32 ``[clips, samples]`` and their lengths int64 ``[clips]`` in samples give float32
``[clips, dim]``; what lies behind a clip's length never matters to it. It runs in eval mode
without gradients and is left in the mode it came in.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from sslaudio.data.buckets import by_length, rounded
from sslaudio.data.corpora.base import sound_files
from sslaudio.data.decode import DecodeError, decode
from sslaudio.data.progress import Advance
from sslaudio.tasks.base import Example
from sslaudio.training.storage import replacing

WINDOW_BATCHES = 16
"""Batches' worth of decoded clips that are sorted by length together."""
Progress = Callable[[int, int], None]
"""Called with the clips done so far and all there are."""
Heard = Callable[[str, int], None]
"""Called with a file's path and the samples it has at the encoder's rate."""


class Embedded(NamedTuple):
    """What :func:`embed_files` made of files."""

    keys: list[str]
    """Paths of the files that could be read, in the order given."""
    embeddings: Float[np.ndarray, "clips dim"]
    """One row a key."""
    failures: list[tuple[str, str]]
    """Path of each file that could not be read, and the reason alone."""


@dataclass(frozen=True)
class _Sound:
    index: int
    waveform: np.ndarray


def embed_examples(
    encoder: nn.Module,
    examples: Sequence[Example],
    *,
    batch_seconds: float = 64.0,
    workers: int = 2,
    progress: Progress | None = None,
) -> Float[np.ndarray, "clips dim"]:
    """Embed the examples of a task, one row each, in the order given.

    Args:
        encoder: see the module's docstring.
        examples: at least one.
        batch_seconds: sound of one forward pass, padding included; a longer clip goes alone. Few
            lengths are padded to, so that an encoder that is compiled meets few shapes.
        workers: threads that decode.
        progress: told after every batch.

    Raises:
        DecodeError: a clip cannot be read; a score over fewer clips would be another score.
    """
    if not examples:
        raise ValueError("there is no clip to embed; give a fold with clips in every part")
    sources = [example.waveform for example in examples]
    rows, failures = _embed(encoder, sources, batch_seconds, workers, progress)
    for error in failures.values():
        raise error
    return np.stack([rows[index] for index in range(len(examples))])


def decode_examples(
    examples: Sequence[Example], sample_rate: int, *, workers: int = 2
) -> list[np.ndarray]:
    """The waveforms of the examples, to be embedded more than once; all of them in memory.

    Raises:
        DecodeError: a clip cannot be read.
    """
    decoding = _decoding([example.waveform for example in examples], sample_rate, workers)
    return [future.result() for _, future in decoding]


def embed_waveforms(
    encoder: nn.Module, waveforms: Sequence[np.ndarray], *, batch_seconds: float = 64.0
) -> Float[np.ndarray, "clips dim"]:
    """Embed what :func:`decode_examples` gave at the encoder's rate, as ``embed_examples`` does."""
    sources = [lambda _, waveform=waveform: waveform for waveform in waveforms]
    rows, _ = _embed(encoder, sources, batch_seconds, 1, None)
    return np.stack([rows[index] for index in range(len(waveforms))])


def embed_files(
    encoder: nn.Module,
    paths: Sequence[str | Path],
    *,
    batch_seconds: float = 64.0,
    workers: int = 2,
    progress: Progress | None = None,
    heard: Heard | None = None,
) -> Embedded:
    """Embed audio files and the sound under folders; what cannot be read is listed, not fatal."""
    files = audio_files(paths)
    sources = [_reader(file, heard) for file in files]
    rows, failures = _embed(encoder, sources, batch_seconds, workers, progress)
    read = sorted(rows)
    return Embedded(
        keys=[str(files[index]) for index in read],
        embeddings=np.stack([rows[index] for index in read]) if read else np.zeros((0, 0), "f4"),
        failures=[(str(files[index]), failures[index].reason) for index in sorted(failures)],
    )


def audio_files(paths: Sequence[str | Path]) -> list[Path]:
    """The files given and, sorted in a folder's place, the WAV, FLAC, OGG and MP3 below it.

    Linked folders are entered too, as the corpus ``folder`` does.
    """
    files = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        found = sound_files(path)
        if not found:
            raise ValueError(
                f"{path} holds no WAV, FLAC, OGG or MP3 file; give a folder that does, or files"
            )
        files.extend(found)
    return files


def write_npz(path: Path, embedded: Embedded) -> None:
    """Write ``keys`` (fixed-width unicode) and ``embeddings`` (float32), whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez(file, keys=np.array(embedded.keys, np.str_), embeddings=embedded.embeddings)


def telling(advance: Advance) -> Progress:
    """The callback that moves a display of :mod:`sslaudio.data.progress` along."""
    before = 0

    def tell(done: int, total: int) -> None:
        nonlocal before
        advance(done - before)
        before = done

    return tell


def _embed(
    encoder: nn.Module,
    sources: Sequence[Callable[[int], np.ndarray]],
    batch_seconds: float,
    workers: int,
    progress: Progress | None,
) -> tuple[dict[int, np.ndarray], dict[int, DecodeError]]:
    """Embeddings and errors by place in ``sources``."""
    rows: dict[int, np.ndarray] = {}
    failures: dict[int, DecodeError] = {}
    sample_rate: int = encoder.sample_rate  # type: ignore[assignment]
    batch_samples = round(batch_seconds * sample_rate)
    with evaluating(encoder):
        for window in _windows(sources, sample_rate, workers, batch_samples, failures):
            for batch in _batches(window, batch_samples):
                for sound, row in zip(batch, _forward(encoder, batch), strict=True):
                    rows[sound.index] = row
                if progress:
                    progress(len(rows) + len(failures), len(sources))
    return rows, failures


def _windows(
    sources: Sequence[Callable[[int], np.ndarray]],
    sample_rate: int,
    workers: int,
    batch_samples: int,
    failures: dict[int, DecodeError],
) -> Iterator[list[_Sound]]:
    """Decoded clips, as many at a time as memory is meant to hold; errors go to ``failures``."""
    window: list[_Sound] = []
    samples = 0
    for index, future in _decoding(sources, sample_rate, workers):
        try:
            waveform = future.result()
        except DecodeError as error:
            failures[index] = error
            continue
        window.append(_Sound(index, waveform))
        samples += len(waveform)
        if samples >= WINDOW_BATCHES * batch_samples:
            yield window
            window, samples = [], 0
    if window:
        yield window


def _decoding(
    sources: Sequence[Callable[[int], np.ndarray]], sample_rate: int, workers: int
) -> Iterator[tuple[int, Future[np.ndarray]]]:
    """Clips in order, a few per worker decoded ahead."""
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[tuple[int, Future[np.ndarray]]] = deque()
        for index, source in enumerate(sources):
            ahead.append((index, pool.submit(source, sample_rate)))
            if len(ahead) > 4 * workers:
                yield ahead.popleft()
        yield from ahead


def _batches(window: Sequence[_Sound], batch_samples: int) -> Iterator[list[_Sound]]:
    """Clips of like length together, longest first, so that little of a batch is padding."""
    for places in by_length([rounded(len(sound.waveform)) for sound in window], batch_samples):
        yield [window[place] for place in places]


def _forward(encoder: nn.Module, batch: Sequence[_Sound]) -> Float[np.ndarray, "clips dim"]:
    device = next((weight.device for weight in encoder.parameters()), torch.device("cpu"))
    lengths = torch.tensor([len(sound.waveform) for sound in batch])
    waveforms = torch.zeros(len(batch), rounded(int(lengths.max())))
    for row, sound in zip(waveforms, batch, strict=True):
        row[: len(sound.waveform)] = torch.from_numpy(sound.waveform)
    with torch.inference_mode():
        embeddings = encoder(waveforms.to(device), lengths=lengths.to(device))
    assert embeddings.ndim == 2 and len(embeddings) == len(batch), "one vector a clip"
    return embeddings.float().cpu().numpy()


@contextmanager
def evaluating(encoder: nn.Module) -> Iterator[None]:
    """Eval mode inside; outside, every submodule in the mode it had."""
    modes = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _reader(file: Path, heard: Heard | None) -> Callable[[int], np.ndarray]:
    def read(sample_rate: int) -> np.ndarray:
        waveform = decode(file, sample_rate)
        if heard:
            heard(str(file), len(waveform))
        return waveform

    return read
