"""A table of one's own: where it is, and what its cells say of splits, folds and seconds.

In:  ``--root``, and rows.
Out: the table's path; what a row tells, or None; errors that name the line or the key to change.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path

from sslaudio.data.corpora.tables import Row
from sslaudio.data.decode import DecodeError
from sslaudio.tasks.base import Example

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

MEND = "mend the table"
"""The cure of most."""

_MEASURING_HZ = 16_000


def find(root: Path) -> Path:
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


def check_column(rows: Sequence[Row], column: str, field: str) -> None:
    """Refuse a table without a column that is needed; ``field`` of the task names it."""
    if column not in rows[0].cells:
        raise ValueError(
            f"{rows[0].table} has no column {column!r}; it has {', '.join(rows[0].cells)}: set "
            f"task.{field} to the one of these that is meant"
        )


def seconds(row: Row, column: str) -> float | None:
    """Seconds into a file; None where the cell is empty or there is no such column."""
    if not row.text(column):
        return None
    told = row.number(column)
    if told < 0:
        raise row.wrong(f"its {column} is {told:g} s, before the file begins", MEND)
    return told


def split(row: Row, column: str) -> str | None:
    """One of the parts; None where the cell is empty or there is no such column."""
    told = row.text(column)
    if told and told.lower() not in SPLITS:
        raise row.wrong(
            f"its {column} is {told!r}, none of {', '.join(SPLITS)}",
            f"{MEND}, or set task.split_column to another column (or one that is not there)",
        )
    return SPLITS.get(told.lower())


def fold(row: Row, column: str) -> int | None:
    """The fold's number; None where the cell is empty or there is no such column."""
    if not row.text(column):
        return None
    return row.whole(column)


def nominal_seconds(examples: Sequence[Example]) -> float:
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
