"""Speech Commands: which word is said; 35, 12 or 10 classes.

In:  the corpus in its published layout: a folder a word, two list files, background noise.
Out: one fold, by the list files; the 12 classes after TensorFlow or SUPERB, tested on the
     published archive where it is there (:mod:`sslaudio.tasks.twelve_words`).

Source: Warden 2018 (arXiv:1804.03209), section 5.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sslaudio.data.corpora import speech_commands
from sslaudio.data.layout import INDEX_NAME, read_index
from sslaudio.tasks import sources, twelve_words
from sslaudio.tasks.base import (
    LEGACY,
    PARTS,
    Fold,
    Published,
    Task,
    choose_folds,
    class_notes,
)
from sslaudio.tasks.twelve_words import CLIP_SECONDS, TEN

ONLY_V2 = ("backward", "follow", "forward", "learn", "visual")
"""The words that version 2 of the corpus added to version 1's thirty."""
CORPUS = "speech_commands"
"""Where the clips come from."""

_SS_MAST = (
    "Ghosh et al. 2022 (SS-MAST, arXiv:2211.01515), Table 1; epoch chosen on test, lists "
    "unpublished"
)
_TABLE_1 = {
    "v1-12": Published.tables(
        "full",
        {
            _SS_MAST: {
                "AST, random": 87.3,
                "AST, ImageNet": 90.0,
                "AST, ImageNet + SSAST": 95.5,
                "AST, SS-MAST": 92.0,
                "AST, ImageNet + SS-MAST": 96.0,
                "MAST, random": 91.0,
                "MAST, ImageNet": 92.0,
                "MAST, SS-MAST": 93.2,
                "MAST, ImageNet + SS-MAST": 97.0,
                "MAST, ImageNet + SS-MAST + patch-drop": 97.4,
            }
        },
    ),
    "v2-12": Published.tables(
        "full",
        {
            _SS_MAST: {
                "AST, random": 88.2,
                "AST, ImageNet": 91.1,
                "AST, ImageNet + SSAST": 94.2,
                "AST, SS-MAST": 91.8,
                "AST, ImageNet + SS-MAST": 94.4,
                "MAST, random": 92.2,
                "MAST, ImageNet": 93.1,
                "MAST, SS-MAST": 94.5,
                "MAST, ImageNet + SS-MAST": 96.8,
                "MAST, ImageNet + SS-MAST + patch-drop": 96.8,
            }
        },
    ),
    "v2-35": Published.tables(
        "full",
        {
            _SS_MAST: {
                "AST, random": 92.7,
                "AST, ImageNet": 93.1,
                "AST, ImageNet + SSAST": 94.4,
                "AST, SS-MAST": 94.0,
                "AST, ImageNet + SS-MAST": 95.4,
                "MAST, random": 93.4,
                "MAST, ImageNet": 94.2,
                "MAST, SS-MAST": 95.0,
                "MAST, ImageNet + SS-MAST": 96.4,
                "MAST, ImageNet + SS-MAST + patch-drop": 96.6,
            }
        },
    ),
}
_V1_12_SUPERB = Published.tables(
    "full",
    {
        "Gong et al. 2022 (SSAST, arXiv:2110.09784), poster": {
            "AST, random (patch)": 87.2,
            "AST, random (frame)": 91.7,
            "AST, ImageNet": 95.5,
            "AST, AudioSet (supervised)": 91.6,
            "SSAST patch-250": 96.2,
            "SSAST patch-400": 96.0,
            "SSAST frame-250": 96.6,
            "SSAST frame-400": 96.7,
        },
        "peers' README tables": {"MAE-AST": 95.8, "AudioMAE-B": 96.9},
        "tables in the README of BEATs": {
            "BEATs iter1": 98.0,
            "BEATs iter2": 97.7,
            "BEATs iter3": 97.7,
            "BEATs iter3+": 98.1,
        },
        "tables in the README of SSLAM": {"ASiT": 98.2, "A-JEPA": 97.7, "SSLAM": 98.8},
    },
)
_V2_35 = (
    *Published.tables(
        "full",
        {
            "Gong et al. 2021 (AST, arXiv:2104.01778)": {"AST, ImageNet": 98.1},
            "Gong et al. 2022 (SSAST, arXiv:2110.09784), poster": {
                "AST, random (patch)": 92.6,
                "AST, random (frame)": 96.0,
                "AST, AudioSet (supervised)": 96.2,
                "SSAST patch-250": 98.1,
                "SSAST patch-400": 98.0,
                "SSAST frame-250": 98.0,
                "SSAST frame-400": 98.1,
            },
            "peers' README tables": {
                "HTS-AT": 98.0,
                "MaskSpec": 97.7,
                "MAE-AST": 97.9,
                "AudioMAE-B": 98.3,
            },
            "tables in the README of BEATs; one number for iterations 1 to 3": {
                "BEATs iter1-3": 98.3
            },
            "tables in the README of BEATs": {"BEATs iter3+": 98.1},
            "tables in the README of M2D": {
                "MSM-MAE/0.75": 98.4,
                "M2D/0.7": 98.4,
                "M2D-AS": 98.4,
                "M2D-CLAP (2024)": 98.3,
                "ATST-Clip": 98.0,
                "ATST-Frame": 98.1,
                "ATST-C2F": 98.4,
            },
            "tables in the README of SSLAM": {"ASiT": 98.9, "A-JEPA": 98.5, "SSLAM": 98.1},
            "tables in the README of EAT": {"EAT-base": 98.3},
        },
    ),
    *Published.tables(
        "linear",
        {
            "EVAR README (Feb 2026), linear evaluation": {
                "M2D-CLAP (2024)": 95.8,
                "M2D/0.7": 96.0,
                "M2D/0.6": 96.2,
                "ATST-Frame": 94.9,
                "MSM-MAE/0.75": 96.0,
                "ATST-Clip": 95.1,
                "Dasheng 1.2B": 97.6,
                "BEATs iter3+": 86.7,
                "BYOL-A": 93.1,
                "BEATs iter3": 89.4,
                "AST (supervised)": 72.6,
                "PANNs CNN14": 51.8,
                "Whisper large-v3": 98.2,
            },
            "EVAR README (Feb 2026), linear evaluation; its wrapper pads the clips to 1024 frames "
            "and averages over the padding, some 90 %": {"EAT base": 81.5, "SSLAM base": 82.5},
        },
    ),
)
"""Others' scores. SS-MAST chose the epoch on test, on lists that are unpublished: its rows stand by
``lape_legacy`` alone, of every make-up. The others' hold for the official lists alone, of twelve
classes for SUPERB's make-up and test archive."""


@dataclass(frozen=True)
class Config:
    """Which of the corpus's tasks."""

    version: Literal["v2-35", "v2-12", "v1-12", "v2-10"] = "v2-35"
    """v2-35: all words. v2-12, v1-12: ten commands, unknown, silence. v2-10: ten commands."""
    training: Literal["tensorflow", "superb"] = "tensorflow"
    """Of 12 classes. ``tensorflow``: 10 % unknown, 10 % silence. ``superb``: every other word is
    unknown, the noise files are silence, validation has none."""
    split: Literal["published", "lape_legacy"] = "published"
    """``published``: by the lists. ``lape_legacy``: validation trains, test chooses the epoch."""
    folds: tuple[str, ...] = ()
    """There is one, ``published`` (``lape_legacy`` there)."""

    def __post_init__(self) -> None:
        if self.training == "superb" and not self.version.endswith("-12"):
            raise ValueError(
                f"task.training superb says what unknown and silence are, but task.version "
                f"{self.version} has neither; set task.version to v1-12 or v2-12"
            )


def prefers(config: Config, folder: Path) -> bool:
    """Whether a copy of the corpus, as published or in shards, is of ``config.version``."""
    if (folder / INDEX_NAME).is_file():
        is_newer = not read_index(folder).totals.labels.keys().isdisjoint(ONLY_V2)
    else:
        is_newer = any((folder / word).is_dir() for word in ONLY_V2)
    return is_newer == config.version.startswith("v2")


def build(config: Config, root: Path) -> Task:
    """Read the corpus below ``root`` and set up ``config.version`` of the task."""
    source = sources.read(CORPUS, root)
    clips = list(source.clips)
    notes = _corpus_notes(config.version, {clip.label for clip in clips if clip.label})
    if config.version == "v1-12":
        clips = [clip for clip in clips if clip.label not in ONLY_V2]
    archived = twelve_words.Archived.of(clips, config.version[1])
    if config.version.endswith("-12"):
        parts = twelve_words.parts(clips, archived, config.training)
        if not archived.is_whole:
            notes.append(
                "the test's unknown and silence are drawn at 10 %, not the published archive's"
            )
    else:
        labels = () if config.version == "v2-35" else TEN
        parts = {part: twelve_words.words(clips, part, labels) for part in PARTS}
    classes = tuple(sorted({piece.label for pieces in parts.values() for piece in pieces}))
    train, validation, test = (
        tuple(piece.example(classes) for piece in parts[part]) for part in PARTS
    )
    if config.split == LEGACY:
        train, validation = (*train, *validation), test
    fold = Fold(config.split, train, validation, test)
    return Task(
        name="speechcommands",
        classes=classes,
        seconds=CLIP_SECONDS,
        split_rule=_rule(config, root),
        notes=(*notes, *_absent_notes(config.version, classes), *class_notes(classes, [fold])),
        folds=choose_folds([fold], config.folds),
        missing=source.missing,
        published=_published(config, archived.is_whole),
        legacy=config.split == LEGACY,
    )


def _published(config: Config, has_archive: bool) -> tuple[Published, ...]:
    if config.split == LEGACY:
        return _TABLE_1.get(config.version, ())
    if config.version == "v2-35":
        return _V2_35
    if (config.version, config.training) == ("v1-12", "superb") and has_archive:
        return _V1_12_SUPERB
    return ()


def _rule(config: Config, root: Path) -> str:
    make_up = f", {config.training}'s training" if config.version.endswith("-12") else ""
    rule = f"{config.version}{make_up}, {_split_source(root)}"
    if config.split == "published":
        return rule
    return f"{LEGACY}: {rule}; train and validation lists train, test chooses the epoch"


def _split_source(root: Path) -> str:
    if (root / INDEX_NAME).is_file():
        return "by the splits of the shards"
    present = [name for name in speech_commands.LISTS.values() if (root / name).is_file()]
    return f"by {' and '.join(present)}" if present else "by the published hash of the speaker"


def _corpus_notes(version: str, labels: set[str]) -> list[str]:
    """Say, and warn, where the folder holds the other version of the corpus."""
    newer = sorted(labels & set(ONLY_V2))
    note = ""
    if version == "v1-12" and newer:
        note = (
            f"v1-12 asked for, but the folder holds version 2's words {', '.join(newer)}: they are "
            f"left out"
        )
    if version in ("v2-12", "v2-35") and not newer:
        note = f"{version} asked for, but none of version 2's own words is there: is it version 1?"
    if note:
        warnings.warn(note, stacklevel=3)
    return [note] if note else []


def _absent_notes(version: str, classes: Sequence[str]) -> list[str]:
    expected = {"v2-35": 35, "v2-12": 12, "v1-12": 12, "v2-10": 10}[version]
    if len(classes) == expected:
        return []
    return [f"{len(classes)} of {expected} {'classes' if expected == 12 else 'words'}"]
