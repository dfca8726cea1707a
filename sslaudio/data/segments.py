"""Long files cut to segments, before their clips are dealt to shards.

In:  the clips of a corpus, and how long a segment is.
Out: the clips, with those of longer files replaced by their segments, which lie end to end: the
     sum of their samples is the file's.

Lengths are read from the files' headers, in several processes; an MP3, whose header may tell an
estimate, is decoded for it. A file that cannot be read stays one clip, for the build to reject.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sslaudio.data.corpora.base import Clip
from sslaudio.data.decode import DecodeError
from sslaudio.data.pieces import samples_of
from sslaudio.data.processes import run_parallel
from sslaudio.data.progress import ProgressMaker

SHORTEST_SECONDS = 0.1
"""A shorter rest of a file goes with the segment before it: the encoders hear nothing below it."""

_FILES_TOGETHER = 32


@dataclass(frozen=True)
class _Measuring:
    """Files whose lengths a process finds out together."""

    paths: tuple[Path, ...]
    sample_rate: int


def check_seconds(seconds: float | None) -> None:
    """Refuse a length of segments that is none."""
    if seconds is not None and not SHORTEST_SECONDS <= seconds < math.inf:
        raise ValueError(
            f"--segment-seconds is {seconds:g}; set it to {SHORTEST_SECONDS:g} or more, or leave "
            f"it out to keep files whole"
        )


def cut(
    clips: Sequence[Clip],
    seconds: float,
    sample_rate: int,
    jobs: int | None,
    progress: ProgressMaker,
) -> list[Clip]:
    """Replace each clip that is longer than a segment by its segments.

    Args:
        clips: as the importer returned them.
        seconds: length of a segment; the last one of a file is shorter, or up to
            :data:`SHORTEST_SECONDS` longer.
        sample_rate: Hz of the clips in the shards: a segment has the same samples in each.
        jobs: processes; None takes every core.
        progress: shows how far the measuring is.
    """
    length, shortest = (round(one * sample_rate) for one in (seconds, SHORTEST_SECONDS))
    lengths = _measured(clips, length, sample_rate, jobs, progress)
    return [
        segment
        for clip in clips
        for segment in _segments(clip, lengths.get(clip.path), length, shortest, sample_rate)
    ]


def _measured(
    clips: Sequence[Clip],
    length: int,
    sample_rate: int,
    jobs: int | None,
    progress: ProgressMaker,
) -> dict[Path, int]:
    """Samples of each file that can be read and may be longer than a segment."""
    long = [c for c in clips if c.seconds is None or round(c.seconds * sample_rate) > length]
    paths = list(dict.fromkeys(clip.path for clip in long))
    todo = [
        _Measuring(tuple(paths[first : first + _FILES_TOGETHER]), sample_rate)
        for first in range(0, len(paths), _FILES_TOGETHER)
    ]
    lengths: dict[Path, int] = {}
    with progress("lengths", len(paths)) as advance:
        for measuring, found in run_parallel(_measure, todo, jobs):
            told = zip(measuring.paths, found, strict=True)
            lengths.update((path, samples) for path, samples in told if samples is not None)
            advance(len(found))
    return lengths


def _measure(measuring: _Measuring) -> tuple[_Measuring, list[int | None]]:
    found: list[int | None] = []
    for path in measuring.paths:
        try:
            found.append(samples_of(path, measuring.sample_rate))
        except DecodeError:
            found.append(None)
    return measuring, found


def _segments(
    clip: Clip, samples: int | None, length: int, shortest: int, sample_rate: int
) -> Iterator[Clip]:
    """The clip, or its segments; ``samples`` is the length of its file, where that matters."""
    if samples is None:
        yield clip
        return
    first, last = round(clip.start_seconds * sample_rate), samples
    if clip.seconds is not None:
        last = min(last, round((clip.start_seconds + clip.seconds) * sample_rate))
    count = max(1, (last - first) // length)
    if last - first - count * length >= shortest:
        count += 1
    if count == 1:
        yield clip
        return
    for number in range(count):
        start = first + number * length
        end = start + length if number < count - 1 else last
        part = f"{number:04d}"
        yield replace(
            clip,
            start_seconds=start / sample_rate,
            seconds=(end - start) / sample_rate,
            recording=clip.source if clip.recording is None else clip.recording,
            part=f"{clip.part}-{part}" if clip.part else part,
        )
