"""A table of one's own: clips with a class, several classes or a number each.

In:  a CSV (or TSV) file, or a folder that holds ``labels.csv``, ``metadata.csv`` or one CSV
     alone. A row a clip: its path from the table's folder and what is to be told of it; where
     the columns are there, its split, fold, start and end, speaker, recording.
Out: the folds or splits of the table, or a seeded split by speaker, recording or clip.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sslaudio.data.corpora import tables
from sslaudio.data.corpora.tables import Row
from sslaudio.tasks import own_table, splits
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


@dataclass(frozen=True)
class Config:
    """What is told, how the clips are divided, and what the columns are called."""

    target: Literal["auto", "single", "multi", "number"] = "auto"
    """``single``: one class. ``multi``: any number of them. ``number``: to regress. ``auto``: multi
    by the column of several labels, number where every label is one and some has a point."""
    split: Literal["auto", "folds", "splits", "seeded"] = "auto"
    """``auto``: folds where every clip has one, splits where some clip tests, else ``seeded``."""
    seed: int = 0
    """Of the seeded split, and of the units that validate where splits name no clip for it."""
    folds: tuple[int | str, ...] = ()
    """Folds to test on; empty for all."""
    path_column: str = "path"
    """Of the file, from the table's folder. Needed."""
    label_column: str = "label"
    """Of the one class, or the number."""
    labels_column: str = "labels"
    """Of several classes."""
    separator: str = ";"
    """Between several classes."""
    split_column: str = "split"
    """Of train, validation (val, valid, dev) or test (eval); empty for none."""
    fold_column: str = "fold"
    """Of whole numbers."""
    start_column: str = "start"
    """Of seconds into the file where the clip begins."""
    end_column: str = "end"
    """Of seconds into the file where it ends; empty for the file's end."""
    speaker_column: str = "speaker"
    """Of who speaks."""
    recording_column: str = "recording"
    """Of what the clip was cut from; where it is not told and a file holds several clips, the
    file."""


def build(config: Config, root: Path) -> Task:
    """Read the table that ``root`` is or holds, and set up the parts."""
    table = own_table.find(root)
    rows = tables.read(table)
    kind = _kind(config, table, rows)
    rows = _labelled(config, kind, rows)
    rows, missing = _those_there(config, table, rows)
    recordings = _recordings(config, rows)
    classes = _classes(config, kind, rows)
    clips = [
        splits.Placed(
            replace(_example(config, kind, classes, row), recording=recording),
            own_table.split(row, config.split_column),
            own_table.fold(row, config.fold_column),
        )
        for row, recording in zip(rows, recordings, strict=True)
    ]
    divided = splits.divide("csv", clips, config.split, config.seed, str(table))
    chosen = choose_folds(divided.folds, config.folds)
    notes = (f"{len(rows)} of {len(rows) + missing} listed clips",) if missing else ()
    return Task(
        name="csv",
        classes=classes,
        seconds=own_table.nominal_seconds([clip.example for clip in clips]),
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
    own_table.check_column(rows, config.path_column, "path_column")
    there = rows[0].cells
    if config.target == "multi":
        own_table.check_column(rows, config.labels_column, "labels_column")
    elif config.target != "auto" or config.labels_column not in there:
        own_table.check_column(rows, config.label_column, "label_column")
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
    unique = list(_once(config, rows))
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


def _once(config: Config, rows: Sequence[Row]) -> list[Row]:
    first: dict[str, Row] = {}
    for row in rows:
        if not row.text(config.path_column):
            raise row.wrong(f"its {config.path_column} is empty", own_table.MEND)
        other = first.setdefault(_key(config, row), row)
        if _told(config, other) != _told(config, row):
            raise row.wrong(
                f"{_key(config, row)} is in line {other.line} too, and tells otherwise there",
                own_table.MEND,
            )
    if len(first) < len(rows):
        warnings.warn(
            f"{rows[0].table}: {len(rows) - len(first)} lines that repeat another are left out",
            stacklevel=4,
        )
    return list(first.values())


def _told(config: Config, row: Row) -> dict[str, str]:
    return row.cells | {config.path_column: _file(config, row)}


def _file(config: Config, row: Row) -> str:
    """The path, written one way: ``./a.wav`` and ``a.wav`` are one file."""
    return Path(os.path.normpath(row.text(config.path_column))).as_posix()


def _key(config: Config, row: Row) -> str:
    """The file; the second that a clip begins at as well, where several may lie in a file."""
    start = row.text(config.start_column)
    return _file(config, row) + (f"#{start}" if start else "")


def _recordings(config: Config, rows: Sequence[Row]) -> list[str | None]:
    """What each clip was cut from; its file, where some are told or a file holds several."""
    told = [row.text(config.recording_column) for row in rows]
    files = [_file(config, row) for row in rows]
    if not any(told) and len(set(files)) == len(files):
        return [None] * len(rows)
    return [recording or file for recording, file in zip(told, files, strict=True)]


def _path(config: Config, row: Row) -> Path:
    return row.table.parent / row.text(config.path_column)


def _those_there(config: Config, table: Path, rows: Sequence[Row]) -> tuple[list[Row], int]:
    there = [row for row in rows if _path(config, row).is_file()]
    if not there:
        first = f", the first is {_path(config, rows[0])}" if rows else ""
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
    parts = row.text(config.labels_column).split(config.separator)
    return [label for part in parts if (label := part.strip())]


def _classes(config: Config, kind: Kind, rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(sorted({label for row in rows for label in _labels(config, kind, row)}))


def _target(config: Config, kind: Kind, classes: Sequence[str], row: Row) -> Target:
    if kind == "number":
        return row.number(config.label_column)
    places = sorted({classes.index(label) for label in _labels(config, kind, row)})
    return places[0] if kind == "single" else tuple(places)


def _example(config: Config, kind: Kind, classes: Sequence[str], row: Row) -> Example:
    start = own_table.seconds(row, config.start_column) or 0.0
    end = own_table.seconds(row, config.end_column)
    if end is not None and end <= start:
        raise row.wrong(
            f"the clip ends at {end:g} s, not after its start at {start:g} s", own_table.MEND
        )
    return Example(
        key=_key(config, row),
        target=_target(config, kind, classes, row),
        path=_path(config, row),
        start_seconds=start,
        seconds=None if end is None else end - start,
        speaker=row.text(config.speaker_column) or None,
    )
