"""What a task is: labelled clips in folds of train, validation and test, and the rule behind.

In:  the clips of a corpus in its published layout, or labelled shards.
Out: a :class:`Task`; its ``folds`` hold :class:`Example` objects that decode themselves.

A plug-in of this room is a file with a frozen ``Config`` and ``build(config, root) -> Task``.
Classes are sorted, so that a target means the same in every run and process.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from sslaudio.data.corpora.base import Clip
from sslaudio.data.decode import decode

PARTS = ("train", "validation", "test")
"""The parts of a fold, in the order they are used."""


@dataclass(frozen=True)
class Example:
    """One labelled clip, or a piece of a file that serves as one."""

    key: str
    """Unique in its task: the path relative to the corpus's root, or the key in its shard."""
    target: int
    """Index of its class in :attr:`Task.classes`."""
    path: Path
    """The audio file, or the tar that holds it."""
    start_seconds: float = 0.0
    """Where in the file the clip begins."""
    seconds: float | None = None
    """Length of the clip; None reads to the end of the file."""
    byte_range: tuple[int, int] | None = None
    """Where in ``path`` the encoded sound lies, as :func:`sslaudio.data.decode.decode` takes it."""
    recording: str | None = None
    """Id that clips cut from one recording share; None where the corpus does not tell."""
    speaker: str | None = None
    """Who speaks; None where the corpus does not tell."""

    def waveform(self, sample_rate: int) -> np.ndarray:
        """Decode the clip to mono float32 ``[samples]`` in [-1, 1] at ``sample_rate`` Hz."""
        return decode(
            self.path,
            sample_rate,
            start_seconds=self.start_seconds,
            seconds=self.seconds,
            byte_range=self.byte_range,
        )


@dataclass(frozen=True)
class Fold:
    """One division of the clips; the parts share no clip."""

    name: str
    """Unique in its task: a published fold number, a left-out speaker, or ``published``."""
    train: tuple[Example, ...]
    """Clips to learn from."""
    validation: tuple[Example, ...]
    """Clips that choose epochs and strengths."""
    test: tuple[Example, ...]
    """Clips that are scored once."""

    def parts(self) -> dict[str, tuple[Example, ...]]:
        """Part name to its clips, train first."""
        return {part: getattr(self, part) for part in PARTS}

    def clips(self) -> dict[str, int]:
        """Part name to its number of clips, as results record it."""
        return {part: len(examples) for part, examples in self.parts().items()}


@dataclass(frozen=True)
class Task:
    """Labelled clips, their classes and the folds that a score is the mean over."""

    name: str
    """The plug-in that made it."""
    classes: tuple[str, ...]
    """Published display names, sorted; a target is an index here."""
    seconds: float
    """Nominal length of a clip; some may be shorter or longer."""
    split_rule: str
    """Variant and where the parts come from, in words."""
    folds: tuple[Fold, ...]
    """At least one."""
    metric: str = "accuracy"
    """What a score is; a share from 0 to 1, higher is better."""
    notes: tuple[str, ...] = ()
    """What differs from the published task: ``4 of 5 folds``, ``34 of 35 words``."""

    def __post_init__(self) -> None:
        assert list(self.classes) == sorted(set(self.classes)), "classes are sorted and unique"
        if len(self.classes) < 2:
            only = f"only one, {self.classes[0]!r}" if self.classes else "none"
            raise ValueError(
                f"task {self.name} needs two classes or more to tell apart, but there is {only}; "
                f"point --root at a folder with more, or choose another task.version or task.subset"
            )
        for fold in self.folds:
            _check_fold(self.name, fold, len(self.classes))


def example_of(clip: Clip, target: int) -> Example:
    """The whole of a corpus's ``clip`` as an example of class ``target``."""
    return Example(
        key=clip.source,
        target=target,
        path=clip.path,
        recording=clip.recording,
        speaker=clip.speaker,
    )


def choose_folds(folds: Sequence[Fold], wanted: Sequence[str | int]) -> tuple[Fold, ...]:
    """The folds named by ``task.folds``, in the order there are; all where none is named."""
    names = [fold.name for fold in folds]
    asked = [str(name) for name in wanted]
    absent = [name for name in asked if name not in names]
    if absent:
        raise ValueError(
            f"task.folds asks for {', '.join(absent)}, but the folds here are {', '.join(names)}; "
            f"name some of these, or leave task.folds out to run all"
        )
    return tuple(fold for fold in folds if not asked or fold.name in asked)


def cross_folds(task: str, examples: Sequence[Example], numbers: Sequence[int]) -> list[Fold]:
    """A fold for every published one: it tests, the next validates, the others train.

    The next one that is there, and after the last the first.

    Args:
        task: its name, for messages.
        examples: all clips.
        numbers: the published fold of each example.
    """
    there = sorted(set(numbers))
    if len(there) < 3:
        raise ValueError(
            f"task {task} needs three folds or more, to train, validate and test, but there is "
            f"{' and '.join(map(str, there)) or 'none'}; give --root a fuller copy of the corpus"
        )
    folds = []
    for place, test in enumerate(there):
        others = {test: "test", there[(place + 1) % len(there)]: "validation"}
        parts: dict[str, list[Example]] = {part: [] for part in PARTS}
        for example, number in zip(examples, numbers, strict=True):
            parts[others.get(number, "train")].append(example)
        folds.append(Fold(str(test), *(tuple(parts[part]) for part in PARTS)))
    return folds


def hold_out_tenth(
    examples: Sequence[Example], groups: Sequence[str]
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Part a tenth of every group from the rest, evenly spaced in the order given.

    Args:
        examples: clips in an order that means something, such as the take number.
        groups: the stratum of each example, such as digit and speaker.

    Returns:
        The rest and the tenth (rounded, at least one of every group of two or more), both in
        the order given.
    """
    sizes = Counter(groups)
    seen: Counter[str] = Counter()
    rest: list[Example] = []
    tenth: list[Example] = []
    for example, group in zip(examples, groups, strict=True):
        size, place = sizes[group], seen[group]
        seen[group] += 1
        held = max(1, round(size / 10)) if size > 1 else 0
        # Bresenham's line: `held` of `size` places, as even as they come, the last one among them.
        is_held = (place + 1) * held // size > place * held // size
        (tenth if is_held else rest).append(example)
    return tuple(rest), tuple(tenth)


def class_notes(classes: Sequence[str], folds: Sequence[Fold]) -> tuple[str, ...]:
    """Name the classes that some fold never trains on: their clips can only be missed."""
    notes = []
    for fold in folds:
        trained = {example.target for example in fold.train}
        untrained = [name for target, name in enumerate(classes) if target not in trained]
        if untrained:
            notes.append(f"fold {fold.name} has no training clip of {', '.join(untrained)}")
    return tuple(notes)


def recording_notes(task: str, folds: Sequence[Fold]) -> tuple[str, ...]:
    """Name, and warn of, folds where clips of one recording lie in several parts.

    A score on them rewards remembering the recording.
    """
    notes = []
    for fold in folds:
        recordings = {
            part: {example.recording for example in examples} - {None}
            for part, examples in fold.parts().items()
        }
        shared = set[str | None]()
        for one, other in combinations(PARTS, 2):
            shared |= recordings[one] & recordings[other]
        if shared:
            notes.append(f"{len(shared)} recordings lie in several parts of fold {fold.name}")
    if notes:
        warnings.warn(
            f"task {task}: {'; '.join(notes)}; a score rewards remembering them", stacklevel=3
        )
    return tuple(notes)


def _check_fold(task: str, fold: Fold, class_count: int) -> None:
    for part, examples in fold.parts().items():
        if not examples:
            held = ", ".join(f"{count} {name}" for name, count in fold.clips().items())
            raise ValueError(
                f"task {task}, fold {fold.name}: the {part} part holds no clip ({held}); give "
                f"--root a fuller copy of the corpus, its split lists among them, or choose "
                f"otherwise in `sslaudio show task {task}`"
            )
    counts = Counter(example.key for examples in fold.parts().values() for example in examples)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        raise ValueError(
            f"task {task}, fold {fold.name}: {twice[0]} is there twice ({len(twice)} such clips); "
            f"a clip belongs to one part only: remove the second mention from the split lists"
        )
    if len({example.target for example in fold.train}) < 2:
        raise ValueError(
            f"task {task}, fold {fold.name}: the {len(fold.train)} training clips are all of one "
            f"class; give --root a copy of the corpus with training clips of two classes or more"
        )
    assert all(
        0 <= example.target < class_count
        for examples in fold.parts().values()
        for example in examples
    ), "targets index the classes"
