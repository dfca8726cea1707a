"""IEMOCAP emotion recognition: angry, happy, neutral or sad.

In:  the corpus in its published layout: ``Session1`` to ``Session5``.
Out: a fold for every session: it tests, the next one validates, the others train. Or the one
     fold of LAPE. 5,531 utterances of the published 10,039: those of the four classes, excited
     counted as happy.

Source: SUPERB's ER task (Yang et al. 2021, arXiv:2105.01051), which leaves out a session a fold.
It validates on a random fifth of the training sessions, whose speakers train; we on a session.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sslaudio.tasks import sources
from sslaudio.tasks.base import (
    LEGACY,
    Published,
    Task,
    choose_folds,
    class_notes,
    cross_folds,
    example_of,
    legacy_fold,
)

CORPUS = "iemocap"
"""Where the clips come from."""
CLASS_OF = {
    "angry": "angry",
    "excited": "happy",
    "happy": "happy",
    "neutral": "neutral",
    "sad": "sad",
}
"""The published emotions that count, and the class each is."""
SESSIONS = 5
"""Of the published corpus."""
LEGACY_TEST_SESSION = 5
"""Our stand-in for LAPE's one test list, which is not published."""
CLIP_SECONDS = 4.0
"""As in LAPE; the mean utterance is half a second longer, the longest last half a minute."""

PUBLISHED = {
    "published": Published.tables(
        "full",
        {
            "Gong et al. 2022 (SSAST, arXiv:2110.09784), poster, ER": {
                "AST, random (patch)": 51.9,
                "AST, random (frame)": 51.2,
                "AST, ImageNet + KD": 56.0,
                "AST, AudioSet": 51.9,
                "SSAST patch-250": 57.1,
                "SSAST patch-400": 59.6,
                "SSAST frame-250": 58.3,
                "SSAST frame-400": 60.5,
            },
            "Baade et al. 2022 (MAE-AST, arXiv:2203.16691), ER": {"MAE-AST": 59.8},
            "tables in the README of BEATs": {
                "BEATs iter1": 65.9,
                "BEATs iter2": 66.1,
                "BEATs iter3": 64.5,
                "BEATs iter3+": 65.0,
            },
        },
    ),
    LEGACY: Published.tables(
        "full",
        {
            "Ghosh et al. 2022 (SS-MAST, arXiv:2211.01515), Table 1; one test list, unpublished": {
                "AST, random": 51.9,
                "AST, ImageNet": 54.2,
                "AST, ImageNet + SSAST": 58.8,
                "AST, SS-MAST": 55.2,
                "AST, ImageNet + SS-MAST": 60.1,
                "MAST, random": 58.3,
                "MAST, ImageNet": 61.0,
                "MAST, SS-MAST": 62.2,
                "MAST, ImageNet + SS-MAST": 64.0,
                "MAST, ImageNet + SS-MAST + patch-drop": 64.4,
            }
        },
    ),
}
"""Others' scores by ``task.split``; the published ones are means over SUPERB's five folds."""


@dataclass(frozen=True)
class Config:
    """Which folds."""

    split: Literal["published", "lape_legacy"] = "published"
    """``published``: five folds. ``lape_legacy``: sessions 1-4 train, 5 tests and chooses."""
    folds: tuple[int | str, ...] = ()
    """Sessions to test on; empty for all that are there. ``lape_legacy`` has session 5 alone."""


def build(config: Config, root: Path) -> Task:
    """Read the corpus below ``root`` and set up the folds."""
    source = sources.read(CORPUS, root)
    clips = [clip for clip in source.clips if clip.label in CLASS_OF]
    classes = tuple(sorted({CLASS_OF[str(clip.label)] for clip in clips}))
    examples = [example_of(clip, classes.index(CLASS_OF[str(clip.label)])) for clip in clips]
    sessions = [int(clip.fold or 0) for clip in clips]
    if config.split == LEGACY:
        there = [legacy_fold(examples, sessions, LEGACY_TEST_SESSION)]
        rule = (
            f"{LEGACY}: sessions 1-4 train, session 5 tests and chooses the epoch (not five "
            f"folds; our stand-in for an unpublished list)"
        )
    else:
        there = cross_folds("iemocap", examples, sessions)
        rule = (
            "leave one session out; the next session validates (SUPERB: a random fifth of the "
            "training sessions)"
        )
    folds = choose_folds(there, config.folds)
    return Task(
        name="iemocap",
        classes=classes,
        seconds=CLIP_SECONDS,
        split_rule=f"{rule}; excited counts as happy",
        notes=(
            *source.notes(),
            *_absent_notes(classes, sessions),
            *class_notes(classes, folds),
        ),
        folds=folds,
        missing=source.missing,
        published=PUBLISHED[config.split],
        legacy=config.split == LEGACY,
    )


def _absent_notes(classes: Sequence[str], sessions: Sequence[int]) -> list[str]:
    expected = len(set(CLASS_OF.values()))
    notes = [f"{len(classes)} of {expected} classes"] if len(classes) < expected else []
    if len(set(sessions)) < SESSIONS:
        notes.append(f"{len(set(sessions))} of {SESSIONS} sessions")
    return notes
