"""A table of one's own: where it is, what its columns are called, what its rows tell.

In:  ``--root``, the names of the columns, rows.
Out: the table's path; of a row its file, seconds, labels, split, fold; errors that name the line,
     or the key that says otherwise.

Serves the corpus ``csv`` and the task ``csv``.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from sslaudio.data.corpora.base import comparable
from sslaudio.data.corpora.tables import Row

TABLES = ("labels.csv", "metadata.csv")
"""Names that a folder's table is known by where it holds several."""
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Names of splits, in any case of letters."""
LAYOUT = f"a CSV or TSV file, or a folder with one alone or with {' or '.join(TABLES)}"
"""What a table is known by."""
MEND = "mend the table"
"""The cure of most."""


@dataclass(frozen=True)
class Columns:
    """What the columns are called, and what a row tells by them."""

    KEY: ClassVar[str] = "--{flag}"
    """How a person sets a field: with ``{flag}`` or ``{field}`` for its name."""

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

    def key(self, field: str) -> str:
        """What sets a field: a flag, or a key of a recipe."""
        return self.KEY.format(field=field, flag=field.replace("_", "-"))

    def check(self, rows: Sequence[Row], field: str) -> None:
        """Refuse a table without the column that ``field`` names."""
        column = getattr(self, field)
        if column not in rows[0].cells:
            raise ValueError(
                f"{rows[0].table} has no column {column!r}; it has {', '.join(rows[0].cells)}: set "
                f"{self.key(field)} to the one of these that is meant"
            )

    def file_of(self, row: Row) -> str:
        """The path, written one way: ``./a.wav`` and ``a.wav`` are one file."""
        return Path(os.path.normpath(row.text(self.path_column))).as_posix()

    def path_of(self, row: Row) -> Path:
        """Where the file is; its accents may be written otherwise there than in the table."""
        return _as_spelt(row.table.parent / row.text(self.path_column))

    def place_of(self, row: Row) -> str:
        """The file, and the seconds between which the clip lies, where it is not all of it."""
        start, end = (self._seconds(row, name) for name in (self.start_column, self.end_column))
        if not start and end is None:
            return self.file_of(row)
        return f"{self.file_of(row)}#{start or 0.0}-{'' if end is None else end}"

    def span_of(self, row: Row) -> tuple[float, float | None]:
        """Where in its file the clip begins, and how long it is; None is to the file's end."""
        start = self._seconds(row, self.start_column) or 0.0
        end = self._seconds(row, self.end_column)
        if end is not None and end <= start:
            raise row.wrong(f"the clip ends at {end:g} s, not after its start at {start:g} s", MEND)
        return start, None if end is None else end - start

    def labels_of(self, row: Row) -> tuple[str, ...]:
        """Several classes, as they stand in the table; each once."""
        parts = row.text(self.labels_column).split(self.separator)
        return tuple(dict.fromkeys(label for part in parts if (label := part.strip())))

    def split_of(self, row: Row) -> str | None:
        """One of the parts; None where the cell is empty or there is no such column."""
        told = row.text(self.split_column)
        if told and told.lower() not in SPLITS:
            raise row.wrong(
                f"its {self.split_column} is {told!r}, none of {', '.join(SPLITS)}",
                f"{MEND}, or set {self.key('split_column')} to another column (or one that is not "
                f"there)",
            )
        return SPLITS.get(told.lower())

    def fold_of(self, row: Row) -> int | None:
        """The fold's number; None where the cell is empty or there is no such column."""
        return row.whole(self.fold_column) if row.text(self.fold_column) else None

    def speaker_of(self, row: Row) -> str | None:
        """Who speaks."""
        return row.text(self.speaker_column) or None

    def _seconds(self, row: Row, column: str) -> float | None:
        if not row.text(column):
            return None
        told = row.number(column)
        if told < 0:
            raise row.wrong(f"its {column} is {told:g} s, before the file begins", MEND)
        return told


def find(root: Path) -> Path:
    """The table that ``--root`` is, or that the folder holds."""
    if root.is_file():
        return root
    if not root.is_dir():
        raise ValueError(f"there is no {root}; set --root to a CSV file or the folder that has one")
    found = sorted(path for path in root.iterdir() if _is_table(path))
    known = [path for name in TABLES for path in found if path.name.lower() == name]
    if not known and len(found) != 1:
        holds = f"holds {', '.join(path.name for path in found)}" if found else "holds no CSV file"
        raise ValueError(
            f"{root} {holds}: looked for {LAYOUT}; set --root to the table itself, or name it "
            f"{' or '.join(TABLES)}"
        )
    return (known or found)[0]


def once(columns: Columns, rows: Sequence[Row]) -> list[Row]:
    """Each clip once, with a warning of the lines that repeat another.

    Raises:
        ValueError: a line names no file, or two tell of one clip otherwise.
    """
    first: dict[str, Row] = {}
    for row in rows:
        if not row.text(columns.path_column):
            raise row.wrong(f"its {columns.path_column} is empty", MEND)
        place = os.path.normpath(row.table.parent.absolute() / columns.place_of(row))
        other = first.setdefault(place, row)
        if _told(columns, other) != _told(columns, row):
            raise row.wrong(
                f"{columns.place_of(row)} is in line {other.line} too, and tells otherwise there",
                MEND,
            )
    if len(first) < len(rows):
        warnings.warn(
            f"{rows[0].table}: {len(rows) - len(first)} lines that repeat another are left out",
            stacklevel=4,
        )
    return list(first.values())


def recordings(columns: Columns, rows: Sequence[Row]) -> list[str | None]:
    """What each clip was cut from; its file, where some are told or a file holds several."""
    told = [row.text(columns.recording_column) for row in rows]
    files = [columns.file_of(row) for row in rows]
    if not any(told) and len(set(files)) == len(files):
        return [None] * len(rows)
    return [recording or file for recording, file in zip(told, files, strict=True)]


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".tsv") and not path.name.startswith(".")


def _told(columns: Columns, row: Row) -> dict[str, str]:
    """What a row tells besides its place, which may be written in several ways."""
    place = (columns.path_column, columns.start_column, columns.end_column)
    return {column: cell for column, cell in row.cells.items() if column not in place}


def _as_spelt(path: Path) -> Path:
    """The path as the file system has it, where accents are written otherwise there."""
    if str(path).isascii() or path.exists() or path.parent == path:
        return path
    folder = _as_spelt(path.parent)
    if not folder.is_dir():
        return path
    return folder / _names(folder, folder.stat().st_mtime_ns).get(comparable(path.name), path.name)


@lru_cache(maxsize=64)
def _names(folder: Path, changed_ns: int) -> dict[str, str]:
    """Names in a folder, unchanged since, by how they are compared."""
    return {comparable(path.name): path.name for path in folder.iterdir()}
