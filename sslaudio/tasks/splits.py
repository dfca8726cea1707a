"""Parts for clips whose corpus nobody knows: their own folds or splits, or a seeded split.

In:  examples with the split and fold that they carry, if any.
Out: folds, the rule behind them in words, and notes on what they cannot keep apart.
"""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from sslaudio.tasks.base import PARTS, Example, Fold, cross_folds, hold_out_tenth

Rule = Literal["auto", "folds", "splits", "seeded"]
"""``auto``: folds where every clip has one, splits where some clip tests, else ``seeded``."""
TEST_SHARE = 0.15
"""Share of a class's units that a seeded split tests on, and again that validates."""
VALIDATION_SHARE = 0.1
"""Share of a class's training units that validates where splits name no clip for it."""


@dataclass(frozen=True)
class Placed:
    """A clip and where it is said to belong."""

    example: Example
    split: str | None
    """One of :data:`sslaudio.tasks.base.PARTS`, another, which is passed over, or None."""
    fold: int | None


@dataclass(frozen=True)
class Divided:
    """Folds, and how they came about."""

    folds: list[Fold]
    rule: str
    """In words."""
    notes: tuple[str, ...] = ()
    """What else a score must be read with."""


def divide(task: str, clips: Sequence[Placed], rule: Rule, seed: int, where: str) -> Divided:
    """The folds of ``clips`` by ``task.split``, and how they came about.

    Args:
        task: its name, for messages.
        clips: at least one.
        rule: of ``task.split``.
        seed: of the seeded split, and of the units that validate where no split does.
        where: what was read, for messages.

    Raises:
        ValueError: the rule asks for folds or splits that the clips do not carry.
    """
    examples = [clip.example for clip in clips]
    numbers = [clip.fold for clip in clips if clip.fold is not None]
    kind: str = rule
    if kind == "auto":
        # A corpus that publishes no split (a folder of one's own) says "train" of every clip.
        splits = "splits" if any(clip.split == "test" for clip in clips) else "seeded"
        kind = "folds" if len(numbers) == len(clips) else splits
    notes = _passed_over(task, clips) if rule == "auto" and kind == "seeded" else ()
    if kind == "folds":
        if len(numbers) < len(clips):
            raise ValueError(
                f"task.split is folds, but {len(clips) - len(numbers)} of the {len(clips)} clips "
                f"in {where} carry no fold; set task.split to splits or seeded"
            )
        folds = cross_folds(task, examples, numbers)
        return Divided(folds, "published folds; the next fold validates")
    if kind == "seeded":
        divided = _seeded(task, examples, seed)
        return replace(divided, notes=(*notes, *divided.notes))
    return _by_splits(task, where, clips, seed)


def _passed_over(task: str, clips: Sequence[Placed]) -> tuple[str, ...]:
    """Say, and warn of, folds and splits that the clips carry and that cannot be used."""
    without = sum(clip.fold is None for clip in clips)
    notes = []
    if without < len(clips):
        notes.append(f"folds are passed over, since {without} of {len(clips)} clips have none")
    if any(clip.split == "validation" for clip in clips):
        notes.append("splits are passed over, since no clip's is test")
    if notes:
        warnings.warn(f"task {task}: {'; '.join(notes)}", stacklevel=3)
    return tuple(notes)


def _by_splits(task: str, where: str, clips: Sequence[Placed], seed: int) -> Divided:
    """The splits the clips carry; a tenth of the training units where none validates."""
    rule = f"splits of the {'shards' if task == 'shards' else 'table'}"
    parts = {part: tuple(clip.example for clip in clips if clip.split == part) for part in PARTS}
    notes: tuple[str, ...] = ()
    if not parts["validation"]:
        held, unit = _tenth(parts["train"], seed)
        parts |= held
        notes = _speaker_notes(task, held)
        rule += f"; a tenth of the training {unit}s validates"
    absent = [part for part in ("train", "test") if not parts[part]]
    if absent:
        raise ValueError(
            f"the clips in {where} carry splits, but none is for {' or '.join(absent)}; set "
            f"task.split to seeded to divide all of them anew"
        )
    without = sum(clip.split is None for clip in clips)
    rule += f"; {without} clips without one left out" if without else ""
    return Divided([Fold("published", **parts)], rule, notes)


def _tenth(examples: Sequence[Example], seed: int) -> tuple[dict[str, tuple[Example, ...]], str]:
    """What trains and what validates, and the units that are whole: clips where no others can."""
    shares = {"validation": VALIDATION_SHARE}
    unit = _unit(examples, shares, seed)
    if unit:
        return _parted(examples, unit, shares, seed), unit
    groups = [f"{_stratum(example)} {example.speaker}" for example in examples]
    train, validation = hold_out_tenth(examples, groups)
    return {"train": train, "validation": validation}, "clip"


def _seeded(task: str, examples: Sequence[Example], seed: int) -> Divided:
    """70/15/15 class by class, a unit never in two parts; the seed and the key alone decide."""
    shares = {"test": TEST_SHARE, "validation": TEST_SHARE}
    unit = _unit(examples, shares, seed) or "key"
    parts = _parted(examples, unit, shares, seed)
    rule = f"70/15/15 by {unit}, seed {seed}"
    return Divided([Fold("seeded", **parts)], rule, _speaker_notes(task, parts))


def _unit(examples: Sequence[Example], shares: Mapping[str, float], seed: int) -> str | None:
    """What is kept whole: speakers, or else recordings; None where neither can be.

    Each must be told of every clip, and no part be left without clips or with one class to learn:
    where the class is who speaks, a whole speaker would train or test alone.
    """
    for name in ("speaker", "recording"):
        if all(getattr(example, name) is not None for example in examples):
            parts = _parted(examples, name, shares, seed)
            trained = {example.target for example in parts["train"]}
            if len(trained) > 1 and all(parts[part] for part in shares):
                return name
    return None


def _parted(
    examples: Sequence[Example], unit_name: str, shares: Mapping[str, float], seed: int
) -> dict[str, tuple[Example, ...]]:
    """Whole units, class by class: a share for each of ``shares``, the others train.

    All units of a class train where it has no more than there are shares.
    """
    unit_classes: dict[str, set[int]] = {}
    for example in examples:
        unit_classes.setdefault(getattr(example, unit_name), set()).add(_stratum(example))
    part_of: dict[str, str] = {}
    ranked = sorted(unit_classes, key=lambda unit: _rank(seed, unit))
    for stratum in sorted({_stratum(example) for example in examples}):
        units = [unit for unit in ranked if stratum in unit_classes[unit] and unit not in part_of]
        held = [
            part
            for part, share in shares.items()
            if len(units) > len(shares)
            for _ in range(max(1, round(share * len(units))))
        ]
        part_of |= dict.fromkeys(units, "train") | dict(zip(units, held, strict=False))
    return {
        part: tuple(one for one in examples if part_of[getattr(one, unit_name)] == part)
        for part in ("train", *shares)
    }


def _speaker_notes(task: str, parts: Mapping[str, Sequence[Example]]) -> tuple[str, ...]:
    """Say, and warn of, speakers that could not be kept in one part."""
    speakers = [{one.speaker for one in examples} - {None} for examples in parts.values()]
    shared = set[str | None]().union(*(one & other for one, other in combinations(speakers, 2)))
    if not shared:
        return ()
    note = f"{len(shared)} speakers lie in several parts"
    warnings.warn(f"task {task}: {note}; a score rewards knowing them", stacklevel=4)
    return (note,)


def _stratum(example: Example) -> int:
    """The class that a clip is divided by; several classes, or a number, are divided as one."""
    return example.target if isinstance(example.target, int) else 0


def _rank(seed: int, unit: str) -> bytes:
    return hashlib.sha256(f"{seed} {unit}".encode()).digest()
