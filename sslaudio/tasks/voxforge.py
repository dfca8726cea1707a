"""VoxForge: which of six languages is spoken.

In:  the corpus as its repository has it: a folder a language, with users' submissions.
Out: one fold by our rule, where nobody is heard in two parts. Or LAPE's random one.

No split is published. Random ones, LAPE's by clip or EVAR's by submission, let a voice that was
trained on tell its language.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sslaudio.data.corpora.base import Clip
from sslaudio.tasks import sources
from sslaudio.tasks.base import (
    LEGACY,
    PARTS,
    Example,
    Fold,
    Published,
    Task,
    choose_folds,
    class_notes,
    example_of,
)

CORPUS = "voxforge"
"""Where the clips come from."""
LANGUAGES = 6
"""Of the task: English, French, German, Italian, Russian, Spanish."""
CLIP_SECONDS = 5.8
"""As in EVAR (evar/ds_tasks.py) and BYOL-A."""
LEGACY_TEST_SHARE = 0.2
"""Share of every language's clips that LAPE tests on."""
LEGACY_SEED = 1
"""LAPE's ``random_state``."""
RULES = {
    "published": "by a hash of the user name, 80/10/10 (ours: none is published); anonymous trains",
    LEGACY: f"{LEGACY}: random 80/20 of the clips by language, seed 1, whose parts share speakers; "
    f"test chooses the epoch",
}

PUBLISHED: dict[str, tuple[Published, ...]] = {
    # EVAR's linear scores (95 % and more) are on a split by submission: no speaker is kept apart.
    "published": (),
    LEGACY: Published.tables(
        "full",
        {
            "Ghosh et al. 2022 (SS-MAST, arXiv:2211.01515), Table 1": {
                "AST, random": 72.3,
                "AST, ImageNet": 79.8,
                "AST, ImageNet + SSAST": 84.4,
                "AST, SS-MAST": 81.8,
                "AST, ImageNet + SS-MAST": 88.8,
                "MAST, random": 74.3,
                "MAST, ImageNet": 87.3,
                "MAST, SS-MAST": 88.3,
                "MAST, ImageNet + SS-MAST": 89.2,
                "MAST, ImageNet + SS-MAST + patch-drop": 90.0,
            }
        },
    ),
}
"""Others' scores by ``task.split``."""


@dataclass(frozen=True)
class Config:
    """Which parts."""

    split: Literal["published", "lape_legacy"] = "published"
    """``published``: speakers apart, by our rule. ``lape_legacy``: random by clip, test chooses."""
    folds: tuple[str, ...] = ()
    """There is one, ``speakers`` (``lape_legacy`` there)."""


def build(config: Config, root: Path) -> Task:
    """Read the corpus below ``root`` and set up the fold."""
    source = sources.read(CORPUS, root)
    clips = sorted(source.clips, key=lambda clip: clip.source)
    classes = tuple(sorted({str(clip.label) for clip in clips}))
    examples = [example_of(clip, classes.index(str(clip.label))) for clip in clips]
    there = _legacy_fold(examples, classes) if config.split == LEGACY else _fold(examples, clips)
    folds = choose_folds([there], config.folds)
    return Task(
        name="voxforge",
        classes=classes,
        seconds=CLIP_SECONDS,
        split_rule=RULES[config.split],
        notes=(*source.notes(), *_absent_notes(classes), *class_notes(classes, folds)),
        folds=folds,
        missing=source.missing,
        published=PUBLISHED[config.split],
        legacy=config.split == LEGACY,
    )


def _fold(examples: Sequence[Example], clips: Sequence[Clip]) -> Fold:
    places = list(zip(examples, clips, strict=True))
    return Fold(
        "speakers",
        *(tuple(example for example, clip in places if clip.split == part) for part in PARTS),
    )


def _legacy_fold(examples: Sequence[Example], classes: Sequence[str]) -> Fold:
    """Source: github.com/Sreyan88/LAPE, which splits with scikit-learn; so do we, by source."""
    from sklearn.model_selection import train_test_split

    targets = [example.one_class for example in examples]
    fewest, count = min(Counter(targets).items(), key=lambda held: held[1], default=(0, 0))
    if count * LEGACY_TEST_SHARE < 1:
        raise ValueError(
            f"task.split {LEGACY} tests on a fifth of every language's clips and needs five of "
            f"each, but there are {count} of {classes[fewest] if classes else 'any'}; give --root "
            f"a fuller copy of the corpus, or set task.split to published"
        )
    train, test = train_test_split(
        examples, test_size=LEGACY_TEST_SHARE, random_state=LEGACY_SEED, stratify=targets
    )
    return Fold(LEGACY, tuple(train), validation=tuple(test), test=tuple(test))


def _absent_notes(classes: Collection[str]) -> list[str]:
    return [f"{len(classes)} of {LANGUAGES} languages"] if len(classes) < LANGUAGES else []
