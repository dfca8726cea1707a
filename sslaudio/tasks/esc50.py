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
    Published,
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

PUBLISHED = (
    *Published.tables(
        "full",
        {
            "Gong et al. 2021 (AST, arXiv:2104.01778)": {
                "AST, ImageNet": 88.7,
                "AST, ImageNet + AudioSet": 95.6,
            },
            "Gong et al. 2022 (SSAST, arXiv:2110.09784), poster": {
                "AST, random (patch)": 41.9,
                "AST, random (frame)": 53.7,
                "AST, AudioSet (supervised)": 86.8,
                "SSAST patch-250": 86.7,
                "SSAST patch-400": 88.8,
                "SSAST frame-250": 84.0,
                "SSAST frame-400": 85.9,
            },
            "tables in the README of PaSST": {"PaSST": 96.8},
            "peers' README tables": {
                "HTS-AT": 97.0,
                "MaskSpec": 89.6,
                "MAE-AST": 90.0,
                "AudioMAE-B": 94.1,
            },
            "tables in the README of BEATs": {
                "BEATs iter1": 94.0,
                "BEATs iter2": 95.1,
                "BEATs iter3": 95.6,
                "BEATs iter3+": 98.1,
            },
            "tables in the README of M2D": {
                "MSM-MAE/0.75": 95.4,
                "M2D/0.7": 96.0,
                "M2D-AS": 97.2,
                "M2D-CLAP (2024)": 97.4,
                "CED-base": 96.65,
            },
            "tables in the README of SSLAM": {"ASiT": 95.3, "A-JEPA": 96.3, "SSLAM": 96.2},
            "tables in the README of EAT": {"EAT-base": 96.0},
        },
    ),
    *Published.tables(
        "linear",
        {
            "EVAR README (Feb 2026), linear evaluation": {
                "M2D-CLAP (2024)": 96.3,
                "M2D/0.7": 91.3,
                "M2D/0.6": 91.6,
                "ATST-Frame": 90.9,
                "MSM-MAE/0.75": 89.2,
                "ATST-Clip": 94.1,
                "Dasheng 1.2B": 88.8,
                "BEATs iter3+": 95.5,
                "BYOL-A": 83.2,
                "BEATs iter3": 86.9,
                "EAT base": 85.6,
                "SSLAM base": 85.7,
                "AST (supervised)": 94.6,
                "PANNs CNN14": 90.7,
                "Whisper large-v3": 82.0,
            }
        },
    ),
    *Published.tables("knn", {"README of Dasheng": {"Dasheng base": 61.9, "AudioMAE": 53.1}}),
)
"""Others' scores on all 50 classes; their mean over the five folds."""


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
        published=PUBLISHED if config.subset == "esc50" else (),
    )


def _absent_notes(subset: str, classes: Collection[str], numbers: Collection[int]) -> list[str]:
    expected = {"esc50": 50, "esc10": 10}[subset]
    notes = []
    if len(classes) < expected:
        notes.append(f"{len(classes)} of {expected} classes")
    if len(numbers) < PUBLISHED_FOLDS:
        notes.append(f"{len(numbers)} of {PUBLISHED_FOLDS} folds")
    return notes
