"""A corpus's tables: rows that know their line, and one clear line for what is damaged.

In:  a CSV or TSV file and the columns that are needed.
Out: its rows. Empty lines are none; nor are lines that begin with ``#``, where a table has no
     head of its own.
"""

import csv
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sslaudio.data.corpora.base import warn_of_left_out

_CURE = "mend the table or restore the published one"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table, by column."""

    table: Path
    line: int
    """The number of its (last) line in the file."""
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def text(self, column: str) -> str:
        """Its cell without the blanks around it; empty where there is no such column."""
        return self.cells.get(column, "").strip()

    def wrong(self, words: str, cure: str = _CURE) -> ValueError:
        """The error that names the file, the line, what is wrong and what to do."""
        return ValueError(f"{self.table}, line {self.line}: {words}; {cure}")

    def whole(self, column: str, allowed: Collection[int] | None = None) -> int:
        """A whole number, of ``allowed`` where they are told."""
        text = self.cells[column].strip()
        number = int(text) if text.isascii() and text.isdecimal() else None
        if number is None or (allowed is not None and number not in allowed):
            among = f" of {min(allowed)} to {max(allowed)}" if allowed else ""
            raise self.wrong(f"its {column} is {text!r}, not a whole number{among}")
        return number

    def number(self, column: str) -> float:
        """A finite number."""
        try:
            number = float(self.cells[column])
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self.wrong(f"its {column} is {self.cells[column]!r}, not a number")
        return number


def read(table: Path, needed: Sequence[str] | None = None, head: Sequence[str] = ()) -> list[Row]:
    """The rows of a table that has the columns of ``needed``.

    Args:
        table: the file; ``.tsv`` is parted by tabs, any other name by commas.
        needed: columns that must be there, and that every row must reach to; None: all there are.
        head: the columns' names, where the file does not tell them in its first line; a line that
            begins with the first of them is no row.

    Raises:
        ValueError: a column is missing or there twice, a row ends early or has too many cells, a
            quote is never closed, there are no rows, or the file is no text; the message names
            file and line.
    """
    rows: list[Row] = []
    columns = list(head)
    delimiter = "\t" if table.suffix.lower() == ".tsv" else ","
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
            for cells in reader:
                if not any(cells) or (head and (cells[0].startswith("#") or cells[0] == head[0])):
                    continue
                if not columns:
                    columns = _columns(table, cells, needed or ())
                    continue
                rows.append(_row(table, reader.line_num, columns, cells, needed or columns))
    except UnicodeDecodeError as error:
        raise ValueError(f"{table} is no table in UTF-8 ({error}); {_CURE}") from error
    except csv.Error as error:
        last = rows[-1].line if rows else 1
        raise ValueError(
            f"{table}, after line {last}: {error} (a quote that is not closed?); {_CURE}"
        ) from error
    if not rows:
        raise ValueError(f"{table} lists no clips; {_CURE}")
    return rows


def unlike_before(rows: Iterable[Row], column: str) -> Iterable[tuple[str, Row]]:
    """Each row by its cell of ``column``; a second like the first is passed over.

    Raises:
        ValueError: two rows of one name differ.
    """
    before: dict[str, Row] = {}
    for row in rows:
        name = row[column]
        if before.setdefault(name, row) is row:
            yield name, row
        elif before[name].cells != row.cells:
            raise row.wrong(f"{name} is in line {before[name].line} too, and tells otherwise there")


def warn_of_unlisted(paths: Collection[Path], table: str) -> None:
    """Say how many sound files no row of ``table`` names, or another file serves for."""
    warn_of_left_out(paths, f"{table} does not name them or another file of the name serves")


def _columns(table: Path, cells: Sequence[str], needed: Sequence[str]) -> list[str]:
    columns = [cell.strip() for cell in cells]
    absent = [name for name in needed if name not in columns]
    if absent:
        raise ValueError(
            f"{table} lacks the column {absent[0]}; it has {', '.join(columns)}; {_CURE}"
        )
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice:
        raise ValueError(f"{table} has two columns {twice}; {_CURE}")
    return columns


def _row(
    table: Path, line: int, columns: Sequence[str], cells: Sequence[str], needed: Sequence[str]
) -> Row:
    row = Row(table, line, dict(zip(columns, cells, strict=False)))
    short = next((name for name in needed if name not in row.cells), None)
    if short:
        raise row.wrong(f"the row ends before its {short}")
    if any(cells[len(columns) :]):
        raise row.wrong(
            f"the row has {len(cells)} cells for {len(columns)} columns",
            "put a cell that holds a comma in quotes",
        )
    return row
