"""Labelled shards of any corpus: one label a clip.

In:  a folder that ``sslaudio shards build`` or ``shards synth`` wrote.
Out: the folds or splits that its clips carry, or a seeded split where they carry none.
"""

import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sslaudio.data import index
from sslaudio.tasks.base import (
    PARTS,
    Example,
    Fold,
    Task,
    choose_folds,
    class_notes,
    cross_folds,
    hold_out_tenth,
    recording_notes,
)

CORPUS = None
"""Any: ``--root`` is the folder of shards."""
TEST_SHARE = 0.15
"""Share of a class's units that a seeded split tests on, and again that validates."""


@dataclass(frozen=True)
class Config:
    """Where the parts come from."""

    split: Literal["auto", "folds", "splits", "seeded"] = "auto"
    """``auto``: folds where every clip has one, splits where some clip tests, else ``seeded``."""
    seed: int = 0
    """Of the seeded split."""
    folds: tuple[int | str, ...] = ()
    """Published folds to test on; empty for all."""


@dataclass(frozen=True)
class _Labelled:
    example: Example
    split: str | None
    fold: int | None
    seconds: float


def build(config: Config, root: Path) -> Task:
    """Read the labels of the shards in ``root`` and set up the parts."""
    classes, clips = _read(root)
    folds, rule = _folds(config, root, clips)
    chosen = choose_folds(folds, config.folds)
    return Task(
        name="shards",
        classes=classes,
        seconds=statistics.median(clip.seconds for clip in clips),
        split_rule=rule,
        notes=(*class_notes(classes, chosen), *recording_notes("shards", chosen)),
        folds=chosen,
    )


def _read(root: Path) -> tuple[tuple[str, ...], list[_Labelled]]:
    """Classes and the clips that bear one; background noise is nobody's clip."""
    shards = index.Index.open(root)
    found = [
        (sample, label)
        for sample in shards.examples()
        if sample.fields.get("split") != "noise"
        and (label := _label(root, sample.fields)) is not None
    ]
    if not found:
        raise ValueError(
            f"no clip of the shards in {root} bears a label; build them from a labelled corpus "
            f"(`sslaudio shards build --corpus folder` can take the parent folder as label)"
        )
    classes = tuple(sorted({label for _, label in found}))
    clips = [
        _Labelled(
            _example(sample, classes.index(label)),
            sample.fields.get("split"),
            sample.fields.get("fold"),
            sample.samples / shards.sample_rate,
        )
        for sample, label in found
    ]
    return classes, clips


def _label(root: Path, fields: dict[str, object]) -> str | None:
    labels = fields.get("labels") or []
    assert isinstance(labels, list)
    if len(labels) > 1:
        raise ValueError(
            f"the shards in {root} hold clips with several labels ({', '.join(labels[:3])}), but "
            f"task shards tells one class a clip; give shards with one label a clip"
        )
    label = fields.get("label") or (labels[0] if labels else None)
    return None if label is None else str(label)


def _example(sample: index.Example, target: int) -> Example:
    return Example(
        key=sample.key,
        target=target,
        path=sample.shard,
        byte_range=sample.byte_range,
        recording=sample.fields.get("recording"),
        speaker=sample.fields.get("speaker"),
    )


def _folds(config: Config, root: Path, clips: Sequence[_Labelled]) -> tuple[list[Fold], str]:
    examples = [clip.example for clip in clips]
    numbers = [clip.fold for clip in clips if clip.fold is not None]
    kind: str = config.split
    if kind == "auto":
        # A corpus that publishes no split (a folder of one's own) says "train" of every clip.
        splits = "splits" if any(clip.split == "test" for clip in clips) else "seeded"
        kind = "folds" if len(numbers) == len(clips) else splits
    if kind == "folds":
        if len(numbers) < len(clips):
            raise ValueError(
                f"task.split is folds, but {len(clips) - len(numbers)} of the {len(clips)} clips "
                f"in {root} carry no fold; set task.split to splits or seeded"
            )
        return cross_folds("shards", examples, numbers), "published folds; the next fold validates"
    if kind == "seeded":
        return _seeded(examples, config.seed)
    return _by_splits(root, clips)


def _by_splits(root: Path, clips: Sequence[_Labelled]) -> tuple[list[Fold], str]:
    """The splits the clips carry; a tenth of the training clips where none validates."""
    rule = "splits of the shards"
    parts = {part: tuple(clip.example for clip in clips if clip.split == part) for part in PARTS}
    if not parts["validation"]:
        groups = [f"{example.one_class} {example.speaker}" for example in parts["train"]]
        parts["train"], parts["validation"] = hold_out_tenth(parts["train"], groups)
        rule += "; a tenth of the training clips validates"
    absent = [part for part in ("train", "test") if not parts[part]]
    if absent:
        raise ValueError(
            f"the clips in {root} carry splits, but none is for {' or '.join(absent)}; set "
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
        unit_classes.setdefault(getattr(example, unit_name), set()).add(example.one_class)
    part_of: dict[str, str] = {}
    ranked = sorted(unit_classes, key=lambda unit: _rank(seed, unit))
    for target in sorted({example.one_class for example in examples}):
        units = [unit for unit in ranked if target in unit_classes[unit] and unit not in part_of]
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


def _divides(examples: Sequence[Example], unit_name: str) -> bool:
    """Whether every clip tells the unit and every class has three of them, one a part."""
    units: dict[int, set[str | None]] = {}
    for example in examples:
        units.setdefault(example.one_class, set()).add(getattr(example, unit_name))
    return all(None not in held and len(held) >= 3 for held in units.values())


def _rank(seed: int, unit: str) -> bytes:
    return hashlib.sha256(f"{seed} {unit}".encode()).digest()
