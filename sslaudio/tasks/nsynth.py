"""NSynth: which of eleven families of instruments plays a note.

In:  the corpus in its published layout: ``nsynth-train``, ``nsynth-valid`` and ``nsynth-test``.
Out: one fold by the published parts, where no instrument that is tested on trains. Or that of
     LAPE.

Source: Engel et al. 2017 (arXiv:1704.01279).
"""

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sslaudio.tasks import sources
from sslaudio.tasks.base import (
    LEGACY,
    Fold,
    Published,
    Task,
    choose_folds,
    class_notes,
    split_fold,
)

CORPUS = "nsynth"
"""Where the clips come from."""
FAMILIES = 11
"""Of the published corpus; one of them, ``synth_lead``, is in its training part alone."""
CLIP_SECONDS = 4.0
"""Length of every published clip."""
RULES = {
    "published": "published parts",
    LEGACY: f"{LEGACY}: the published train and valid train (they may share instruments with "
    f"test), test chooses the epoch",
}

_TABLE_1 = (
    "Ghosh et al. 2022 (SS-MAST, arXiv:2211.01515), Table 1; epoch chosen on test, lists "
    "unpublished"
)
_SS_MAST = Published.tables(
    "full",
    {
        _TABLE_1: {
            "AST, random": 70.9,
            "AST, ImageNet": 71.1,
            "AST, ImageNet + SSAST": 74.3,
            "AST, SS-MAST": 72.1,
            "AST, ImageNet + SS-MAST": 76.4,
            "MAST, random": 73.4,
            "MAST, ImageNet": 75.4,
            "MAST, SS-MAST": 76.8,
            "MAST, ImageNet + SS-MAST": 80.6,
            "MAST, ImageNet + SS-MAST + patch-drop": 81.2,
        }
    },
)
PUBLISHED = {
    "published": (
        *Published.tables(
            "linear",
            {
                "EVAR README (Feb 2026), linear evaluation": {
                    "M2D-CLAP (2024)": 78.0,
                    "M2D/0.7": 75.7,
                    "M2D/0.6": 76.1,
                    "ATST-Frame": 75.9,
                    "MSM-MAE/0.75": 74.6,
                    "ATST-Clip": 76.2,
                    "Dasheng 1.2B": 76.9,
                    "BEATs iter3+": 73.1,
                    "BYOL-A": 73.1,
                    "BEATs iter3": 75.9,
                    "EAT base": 71.9,
                    "SSLAM base": 73.8,
                    "AST (supervised)": 72.9,
                    "PANNs CNN14": 65.9,
                    "Whisper large-v3": 70.9,
                }
            },
        ),
        *Published.tables(
            "knn",
            {
                "README of Dasheng; the variant is as there": {
                    "Dasheng base": 70.0,
                    "AudioMAE": 67.2,
                }
            },
        ),
    ),
    LEGACY: _SS_MAST,
}
"""Others' scores by ``task.split``; SS-MAST's hold for LAPE's own use of the parts alone."""


@dataclass(frozen=True)
class Config:
    """How the parts are used."""

    split: Literal["published", "lape_legacy"] = "published"
    """``published``: the three parts. ``lape_legacy``: two of them, test chooses."""
    folds: tuple[str, ...] = ()
    """There is one, ``published`` (``lape_legacy`` there)."""


def build(config: Config, root: Path) -> Task:
    """Read the corpus below ``root`` and set up the fold."""
    source = sources.read(CORPUS, root)
    classes = tuple(sorted({str(clip.label) for clip in source.clips}))
    folds = choose_folds([split_fold(config.split, source.clips, classes)], config.folds)
    return Task(
        name="nsynth",
        classes=classes,
        seconds=CLIP_SECONDS,
        split_rule=RULES[config.split],
        notes=(
            *source.notes(),
            *_absent_notes(classes),
            *class_notes(classes, folds),
            *(_instrument_notes(folds) if config.split == "published" else ()),
        ),
        folds=folds,
        missing=source.missing,
        published=PUBLISHED[config.split],
        legacy=config.split == LEGACY,
    )


def _absent_notes(classes: Collection[str]) -> list[str]:
    return [f"{len(classes)} of {FAMILIES} families"] if len(classes) < FAMILIES else []


def _instrument_notes(folds: Sequence[Fold]) -> list[str]:
    """Say, and warn of, instruments that train and are heard again; none of the published do.

    Between validation and test the publisher promises nothing.
    """
    trained = {example.recording for fold in folds for example in fold.train} - {None}
    others = {example.recording for fold in folds for example in (*fold.validation, *fold.test)}
    if not trained & others:
        return []
    note = f"{len(trained & others)} training instruments are in validation or test too"
    warnings.warn(f"task nsynth: {note}; a score rewards remembering them", stacklevel=3)
    return [note]
