"""UrbanSound8K: which of ten city sounds is heard.

In:  the corpus in its published layout: ``audio/fold1`` to ``fold10`` and its table.
Out: a fold for every published fold: it tests, the next one validates, the others train. Or the
     one fold of LAPE.

Source: Salamon, Jacoby and Bello 2014 (A dataset and taxonomy for urban sound research): the ten
published folds and no others, since random ones part the cuts of one recording. No validation
is published.
"""

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
    recording_notes,
)

CORPUS = "urbansound8k"
"""Where the clips come from."""
CLASSES = 10
"""Of the published corpus."""
PUBLISHED_FOLDS = 10
"""Folds of the published corpus."""
LEGACY_TEST_FOLD = 10
"""The one fold that LAPE tests on."""
CLIP_SECONDS = 4.0
"""Length of most published clips; none is longer."""

PUBLISHED = {
    "published": (
        *Published.tables(
            "linear",
            {
                "EVAR README (Feb 2026), linear evaluation": {
                    "M2D-CLAP (2024)": 88.8,
                    "M2D/0.7": 87.6,
                    "M2D/0.6": 87.2,
                    "ATST-Frame": 85.8,
                    "MSM-MAE/0.75": 87.4,
                    "ATST-Clip": 85.8,
                    "Dasheng 1.2B": 83.5,
                    "BEATs iter3+": 87.6,
                    "BYOL-A": 79.7,
                    "BEATs iter3": 84.8,
                    "EAT base": 81.7,
                    "SSLAM base": 81.4,
                    "AST (supervised)": 85.4,
                    "PANNs CNN14": 81.9,
                    "Whisper large-v3": 78.4,
                }
            },
        ),
        *Published.tables("knn", {"README of Dasheng": {"Dasheng base": 73.9, "AudioMAE": 58.2}}),
    ),
    LEGACY: Published.tables(
        "full",
        {
            "Ghosh et al. 2022 (SS-MAST, arXiv:2211.01515), Table 1": {
                "AST, random": 50.1,
                "AST, ImageNet": 62.3,
                "AST, ImageNet + SSAST": 78.0,
                "AST, SS-MAST": 68.3,
                "AST, ImageNet + SS-MAST": 79.3,
                "MAST, random": 54.4,
                "MAST, ImageNet": 64.4,
                "MAST, SS-MAST": 74.2,
                "MAST, ImageNet + SS-MAST": 84.0,
                "MAST, ImageNet + SS-MAST + patch-drop": 84.8,
            }
        },
    ),
}
"""Others' scores by ``task.split``; EVAR and Dasheng take the mean over the ten folds."""


@dataclass(frozen=True)
class Config:
    """Which folds."""

    split: Literal["published", "lape_legacy"] = "published"
    """``published``: ten folds. ``lape_legacy``: folds 1-9 train, fold 10 tests and chooses."""
    folds: tuple[int | str, ...] = ()
    """Folds to test on; empty for all that are there. ``lape_legacy`` has fold 10 alone."""


def build(config: Config, root: Path) -> Task:
    """Read the corpus below ``root`` and set up the folds."""
    source = sources.read(CORPUS, root)
    classes = tuple(sorted({str(clip.label) for clip in source.clips}))
    examples = [example_of(clip, classes.index(str(clip.label))) for clip in source.clips]
    numbers = [int(clip.fold or 0) for clip in source.clips]
    if config.split == LEGACY:
        there = [legacy_fold(examples, numbers, LEGACY_TEST_FOLD)]
        rule = f"{LEGACY}: folds 1-9 train, fold 10 tests and chooses the epoch (not ten folds)"
    else:
        there = cross_folds("urbansound8k", examples, numbers)
        rule = "published folds; the next fold validates"
    folds = choose_folds(there, config.folds)
    notes = [f"{len(classes)} of {CLASSES} classes"] if len(classes) < CLASSES else []
    if len(set(numbers)) < PUBLISHED_FOLDS:
        notes.append(f"{len(set(numbers))} of {PUBLISHED_FOLDS} folds")
    return Task(
        name="urbansound8k",
        classes=classes,
        seconds=CLIP_SECONDS,
        split_rule=rule,
        notes=(
            *source.notes(),
            *notes,
            *class_notes(classes, folds),
            *recording_notes("urbansound8k", folds),
        ),
        folds=folds,
        missing=source.missing,
        published=PUBLISHED[config.split],
        legacy=config.split == LEGACY,
    )
