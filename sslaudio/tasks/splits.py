"""Parts for clips whose corpus nobody knows: their own folds or splits, or a seeded split.

In:  examples with the split and fold that they carry, if any.
Out: folds, and the rule behind them in words.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sslaudio.tasks.base import PARTS, Example, Fold, cross_folds, hold_out_tenth

Rule = Literal["auto", "folds", "splits", "seeded"]
"""``auto``: folds where every clip has one, splits where some clip tests, else ``seeded``."""
TEST_SHARE = 0.15
"""Share of a class's units that a seeded split tests on, and again that validates."""


@dataclass(frozen=True)
class Placed:
    """A clip and where it is said to belong."""

    example: Example
    split: str | None
    """One of :data:`sslaudio.tasks.base.PARTS`, another, which is passed over, or None."""
    fold: int | None


def divide(
    task: str, clips: Sequence[Placed], rule: Rule, seed: int, where: str
) -> tuple[list[Fold], str]:
    """The folds of ``clips`` by ``task.split``, and how they came about.

    Args:
        task: its name, for messages.
        clips: at least one.
        rule: of ``task.split``.
        seed: of the seeded split.
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
    if kind == "folds":
        if len(numbers) < len(clips):
            raise ValueError(
                f"task.split is folds, but {len(clips) - len(numbers)} of the {len(clips)} clips "
                f"in {where} carry no fold; set task.split to splits or seeded"
            )
        return cross_folds(task, examples, numbers), "published folds; the next fold validates"
    if kind == "seeded":
        return _seeded(examples, seed)
    return _by_splits(task, where, clips)


def _by_splits(task: str, where: str, clips: Sequence[Placed]) -> tuple[list[Fold], str]:
    """The splits the clips carry; a tenth of the training clips where none validates."""
    rule = f"splits of the {'shards' if task == 'shards' else 'table'}"
    parts = {part: tuple(clip.example for clip in clips if clip.split == part) for part in PARTS}
    if not parts["validation"]:
        groups = [f"{_stratum(example)} {example.speaker}" for example in parts["train"]]
        parts["train"], parts["validation"] = hold_out_tenth(parts["train"], groups)
        rule += "; a tenth of the training clips validates"
    absent = [part for part in ("train", "test") if not parts[part]]
    if absent:
        raise ValueError(
            f"the clips in {where} carry splits, but none is for {' or '.join(absent)}; set "
            f"task.split to seeded to divide all of them anew"
        )
    without = sum(clip.split is None for clip in clips)
    rule += f"; {without} clips without one left out" if without else ""
    return [Fold("published", **parts)], rule


def _seeded(examples: Sequence[Example], seed: int) -> tuple[list[Fold], str]:
    """70/15/15 class by class, a unit never in two parts; the seed and the key alone decide."""
    unit_name = next((name for name in ("speaker", "recording") if _divides(examples, name)), "key")
    unit_classes: dict[str, set[int]] = {}
    for example in examples:
        unit_classes.setdefault(getattr(example, unit_name), set()).add(_stratum(example))
    part_of: dict[str, str] = {}
    ranked = sorted(unit_classes, key=lambda unit: _rank(seed, unit))
    for stratum in sorted({_stratum(example) for example in examples}):
        units = [unit for unit in ranked if stratum in unit_classes[unit] and unit not in part_of]
        held = max(1, round(TEST_SHARE * len(units))) if len(units) >= 3 else 0
        for place, unit in enumerate(units):
            part_of[unit] = (
                "test" if place < held else "validation" if place < 2 * held else "train"
            )
    parts = {
        part: tuple(example for example in examples if part_of[getattr(example, unit_name)] == part)
        for part in PARTS
    }
    return [Fold("seeded", **parts)], f"70/15/15 by {unit_name}, seed {seed}"


def _stratum(example: Example) -> int:
    """The class that a clip is divided by; several classes, or a number, are divided as one."""
    return example.target if isinstance(example.target, int) else 0


def _divides(examples: Sequence[Example], unit_name: str) -> bool:
    """Whether every clip tells the unit and every class has three of them, one a part."""
    units: dict[int, set[str | None]] = {}
    for example in examples:
        units.setdefault(_stratum(example), set()).add(getattr(example, unit_name))
    return all(None not in held and len(held) >= 3 for held in units.values())


def _rank(seed: int, unit: str) -> bytes:
    return hashlib.sha256(f"{seed} {unit}".encode()).digest()
