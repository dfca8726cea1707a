"""FSD50K: which of 200 sound classes are heard, any number of them a clip.

In:  the corpus in its published layout: ground truth and the sound of dev and eval.
Out: one fold, by the published train, validation and eval clips.

Source: Fonseca et al. 2022 (arXiv:2010.00475), section IV: mean average precision over classes.
"""

from dataclasses import dataclass
from pathlib import Path

from sslaudio.tasks import sources
from sslaudio.tasks.base import (
    PARTS,
    Fold,
    Task,
    choose_folds,
    class_notes,
    multi_label,
    recording_notes,
)

CORPUS = "fsd50k"
"""Where the clips come from."""
CLASSES = 200
"""Of the published corpus."""
CLIP_SECONDS = 10.0
"""Nominal; clips last 0.3 to 30 s, 7.6 s on average."""


@dataclass(frozen=True)
class Config:
    """Nothing to choose but the one fold."""

    folds: tuple[str, ...] = ()
    """There is one, ``published``."""


def build(config: Config, root: Path) -> Task:
    """Read the corpus below ``root`` and set up its parts."""
    source = sources.read(CORPUS, root)
    classes, examples = multi_label(source.clips)
    splits = [clip.split for clip in source.clips]
    parts = {
        part: tuple(one for one, split in zip(examples, splits, strict=True) if split == part)
        for part in PARTS
    }
    folds = choose_folds([Fold("published", **parts)], config.folds)
    notes = [f"{len(classes)} of {CLASSES} classes"] if len(classes) < CLASSES else []
    return Task(
        name="fsd50k",
        classes=classes,
        seconds=CLIP_SECONDS,
        split_rule="published train, validation and eval clips",
        kind="multi",
        notes=(
            *source.notes(),
            *notes,
            *class_notes(classes, folds, ("train", "test")),
            *recording_notes("fsd50k", folds),
        ),
        folds=folds,
        missing=source.missing,
    )
