"""A table of one's own: clips with a class, several classes or a number each.

In:  a CSV (or TSV) file, or a folder that holds ``labels.csv``, ``metadata.csv`` or one CSV
     alone. A row a clip: its path from the table's folder and what is to be told of it; where
     the columns are there, its split, fold, start and end, speaker, recording.
Out: the folds or splits of the table, or a seeded split by speaker, recording or clip.
"""

import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sslaudio.data.corpora import tables
from sslaudio.data.corpora.tables import Row
from sslaudio.data.decode import DecodeError
from sslaudio.tasks import splits
from sslaudio.tasks.base import (
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
TABLES = ("labels.csv", "metadata.csv")
"""Names that a folder's table is known by where it holds several."""
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Names of splits, in any case of letters."""
MEASURED = 50
"""Files whose length is measured for the nominal one, where the table does not tell it."""

_MEASURING_HZ = 16_000
_MEND = "mend the table"


@dataclass(frozen=True)
class Config:
    """What is told, how the clips are divided, and what the columns are called."""

    target: Literal["auto", "single", "multi", "number"] = "auto"
    """``single``: one class. ``multi``: any number of them. ``number``: to regress. ``auto``: multi
    by the column of several labels, number where every label is one and some has a point."""
    split: Literal["auto", "folds", "splits", "seeded"] = "auto"
    """``auto``: folds where every clip has one, splits where some clip tests, else ``seeded``."""
    seed: int = 0
    """Of the seeded split."""
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
    """Of what the clip was cut from."""


def build(config: Config, root: Path) -> Task:
    """Read the table that ``root`` is or holds, and set up the parts."""
    table = find_table(root)
    rows = tables.read(table)
    kind = _kind(config, table, rows)
    rows = _labelled(config, kind, rows)
    rows, missing = _those_there(config, table, rows)
    classes = _classes(config, kind, rows)
    clips = [
        splits.Placed(_example(config, kind, classes, row), _split(config, row), _fold(config, row))
        for row in rows
    ]
    folds, rule = splits.divide("csv", clips, config.split, config.seed, str(table))
    chosen = choose_folds(folds, config.folds)
    notes = (f"{len(rows)} of {len(rows) + missing} listed clips",) if missing else ()
    return Task(
        name="csv",
        classes=classes,
        seconds=_nominal_seconds([clip.example for clip in clips]),
        split_rule=f"{table.name}: {rule}",
        kind=kind,
        notes=(*notes, *class_notes(classes, chosen), *recording_notes("csv", chosen)),
        folds=chosen,
        missing=missing,
    )


def find_table(root: Path) -> Path:
    """The table that ``--root`` is, or that the folder holds."""
    if root.is_file():
        return root
    if not root.is_dir():
        raise ValueError(f"there is no {root}; set --root to a CSV file or the folder that has one")
    found = sorted(path for path in root.iterdir() if path.suffix.lower() in (".csv", ".tsv"))
    known = [path for name in TABLES for path in found if path.name.lower() == name]
    if not known and len(found) != 1:
        holds = f"holds {', '.join(path.name for path in found)}" if found else "holds no CSV file"
        raise ValueError(
            f"{root} {holds}; set --root to the table itself, or name it {' or '.join(TABLES)}"
        )
    return (known or found)[0]


def _column(table: Path, rows: Sequence[Row], config: Config, field: str) -> str:
    """A column that is needed."""
    column: str = getattr(config, field)
    if column not in rows[0].cells:
        raise ValueError(
            f"{table} has no column {column!r}; it has {', '.join(rows[0].cells)}: set "
            f"task.{field} to the one of these that is meant"
        )
    return column


def _kind(config: Config, table: Path, rows: Sequence[Row]) -> Kind:
    """What is told, once the columns for it and for the path are there."""
    _column(table, rows, config, "path_column")
    there = rows[0].cells
    if config.target != "auto":
        _column(table, rows, config, _told_by(config.target))
        return config.target
    if config.label_column in there and config.labels_column in there:
        raise ValueError(
            f"{table} has the columns {config.label_column} and {config.labels_column}; set "
            f"task.target to single, number or multi to say which is told"
        )
    if config.labels_column in there:
        return "multi"
    label = _column(table, rows, config, "label_column")
    told = [row.cells.get(label, "") for row in rows if row.cells.get(label)]
    if all(map(_is_number, told)) and any("." in text for text in told):
        return "number"
    return "single"


def _told_by(kind: str) -> str:
    return "labels_column" if kind == "multi" else "label_column"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _labelled(config: Config, kind: Kind, rows: Sequence[Row]) -> list[Row]:
    """Each clip once, those without a label left out; of several labels there may be none."""
    unique = list(_once(config, rows))
    if kind == "multi":
        return unique
    kept = [row for row in unique if row.cells.get(config.label_column, "").strip()]
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
        if not row.cells.get(config.path_column, "").strip():
            raise row.wrong(f"its {config.path_column} is empty", _MEND)
        other = first.setdefault(_key(config, row), row)
        if other.cells != row.cells:
            raise row.wrong(
                f"{_key(config, row)} is in line {other.line} too, and tells otherwise there", _MEND
            )
    if len(first) < len(rows):
        warnings.warn(
            f"{rows[0].table}: {len(rows) - len(first)} lines that repeat another are left out",
            stacklevel=4,
        )
    return list(first.values())


def _key(config: Config, row: Row) -> str:
    """The path; the second that a clip begins at as well, where several may lie in a file."""
    start = row.cells.get(config.start_column, "").strip()
    return row[config.path_column].strip() + (f"#{start}" if start else "")


def _path(config: Config, row: Row) -> Path:
    return row.table.parent / row[config.path_column].strip()


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
        return [row[config.label_column].strip()]
    parts = row.cells.get(config.labels_column, "").split(config.separator)
    return [label for part in parts if (label := part.strip())]


def _classes(config: Config, kind: Kind, rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(sorted({label for row in rows for label in _labels(config, kind, row)}))


def _target(config: Config, kind: Kind, classes: Sequence[str], row: Row) -> Target:
    if kind == "number":
        return row.number(config.label_column)
    places = sorted({classes.index(label) for label in _labels(config, kind, row)})
    return places[0] if kind == "single" else tuple(places)


def _example(config: Config, kind: Kind, classes: Sequence[str], row: Row) -> Example:
    start = _seconds(row, config.start_column) or 0.0
    end = _seconds(row, config.end_column)
    if end is not None and end <= start:
        raise row.wrong(f"the clip ends at {end:g} s, not after its start at {start:g} s", _MEND)
    return Example(
        key=_key(config, row),
        target=_target(config, kind, classes, row),
        path=_path(config, row),
        start_seconds=start,
        seconds=None if end is None else end - start,
        recording=row.cells.get(config.recording_column, "").strip() or None,
        speaker=row.cells.get(config.speaker_column, "").strip() or None,
    )


def _seconds(row: Row, column: str) -> float | None:
    if not row.cells.get(column, "").strip():
        return None
    seconds = row.number(column)
    if seconds < 0:
        raise row.wrong(f"its {column} is {seconds:g} s, before the file begins", _MEND)
    return seconds


def _split(config: Config, row: Row) -> str | None:
    told = row.cells.get(config.split_column, "").strip()
    if told and told.lower() not in SPLITS:
        raise row.wrong(
            f"its {config.split_column} is {told!r}, none of {', '.join(SPLITS)}",
            f"{_MEND}, or set task.split_column to another column (or one that is not there)",
        )
    return SPLITS.get(told.lower())


def _fold(config: Config, row: Row) -> int | None:
    if not row.cells.get(config.fold_column, "").strip():
        return None
    return row.whole(config.fold_column)


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
