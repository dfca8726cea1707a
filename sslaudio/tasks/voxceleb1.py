"""VoxCeleb1 speaker identification: which of 1,251 people speaks.

In:  the corpus in its published layout: ``iden_split.txt`` and the speakers' folders.
Out: one fold by the published list, whose parts share their speakers. Or that of LAPE.

Source: Nagrani et al. 2017 (arXiv:1706.08612); SUPERB's SID task is the same.
"""

from collections.abc import Collection
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
    split_fold,
)

CORPUS = "voxceleb1"
"""Where the clips come from."""
SPEAKERS = 1251
"""Of the published corpus."""
CLIP_SECONDS = 8.2
"""Mean length of a published clip, as in EVAR (evar/ds_tasks.py); the longest last two minutes."""
RULES = {
    "published": "published identification list",
    LEGACY: f"{LEGACY}: train and validation of the published list train, test chooses the epoch",
}

_TABLE_1 = (
    "Ghosh et al. 2022 (SS-MAST, arXiv:2211.01515), Table 1; epoch chosen on test, lists "
    "unpublished"
)
_SS_MAST = Published.tables(
    "full",
    {
        _TABLE_1: {
            "AST, random": 30.1,
            "AST, ImageNet": 51.2,
            "AST, ImageNet + SSAST": 53.3,
            "AST, SS-MAST": 44.9,
            "AST, ImageNet + SS-MAST": 53.4,
            "MAST, random": 33.2,
            "MAST, ImageNet": 54.4,
            "MAST, SS-MAST": 54.9,
            "MAST, ImageNet + SS-MAST": 56.7,
            "MAST, ImageNet + SS-MAST + patch-drop": 57.3,
        }
    },
)
PUBLISHED = {
    "published": (
        *Published.tables(
            "full",
            {
                "Gong et al. 2022 (SSAST, arXiv:2110.09784), poster, SID": {
                    "AST, random (patch)": 30.1,
                    "AST, random (frame)": 54.9,
                    "AST, ImageNet + KD": 41.1,
                    "AST, AudioSet": 35.2,
                    "SSAST patch-250": 66.6,
                    "SSAST patch-400": 64.3,
                    "SSAST frame-250": 73.6,
                    "SSAST frame-400": 80.8,
                },
                "tables in the README of M2D": {
                    "MSM-MAE/0.75": 96.6,
                    "M2D/0.7": 96.3,
                    "M2D-AS": 95.6,
                    "M2D-CLAP (2024)": 95.5,
                    "ATST-Clip": 95.5,
                    "ATST-Frame": 97.3,
                    "ATST-C2F": 97.5,
                },
                "Li and Li 2022 (ATST, arXiv:2204.12076)": {"ATST base": 94.3},
            },
        ),
        *Published.tables(
            "linear",
            {
                "EVAR README (Feb 2026), linear evaluation": {
                    "M2D-CLAP (2024)": 70.3,
                    "M2D/0.7": 73.4,
                    "M2D/0.6": 75.0,
                    "ATST-Frame": 77.4,
                    "MSM-MAE/0.75": 73.6,
                    "ATST-Clip": 72.0,
                    "Dasheng 1.2B": 77.8,
                    "BEATs iter3+": 37.0,
                    "BYOL-A": 57.6,
                    "BEATs iter3": 41.4,
                    "EAT base": 39.6,
                    "SSLAM base": 33.9,
                    "AST (supervised)": 16.5,
                    "PANNs CNN14": 7.8,
                    "Whisper large-v3": 44.9,
                }
            },
        ),
        *Published.tables(
            "knn",
            {
                "README of Dasheng; the variant is as there": {
                    "Dasheng base": 34.2,
                    "AudioMAE": 2.9,
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
    """``published``: the list's three parts. ``lape_legacy``: two of them, test chooses."""
    folds: tuple[str, ...] = ()
    """There is one, ``published`` (``lape_legacy`` there)."""


def build(config: Config, root: Path) -> Task:
    """Read the corpus below ``root`` and set up the fold."""
    source = sources.read(CORPUS, root)
    classes = tuple(sorted({str(clip.label) for clip in source.clips}))
    folds = choose_folds([split_fold(config.split, source.clips, classes)], config.folds)
    return Task(
        name="voxceleb1",
        classes=classes,
        seconds=CLIP_SECONDS,
        split_rule=RULES[config.split],
        notes=(*source.notes(), *_absent_notes(classes), *class_notes(classes, folds)),
        folds=folds,
        missing=source.missing,
        published=PUBLISHED[config.split],
        legacy=config.split == LEGACY,
    )


def _absent_notes(classes: Collection[str]) -> list[str]:
    return [f"{len(classes)} of {SPEAKERS:,} speakers"] if len(classes) < SPEAKERS else []
