"""Free Spoken Digit Dataset: which digit is said, or who says it.

In:  the corpus in its published layout: ``recordings/<digit>_<speaker>_<take>``.
Out: one fold by the published takes, or a fold for every speaker left out.

Source: the corpus's README (Z. Jackson et al.): takes 0-4 test, the others train. No
validation is published: it is a tenth of the training speakers' takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from sslaudio.data.corpora.base import Clip
from sslaudio.tasks import sources
from sslaudio.tasks.base import (
    Fold,
    Task,
    choose_folds,
    class_notes,
    example_of,
    hold_out_tenth,
)

CORPUS = "fsdd"
"""Where the clips come from."""
SPEAKERS = 6
"""Speakers of the published corpus (version 1.0.10)."""
CLIP_SECONDS = 1.0
"""Nominal length of a clip: most are 0.2 to 0.6 s, the longest above 2 s."""


@dataclass(frozen=True)
class Config:
    """What to tell apart, and on whom."""

    target: Literal["digit", "speaker"] = "digit"
    """``digit``: ten classes. ``speaker``: one class a speaker."""
    split: Literal["published", "leave-one-speaker-out"] = "published"
    """``published``: takes 0-4 test. ``leave-one-speaker-out``: a fold a speaker."""
    folds: tuple[str, ...] = ()
    """Speakers to leave out, one fold each; empty for all. ``published`` has one fold."""

    def __post_init__(self) -> None:
        if self.target == "speaker" and self.split == "leave-one-speaker-out":
            raise ValueError(
                "task.target speaker cannot be learnt with task.split leave-one-speaker-out: the "
                "test speaker is never trained on; set task.split to published"
            )


def build(config: Config, root: Path) -> Task:
    """Read the corpus below ``root`` and set up the task."""
    source = sources.read(CORPUS, root)
    clips = sorted(source.clips, key=_place)
    names = [_class_name(clip, config.target) for clip in clips]
    classes = tuple(sorted(set(names)))
    speakers = sorted({str(clip.speaker) for clip in clips})
    if config.split == "published":
        tests = {"published": [clip.split == "test" for clip in clips]}
        rule = "takes 0-4 test"
    else:
        tests = {name: [clip.speaker == name for clip in clips] for name in speakers}
        rule = "leave one speaker out"
        if len(speakers) < 2:
            raise ValueError(
                f"task.split leave-one-speaker-out needs two speakers or more, but {root} holds "
                f"{', '.join(speakers)} alone; set task.split to published"
            )
    targets = [classes.index(name) for name in names]
    folds = choose_folds(
        [_fold(name, clips, targets, is_test) for name, is_test in tests.items()], config.folds
    )
    notes = [f"{len(speakers)} of {SPEAKERS} speakers"] if len(speakers) < SPEAKERS else []
    return Task(
        name="fsdd",
        classes=classes,
        seconds=CLIP_SECONDS,
        split_rule=f"{config.target}, {rule}; a tenth of the training takes validates",
        notes=(*notes, *class_notes(classes, folds)),
        folds=folds,
        missing=source.missing,
    )


def _fold(name: str, clips: Sequence[Clip], targets: Sequence[int], is_test: list[bool]) -> Fold:
    examples = [example_of(clip, target) for clip, target in zip(clips, targets, strict=True)]
    kept = [place for place, tests in enumerate(is_test) if not tests]
    train, validation = hold_out_tenth(
        [examples[place] for place in kept],
        [f"{clips[place].label} {clips[place].speaker}" for place in kept],
    )
    test = tuple(example for example, tests in zip(examples, is_test, strict=True) if tests)
    return Fold(name, train, validation, test)


def _place(clip: Clip) -> tuple[str, str, int]:
    """Digit, speaker, take: takes in the order they were recorded, 2 before 10."""
    return (
        str(clip.label),
        str(clip.speaker),
        int(PurePosixPath(clip.source).stem.rpartition("_")[2]),
    )


def _class_name(clip: Clip, target: str) -> str:
    return str(clip.label if target == "digit" else clip.speaker)
