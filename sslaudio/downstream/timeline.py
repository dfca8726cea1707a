"""What is heard when: shares of classes in windows of files, by one classifier or several.

In:  classifiers of the same classes, audio files.
Out: for every file the shares in each of its windows, and their mean.

A file up to half as long again as a window is one clip. A longer one is windows of the same length
at equal steps, the last of which ends with the file; where less than a quarter of a window would be
its own, the one before moves to the end instead. Files are read in pieces, one classifier after the
other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from sslaudio.data.progress import ProgressMaker, silent
from sslaudio.downstream import windows
from sslaudio.downstream.classify import Classifier
from sslaudio.downstream.windows import Failures, Spans
from sslaudio.tasks.base import Kind

WHOLE = 1.5
"""Windows that a file may be as long as to be heard as one clip."""
ALONE = 0.25
"""Share of a window that has to be unheard for another."""

KINDS = {
    "single": "one class a clip",
    "multi": "several classes a clip",
    "number": "a number",
}
"""What a classifier tells, in words."""


@dataclass(frozen=True)
class Timeline:
    """A file."""

    path: Path
    seconds: float
    spans: Float[np.ndarray, "windows 2"]
    """Start and end of each window in seconds."""
    shares: Float[np.ndarray, "windows classes"]
    """Of the classes in each window; or the number."""

    @property
    def whole(self) -> Float[np.ndarray, " classes"]:
        """Mean of the windows."""
        return self.shares.mean(axis=0)

    @property
    def is_long(self) -> bool:
        """Whether it has more than one window."""
        return len(self.spans) > 1


class Predicted(NamedTuple):
    """What :func:`predict` heard."""

    files: list[Timeline]
    """Those that could be read, in the order given."""
    failures: list[tuple[str, str]]
    """Path of each file that could not be read, and the reason alone."""


class Panel:
    """Classifiers that tell the same classes, and the windows that they hear.

    Args:
        members: in eval mode, on one device.
        names: what to call each in a complaint.
        window_seconds: length of a window; unset: the nominal clip's, of several the shortest.
        hop_seconds: step from window to window; unset: half a window.

    Raises:
        ValueError: the classes differ, or the windows cannot be.
    """

    def __init__(
        self,
        members: Sequence[Classifier],
        names: Sequence[str],
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
    ) -> None:
        self.members = members
        first = members[0]
        for member, name in zip(members, names, strict=True):
            _check_same(first, names[0], member, name)
        nominal = min(member.clip_seconds for member in members)
        self.window_seconds = nominal if window_seconds is None else window_seconds
        self.hop_seconds = self.window_seconds / 2 if hop_seconds is None else hop_seconds
        self._check_windows(names)

    @property
    def kind(self) -> Kind:
        """What the shares are."""
        return self.members[0].kind

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the shares: the classes, or ``number``."""
        return self.members[0].classes or ("number",)

    def cut(self, samples: int, sample_rate: int) -> Spans:
        """The windows of a file."""
        whole = samples <= WHOLE * self.window_seconds * sample_rate
        if whole and not any(
            member.encoder.front_end.config.cuts(round(samples * member.sample_rate / sample_rate))
            for member in self.members
        ):
            return [(0, samples)]
        window = round(self.window_seconds * sample_rate)
        return cut(samples, window, max(1, round(self.hop_seconds * sample_rate)))

    def _check_windows(self, names: Sequence[str]) -> None:
        window, hop = self.window_seconds, self.hop_seconds
        rate = min(member.sample_rate for member in self.members)
        if not 1 / rate <= hop <= window < math.inf:
            raise ValueError(
                f"the hop is {hop:g} s and the window {window:g} s; a hop is above 0 and at most a "
                f"window, so that all of a file is heard"
            )
        for member, name in zip(self.members, names, strict=True):
            features = member.encoder.front_end.config
            if features.cuts(round(window * member.sample_rate)):
                most = features.samples(features.legacy_frames or 1) / member.sample_rate
                raise ValueError(
                    f"the window is {window:g} s, but {name} hears {most:g} s of a clip "
                    f"(features.legacy_frames {features.legacy_frames}); give at most that"
                )


def cut(samples: int, window: int, hop: int) -> Spans:
    """Cut a file into windows.

    Args:
        samples: of the file.
        window: samples of each window; a shorter file is one.
        hop: samples from one to the next, at most ``window``; to the last it may be less, or as
            much more as leaves nothing unheard.
    """
    if samples <= window:
        return [(0, samples)]
    moved = min(int(ALONE * window), window - hop)
    before_last = max(1, -(-(samples - window - moved) // hop))
    starts = [number * hop for number in range(before_last)] + [samples - window]
    return [(start, start + window) for start in starts]


def predict(panel: Panel, files: Sequence[Path], *, progress: ProgressMaker = silent) -> Predicted:
    """The mean shares of a panel in every window of files; what cannot be read is listed."""
    rate = panel.members[0].sample_rate
    samples, failures = windows.counted(files, rate)
    spans = {place: panel.cut(count, rate) for place, count in samples.items()}
    total = {
        place: np.zeros((len(own), len(panel.columns)), np.float64) for place, own in spans.items()
    }
    count = len(panel.members) * sum(map(len, spans.values()))
    with progress("predicting", count) as advance, torch.inference_mode():
        for member in panel.members:
            its = {place: _at_rate(own, rate, member.sample_rate) for place, own in spans.items()}
            for batch in windows.batches(files, member.sample_rate, its, failures):
                waveforms, lengths = windows.laid(batch, member.encoder.front_end.window.device)
                scores = member(waveforms, lengths=lengths)
                for piece, row in zip(batch, member.shares(scores).cpu().numpy(), strict=True):
                    total[piece.file][piece.number] += row
                advance(len(batch))
    return Predicted(
        [
            Timeline(
                files[place],
                samples[place] / rate,
                np.array(spans[place]) / rate,
                total[place] / len(panel.members),
            )
            for place in spans
            if place not in failures
        ],
        _listed(files, failures),
    )


def _at_rate(spans: Spans, from_rate: int, to_rate: int) -> Spans:
    """The same windows at another rate."""
    ratio = to_rate / from_rate
    return [(round(start * ratio), max(1, round(end * ratio))) for start, end in spans]


def _listed(files: Sequence[Path], failures: Failures) -> list[tuple[str, str]]:
    return [(str(files[place]), failures[place].reason) for place in sorted(failures)]


def _check_same(first: Classifier, its_name: str, other: Classifier, name: str) -> None:
    """Refuse to average what is not of the same classes."""
    if first.kind != other.kind:
        raise ValueError(
            f"{its_name} tells {KINDS[first.kind]} and {name} {KINDS[other.kind]}; give runs that "
            f"were fine-tuned on one task"
        )
    if first.classes != other.classes:
        here, there = set(first.classes), set(other.classes)
        only = sorted(here ^ there)
        odd = (
            only[0]
            if only
            else next(
                one for one, its in zip(first.classes, other.classes, strict=True) if one != its
            )
        )
        how = f"one alone knows {odd!r}" if only else f"they differ in order from {odd!r} on"
        raise ValueError(
            f"{its_name} tells {len(first.classes)} classes and {name} {len(other.classes)}; "
            f"{how}; give runs that were fine-tuned on one task and variant"
        )
