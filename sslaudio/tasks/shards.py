"""Labelled shards of any corpus: one label a clip.

In:  a folder that ``sslaudio shards build`` or ``shards synth`` wrote.
Out: the folds or splits that its clips carry, or a seeded split where they carry none.
"""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sslaudio.data import index
from sslaudio.tasks import splits
from sslaudio.tasks.base import PARTS, Example, Task, choose_folds, class_notes, recording_notes

CORPUS = None
"""Any: ``--root`` is the folder of shards."""


@dataclass(frozen=True)
class Config:
    """Where the parts come from."""

    split: Literal["auto", "folds", "splits", "seeded"] = "auto"
    """``auto``: folds where every clip has one, splits where some clip tests, else ``seeded``."""
    seed: int = 0
    """Of the seeded split, and of the units that validate where splits name no clip for it."""
    folds: tuple[int | str, ...] = ()
    """Published folds to test on; empty for all."""


def build(config: Config, root: Path) -> Task:
    """Read the labels of the shards in ``root`` and set up the parts."""
    classes, clips, seconds = _read(root)
    divided = splits.divide("shards", clips, config.split, config.seed, str(root))
    chosen = choose_folds(divided.folds, config.folds)
    return Task(
        name="shards",
        classes=classes,
        seconds=seconds,
        split_rule=divided.rule,
        notes=(
            *divided.notes,
            *class_notes(classes, chosen, PARTS),
            *recording_notes("shards", chosen),
        ),
        folds=chosen,
    )


def _read(root: Path) -> tuple[tuple[str, ...], list[splits.Placed], float]:
    """Classes, the clips that bear one, and their median length; noise is nobody's clip."""
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
        splits.Placed(
            _example(sample, classes.index(label)),
            sample.fields.get("split"),
            sample.fields.get("fold"),
        )
        for sample, label in found
    ]
    seconds = statistics.median(sample.samples for sample, _ in found) / shards.sample_rate
    return classes, clips, seconds


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
