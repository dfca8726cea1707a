"""AudioSet: which of 527 sound classes are heard, any number of them a clip.

In:  the corpus in its published layout, or shards of it.
Out: one fold: balanced (and unbalanced) training clips, eval tests.

Source: Gemmeke et al. 2017 (doi:10.1109/ICASSP.2017.7952261). Most choose on eval; here a tenth
of the balanced clips validates and never trains, in both versions the same.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sslaudio.data.corpora import audioset as corpus
from sslaudio.data.corpora.base import Clip
from sslaudio.tasks import sources
from sslaudio.tasks.base import (
    Example,
    Fold,
    Published,
    Task,
    choose_folds,
    class_notes,
    multi_label,
    recording_notes,
)

CORPUS = "audioset"
"""Where the clips come from."""
CLASSES = 527
"""Of the published corpus."""
CLIP_SECONDS = 10.0
"""Length of most published clips."""
VALIDATION_KEY = "sslaudio audioset validation"
"""What the hash that chooses the validation clips is keyed with."""

PUBLISHED = {
    "20k": Published.tables(
        "full",
        {
            "Gong et al. 2021 (AST, arXiv:2104.01778)": {"AST, ImageNet": 34.7},
            "Gong et al. 2022 (SSAST, arXiv:2110.09784), poster": {
                "AST, random (patch)": 14.8,
                "AST, random (frame)": 16.6,
                "AST, AudioSet (supervised)": 28.6,
                "SSAST patch-250": 30.4,
                "SSAST patch-400": 31.0,
                "SSAST frame-250": 27.1,
                "SSAST frame-400": 29.2,
            },
            "peers' README tables": {
                "MaskSpec": 32.3,
                "MAE-AST": 30.6,
                "AudioMAE-B": 37.1,
                "AudioMAE-L": 37.6,
            },
            "tables in the README of BEATs": {
                "BEATs iter1": 36.0,
                "BEATs iter2": 38.3,
                "BEATs iter3": 38.3,
                "BEATs iter3+": 38.9,
            },
            "tables in the README of M2D": {
                "MSM-MAE/0.75": 37.9,
                "M2D/0.7": 38.6,
                "M2D-AS": 41.8,
                "M2D-CLAP (2024)": 41.8,
                "CED-base": 44.0,
                "ATST-Clip": 37.9,
                "ATST-Frame": 39.0,
                "ATST-C2F": 40.5,
            },
            "tables in the README of SSLAM": {"ASiT": 38.6, "A-JEPA": 38.4, "SSLAM": 40.9},
            "tables in the README of EAT": {
                "EAT-base, 10 epochs": 40.3,
                "EAT-base, 30 epochs": 41.3,
                "EAT-large, 20 epochs": 42.0,
            },
        },
    ),
    "2m": Published.tables(
        "full",
        {
            "Gong et al. 2021 (AST, arXiv:2104.01778)": {"AST, ImageNet": 45.9},
            "tables in the README of PaSST": {"PaSST": 47.1},
            "peers' README tables": {
                "HTS-AT": 47.1,
                "MaskSpec": 47.1,
                "AudioMAE-B": 47.3,
                "AudioMAE-L": 47.4,
            },
            "tables in the README of EfficientAT": {
                "EfficientAT mn40_as_ext": 48.7,
                "EfficientAT dymn20": 49.1,
            },
            "tables in the README of BEATs": {
                "BEATs iter1": 47.9,
                "BEATs iter2": 48.1,
                "BEATs iter3": 48.0,
                "BEATs iter3+": 48.6,
            },
            "tables in the README of M2D": {
                "MSM-MAE/0.75": 47.4,
                "M2D/0.7": 47.9,
                "M2D-AS": 48.5,
                "M2D-CLAP (2024)": 48.5,
                "CED-base": 50.0,
                "ATST-Clip": 45.2,
                "ATST-Frame": 48.0,
                "ATST-C2F": 49.7,
            },
            "tables in the README of SSLAM": {"ASiT": 48.0, "A-JEPA": 48.6, "SSLAM": 50.2},
            "tables in the README of EAT": {
                "EAT-base, 10 epochs": 48.6,
                "EAT-base, 30 epochs": 48.9,
                "EAT-large, 20 epochs": 49.5,
            },
            "tables in the README of Dasheng": {"Dasheng base": 49.7},
        },
    ),
}
"""Others' scores by ``task.version``; each on the eval clips that its authors still found."""


@dataclass(frozen=True)
class Config:
    """What trains."""

    version: Literal["20k", "2m"] = "20k"
    """``20k`` trains on the balanced part, ``2m`` on the unbalanced one as well."""
    folds: tuple[str, ...] = ()
    """There is one, ``published``."""


def build(config: Config, root: Path) -> Task:
    """Read the parts of the corpus that ``config.version`` needs and set up the fold."""
    options = corpus.Config("20k" if config.version == "20k" else "all")
    source = sources.read(CORPUS, root, options)
    parts_of = {"20k": {"balanced_train", "eval"}, "2m": set(corpus.PARTS)}[config.version]
    clips = [clip for clip in source.clips if parts_of & set(clip.subsets)]
    _check_parts(config.version, parts_of, clips, root)
    classes, examples = multi_label(clips)
    parts: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    for clip, example in zip(clips, examples, strict=True):
        parts[_part(clip)].append(example)
    fold = Fold("published", *(tuple(parts[part]) for part in parts))
    folds = choose_folds([fold], config.folds)
    notes = [f"{len(classes)} of {CLASSES} classes"] if len(classes) < CLASSES else []
    return Task(
        name="audioset",
        classes=classes,
        seconds=CLIP_SECONDS,
        split_rule=f"{config.version}, eval tests; a tenth of the balanced clips validates",
        kind="multi",
        notes=(
            *source.notes(),
            *notes,
            *class_notes(classes, folds, ("train", "test")),
            *recording_notes("audioset", folds),
        ),
        folds=folds,
        missing=source.missing,
        published=PUBLISHED[config.version],
    )


def validates(recording: str) -> bool:
    """Whether a balanced clip validates: for one in ten, by a keyed hash of its YouTube id.

    What is missing of the corpus moves no other clip.
    """
    digest = hashlib.sha256(f"{VALIDATION_KEY} {recording}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 10 == 0


def _part(clip: Clip) -> str:
    if clip.split == "test":
        return "test"
    is_held = "balanced_train" in clip.subsets and validates(str(clip.recording))
    return "validation" if is_held else "train"


def _check_parts(version: str, needed: set[str], clips: list[Clip], root: Path) -> None:
    absent = sorted(needed - {part for clip in clips for part in clip.subsets})
    if absent:
        raise ValueError(
            f"task.version {version} needs AudioSet's {' and '.join(sorted(needed))}, but {root} "
            f"holds no clip of {' or '.join(absent)}; set --root to a fuller copy of the corpus"
            + ("" if version == "20k" else ", or task.version to 20k")
        )
