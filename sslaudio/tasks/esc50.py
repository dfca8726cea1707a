"""ESC-50 and its ESC-10 part: which of 50 (10) environmental sounds is heard.

In:  the corpus in its published layout: ``audio/`` and ``meta/esc50.csv``.
Out: a fold for every published fold: it tests, the next one validates, the others train.

Source: Piczak 2015 (ESC: Dataset for Environmental Sound Classification). No validation is
published; a whole fold, since clips of one recording never lie in two folds.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sslaudio.tasks import sources
from sslaudio.tasks.base import (
    Task,
    choose_folds,
    class_notes,
    cross_folds,
    example_of,
    recording_notes,
)

CORPUS = "esc50"
"""Where the clips come from."""
PUBLISHED_FOLDS = 5
"""Folds of the published corpus."""
CLIP_SECONDS = 5.0
"""Length of a published clip."""


@dataclass(frozen=True)
class Config:
    """Which classes and folds."""

    subset: Literal["esc50", "esc10"] = "esc50"
    """``esc50``: all classes. ``esc10``: the ten of ESC-10."""
    folds: tuple[int | str, ...] = ()
    """Folds to test on; empty for all that are there."""


def build(config: Config, root: Path) -> Task:
    """Read the corpus below ``root`` and set up the folds."""
    source = sources.read(CORPUS, root)
    clips = [
        clip for clip in source.clips if config.subset == "esc50" or config.subset in clip.subsets
    ]
    classes = tuple(sorted({str(clip.label) for clip in clips}))
    examples = [example_of(clip, classes.index(str(clip.label))) for clip in clips]
    numbers = [int(clip.fold or 0) for clip in clips]
    folds = choose_folds(cross_folds("esc50", examples, numbers), config.folds)
    return Task(
        name="esc50",
        classes=classes,
        seconds=CLIP_SECONDS,
        split_rule=f"{config.subset}, published folds; the next fold validates",
        notes=(
            *source.notes(),
            *_absent_notes(config.subset, classes, set(numbers)),
            *class_notes(classes, folds),
            *recording_notes("esc50", folds),
        ),
        folds=folds,
        missing=source.missing,
    )


def _absent_notes(subset: str, classes: Collection[str], numbers: Collection[int]) -> list[str]:
    expected = {"esc50": 50, "esc10": 10}[subset]
    notes = []
    if len(classes) < expected:
        notes.append(f"{len(classes)} of {expected} classes")
    if len(numbers) < PUBLISHED_FOLDS:
        notes.append(f"{len(numbers)} of {PUBLISHED_FOLDS} folds")
    return notes
