"""What a task is: labelled clips in folds of train, validation and test, and the rule behind.

In:  the clips of a corpus in its published layout, or labelled shards.
Out: a :class:`Task`; its ``folds`` hold :class:`Example` objects that decode themselves.

A plug-in of this room is a file with a frozen ``Config`` and ``build(config, root) -> Task``.
Classes are sorted, so that a target means the same in every run and process.
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Shaped

from sslaudio.data.corpora.base import Clip
from sslaudio.data.decode import decode

PARTS = ("train", "validation", "test")
"""The parts of a fold, in the order they are used."""
Target = int | tuple[int, ...] | float
"""What is to be told of a clip: the index of its class, those of all its classes, or a number."""
Kind = Literal["single", "multi", "number"]
"""One class a clip, any number of classes a clip, or a number a clip."""
METRICS: dict[Kind, str] = {"single": "accuracy", "multi": "mAP", "number": "R2"}
"""What a score is: share of clips told rightly; mean average precision; share of variance told."""
LEGACY = "lape_legacy"
"""``task.split`` for LAPE's own departures from the published protocols."""


@dataclass(frozen=True)
class Example:
    """One labelled clip, or a piece of a file that serves as one."""

    key: str
    """Unique in its task: the path relative to the corpus's root, or the key in its shard."""
    target: Target
    """Index of its class in :attr:`Task.classes`; or of its classes, rising; or a number."""
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

    @property
    def one_class(self) -> int:
        """The index of its class, where a clip has just one."""
        assert isinstance(self.target, int), "a task of one class a clip"
        return self.target

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

    def fingerprint(self) -> str:
        """SHA-256 of which clips are in which part with which targets, wherever they lie."""
        told = hashlib.sha256()
        for part, examples in self.parts().items():
            for example in examples:
                told.update(f"{part} {example.key} {example.target}\n".encode())
        return told.hexdigest()

    def clips(self) -> dict[str, int]:
        """Part name to its number of clips, as results record it."""
        return {part: len(examples) for part, examples in self.parts().items()}


@dataclass(frozen=True)
class Published:
    """A score that others published on a task, in the variant that it was published for."""

    system: str
    """Name and pretraining, as its authors call it."""
    protocol: str
    """How it was adapted: ``full``, ``linear``, ``knn``."""
    score: float
    """In the task's metric, 0 to 1."""
    source: str
    """Paper and table."""

    @classmethod
    def tables(
        cls, protocol: str, percentages: Mapping[str, Mapping[str, float]]
    ) -> "tuple[Published, ...]":
        """A column of published tables: source to system to the percentage it gives."""
        return tuple(
            cls(system, protocol, round(percent / 100, 6), source)
            for source, column in percentages.items()
            for system, percent in column.items()
        )


@dataclass(frozen=True)
class Task:
    """Labelled clips, their classes and the folds that a score is the mean over."""

    name: str
    """The plug-in that made it."""
    classes: tuple[str, ...]
    """Published display names, sorted; a target is an index here. None where a number is told."""
    seconds: float
    """Nominal length of a clip; some may be shorter or longer."""
    split_rule: str
    """Variant and where the parts come from, in words."""
    folds: tuple[Fold, ...]
    """At least one."""
    kind: Kind = "single"
    """What a target is."""
    notes: tuple[str, ...] = ()
    """What differs from the published task: ``4 of 5 folds``, ``34 of 35 words``."""
    missing: int = 0
    """Clips that the corpus lists and that are not there."""
    published: tuple[Published, ...] = ()
    """Others' scores on this very variant."""
    legacy: bool = False
    """Whether LAPE's departures hold: the epoch is chosen on test, which validates too, and the
    pictures' mean and deviation are those of train and test."""

    @property
    def metric(self) -> str:
        """What a score is; 1 is perfect, higher is better."""
        return METRICS[self.kind]

    def targets(self, examples: Sequence[Example]) -> Shaped[np.ndarray, "clips *classes"]:
        """What is to be told: int64 or float64 ``[clips]``, or bool ``[clips, classes]``."""
        if self.kind == "single":
            return np.array([example.target for example in examples], np.int64)
        if self.kind == "number":
            return np.array([example.target for example in examples], np.float64)
        told = np.zeros((len(examples), len(self.classes)), bool)
        for row, example in zip(told, examples, strict=True):
            assert isinstance(example.target, tuple)
            row[list(example.target)] = True
        return told

    def __post_init__(self) -> None:
        assert list(self.classes) == sorted(set(self.classes)), "classes are sorted and unique"
        if len(self.classes) < 2 and self.kind != "number":
            only = f"only one, {self.classes[0]!r}" if self.classes else "none"
            raise ValueError(
                f"task {self.name} needs two classes or more to tell apart, but there is {only}; "
                f"point --root at a folder with more, or choose otherwise in `sslaudio show task "
                f"{self.name}`"
            )
        for fold in self.folds:
            _check_fold(self, fold)


def example_of(clip: Clip, target: Target) -> Example:
    """The whole of a corpus's ``clip`` as an example of class ``target``."""
    return Example(
        key=clip.name,
        target=target,
        path=clip.path,
        start_seconds=clip.start_seconds,
        seconds=clip.seconds,
        byte_range=clip.byte_range,
        recording=clip.recording,
        speaker=clip.speaker,
    )


def multi_label(clips: Sequence[Clip]) -> tuple[tuple[str, ...], list[Example]]:
    """The classes of clips that have any number of them, and the clips as examples."""
    classes = tuple(sorted({label for clip in clips for label in clip.labels}))
    places = {label: place for place, label in enumerate(classes)}
    return classes, [
        example_of(clip, tuple(sorted({places[label] for label in clip.labels}))) for clip in clips
    ]


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


def legacy_fold(examples: Sequence[Example], numbers: Sequence[int], test: int) -> Fold:
    """LAPE's one fold: it tests, and chooses the epoch; all the others train.

    Source: github.com/Sreyan88/LAPE, where the test part is scored after every epoch.
    """
    parts: dict[bool, list[Example]] = {True: [], False: []}
    for example, number in zip(examples, numbers, strict=True):
        parts[number == test].append(example)
    tests = tuple(parts[True])
    return Fold(str(test), tuple(parts[False]), validation=tests, test=tests)


def split_fold(split: str, clips: Sequence[Clip], classes: Sequence[str]) -> Fold:
    """The fold that the clips' own splits make; LAPE trains on validation too, and test chooses.

    Args:
        split: the task's ``split``, which the fold is named after.
        clips: of one class each.
        classes: of the task.
    """
    targets = {name: target for target, name in enumerate(classes)}
    train, validation, test = (
        tuple(example_of(clip, targets[str(clip.label)]) for clip in clips if clip.split == part)
        for part in PARTS
    )
    if split == LEGACY:
        train, validation = (*train, *validation), test
    return Fold(split, train, validation, test)


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


def classes_of(target: Target) -> tuple[int, ...]:
    """The classes of one clip, be they one or several; none where a number is told."""
    if isinstance(target, tuple):
        return target
    return (target,) if isinstance(target, int) else ()


def class_notes(
    classes: Sequence[str], folds: Sequence[Fold], parts: Sequence[str] = ("train",)
) -> tuple[str, ...]:
    """Name the classes that some part of a fold lacks.

    Args:
        classes: of the task.
        folds: those that are run.
        parts: that are looked at. What never trains can only be missed.
    """
    notes = []
    for fold, part in product(folds, parts):
        heard = {target for one in fold.parts()[part] for target in classes_of(one.target)}
        absent = [name for target, name in enumerate(classes) if target not in heard]
        if absent:
            named = ", ".join(absent[:8]) + (", …" if len(absent) > 8 else "")
            what = "training" if part == "train" else part
            notes.append(f"fold {fold.name} has no {what} clip of {named}")
    return tuple(notes)


def recording_notes(task: str, folds: Sequence[Fold]) -> tuple[str, ...]:
    """Name, and warn of, folds where clips of one recording lie in several parts.

    A score on them rewards remembering the recording. Where test validates as well, that is no
    such case.
    """
    notes = []
    for fold in folds:
        recordings = {
            part: {example.recording for example in examples} - {None}
            for part, examples in fold.parts().items()
        }
        if fold.validation == fold.test:
            recordings["validation"] = set()
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


def _check_fold(task: Task, fold: Fold) -> None:
    for part, examples in fold.parts().items():
        if not examples:
            held = ", ".join(f"{count} {name}" for name, count in fold.clips().items())
            raise ValueError(
                f"task {task.name}, fold {fold.name}: the {part} part holds no clip ({held}); give "
                f"--root a fuller copy of the corpus, its split lists among them, or choose "
                f"otherwise in `sslaudio show task {task.name}`"
            )
    assert not task.legacy or fold.validation == fold.test, "there, test validates"
    apart = (fold.train, fold.test) if task.legacy else tuple(fold.parts().values())
    counts = Counter(example.key for examples in apart for example in examples)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        raise ValueError(
            f"task {task.name}, fold {fold.name}: {twice[0]} is there twice ({len(twice)} such "
            f"clips); a clip belongs to one part only: remove the second mention from the split "
            f"lists"
        )
    if len({example.target for example in fold.train}) < 2:
        one = "value" if task.kind == "number" else "class"
        raise ValueError(
            f"task {task.name}, fold {fold.name}: the {len(fold.train)} training clips are all of "
            f"one {one}; give --root a copy of the corpus with training clips of two or more"
        )
    for part in ("validation", "test"):
        told = {example.target for example in fold.parts()[part]}
        if (task.kind == "number" and len(told) < 2) or (task.kind == "multi" and told == {()}):
            all_are = "of one value" if task.kind == "number" else "of no class"
            raise ValueError(
                f"task {task.name}, fold {fold.name}: the {part} clips are all {all_are}, which "
                f"leaves {task.metric} undefined; give --root more clips, or divide them otherwise"
            )
    assert all(
        0 <= target < len(task.classes)
        for examples in fold.parts().values()
        for example in examples
        for target in classes_of(example.target)
    ), "targets index the classes"
