"""A table of one's own: clips with a class, several classes or a number each.

In:  a CSV (or TSV) file, or a folder that holds ``labels.csv``, ``metadata.csv`` or one CSV
     alone. A row a clip: its path from the table's folder and what is to be told of it; where
     the columns are there, its split, fold, start and end, speaker, recording.
Out: the folds or splits of the table, or a seeded split by speaker, recording or clip.
"""

import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from sslaudio.data.corpora import own_table, tables
from sslaudio.data.corpora.own_table import Columns
from sslaudio.data.corpora.tables import Row
from sslaudio.data.decode import DecodeError
from sslaudio.tasks import splits
from sslaudio.tasks.base import (
    PARTS,
    Example,
    Kind,
    Target,
    Task,
    choose_folds,
    class_notes,
    recording_notes,
)

CORPUS = None
"""Any: ``--root`` is the table, or the folder that holds it."""
MEASURED = 50
"""Files whose length is measured for the nominal one, where the table does not tell it."""

_MEASURING_HZ = 16_000


@dataclass(frozen=True)
class Config(Columns):
    """What is told, how the clips are divided, and what the columns are called."""

    KEY: ClassVar[str] = "task.{field}"

    target: Literal["auto", "single", "multi", "number"] = "auto"
    """``single``: one class. ``multi``: any number of them. ``number``: to regress. ``auto``: multi
    by the column of several labels, number where every label is one and some has a point."""
    split: Literal["auto", "folds", "splits", "seeded"] = "auto"
    """``auto``: folds where every clip has one, splits where some clip tests, else ``seeded``."""
    seed: int = 0
    """Of the seeded split, and of the units that validate where splits name no clip for it."""
    folds: tuple[int | str, ...] = ()
    """Folds to test on; empty for all."""


def build(config: Config, root: Path) -> Task:
    """Read the table that ``root`` is or holds, and set up the parts."""
    table = own_table.find(root)
    rows = tables.read(table)
    kind = _kind(config, table, rows)
    rows = _labelled(config, kind, rows)
    rows, missing = _those_there(config, table, rows)
    recordings = own_table.recordings(config, rows)
    classes = _classes(config, kind, rows)
    clips = [
        splits.Placed(
            replace(_example(config, kind, classes, row), recording=recording),
            config.split_of(row),
            config.fold_of(row),
        )
        for row, recording in zip(rows, recordings, strict=True)
    ]
    divided = splits.divide("csv", clips, config.split, config.seed, str(table))
    chosen = choose_folds(divided.folds, config.folds)
    notes = (f"{len(rows)} of {len(rows) + missing} listed clips",) if missing else ()
    return Task(
        name="csv",
        classes=classes,
        seconds=_nominal_seconds([clip.example for clip in clips]),
        split_rule=f"{table.name}: {divided.rule}",
        kind=kind,
        notes=(
            *notes,
            *divided.notes,
            *class_notes(classes, chosen, PARTS),
            *recording_notes("csv", chosen),
        ),
        folds=chosen,
        missing=missing,
    )


def _kind(config: Config, table: Path, rows: Sequence[Row]) -> Kind:
    """What is told, once the columns for it and for the path are there."""
    config.check(rows, "path_column")
    there = rows[0].cells
    if config.target == "multi":
        config.check(rows, "labels_column")
    elif config.target != "auto" or config.labels_column not in there:
        config.check(rows, "label_column")
    if config.target != "auto":
        return config.target
    if config.label_column in there and config.labels_column in there:
        raise ValueError(
            f"{table} has the columns {config.label_column} and {config.labels_column}; set "
            f"task.target to single, number or multi to say which is told"
        )
    if config.labels_column in there:
        return "multi"
    told = [text for row in rows if (text := row.text(config.label_column))]
    if all(map(_is_number, told)) and any("." in text for text in told):
        return "number"
    return "single"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _labelled(config: Config, kind: Kind, rows: Sequence[Row]) -> list[Row]:
    """Each clip once, those without a label left out; of several labels there may be none."""
    unique = own_table.once(config, rows)
    column = config.labels_column if kind == "multi" else config.label_column
    if not any(row.text(column) for row in unique):
        raise ValueError(
            f"{rows[0].table}: the column {column} is empty in every line; fill it, or set "
            f"task.{'labels' if kind == 'multi' else 'label'}_column to the one that is meant"
        )
    if kind == "multi":
        return unique
    kept = [row for row in unique if row.text(config.label_column)]
    if len(kept) < len(unique):
        warnings.warn(
            f"{rows[0].table}: {len(unique) - len(kept)} clips without a {config.label_column} are "
            f"left out",
            stacklevel=3,
        )
    return kept


def _those_there(config: Config, table: Path, rows: Sequence[Row]) -> tuple[list[Row], int]:
    there = [row for row in rows if config.path_of(row).is_file()]
    if not there:
        first = f", the first is {config.path_of(rows[0])}" if rows else ""
        raise ValueError(
            f"none of the {len(rows)} labelled files of {table} is there{first}; paths are read "
            f"from the table's folder: put it beside the sound, or set task.path_column"
        )
    return there, len(rows) - len(there)


def _labels(config: Config, kind: Kind, row: Row) -> list[str]:
    if kind == "number":
        return []
    if kind == "single":
        return [row.text(config.label_column)]
    return list(config.labels_of(row))


def _classes(config: Config, kind: Kind, rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(sorted({label for row in rows for label in _labels(config, kind, row)}))


def _target(config: Config, kind: Kind, classes: Sequence[str], row: Row) -> Target:
    if kind == "number":
        return row.number(config.label_column)
    places = sorted({classes.index(label) for label in _labels(config, kind, row)})
    return places[0] if kind == "single" else tuple(places)


def _example(config: Config, kind: Kind, classes: Sequence[str], row: Row) -> Example:
    start, seconds = config.span_of(row)
    return Example(
        key=config.place_of(row),
        target=_target(config, kind, classes, row),
        path=config.path_of(row),
        start_seconds=start,
        seconds=seconds,
        speaker=config.speaker_of(row),
    )


def _nominal_seconds(examples: Sequence[Example]) -> float:
    """The median length of the clips, or of an even choice of those that must be measured."""
    told = [example.seconds for example in examples if example.seconds is not None]
    if len(told) == len(examples):
        return statistics.median(told)
    step = -(-len(examples) // MEASURED)
    lengths = [length for example in examples[::step] if (length := _length(example))]
    if not lengths:
        raise ValueError(
            f"no file that was tried holds sound that can be read, the first is {examples[0].path}"
        )
    return statistics.median(lengths)


def _length(example: Example) -> float | None:
    """Seconds; None where the file cannot be read, which training says of it."""
    try:
        return len(example.waveform(_MEASURING_HZ)) / _MEASURING_HZ
    except DecodeError:
        return None
