"""Compare the runs below a folder: state, loss, score, time, and the settings that differ.

    sslaudio runs runs --sort score --csv runs.csv

Pretraining and fine-tuning have a table each. Of the recipe only the leaves are shown that differ
between the runs of a table that have them.
"""

import argparse
import csv
import io
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslaudio import config as configs
from sslaudio.downstream import results
from sslaudio.training import runs, storage
from sslaudio.training.summary import progress

DEPTH = 4
"""Folders below DIR that are looked into."""
COLUMNS = ("run", "state", "step", "loss", "score", "of", "minutes")
LOWEST_FIRST = ("run", "state", "of", "loss", "minutes")
"""Of the columns; by any other the highest comes first."""


@dataclass
class Row:
    """One run; None is what it has not told."""

    run: str
    """Its folder, from DIR on."""
    kind: str
    """``pretrain`` or ``finetune``."""
    state: str = "empty"
    """``finished``, ``running``, ``stopped``, ``empty`` or ``damaged``."""
    step: int | None = None
    """Steps taken; epochs of a fine-tuning."""
    steps: int | None = None
    """That it is to take."""
    loss: float | None = None
    """The last."""
    score: float | None = None
    """Best kNN probe, or mean test score over folds and seeds; 0 to 1."""
    of: str | None = None
    """What the score is of."""
    minutes: float | None = None
    """Of work, before a resume too."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """Its leaves by dotted name."""
    trouble: str | None = None
    """What is damaged."""

    def cell(self, name: str) -> Any:
        """What stands in a column: a field, else a leaf of the recipe."""
        return getattr(self, name) if name in self.__dataclass_fields__ else self.recipe.get(name)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's flags."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="runs, at any depth down to four")
    parser.add_argument(
        "--sort", metavar="COLUMN", default="run", help="column, or leaf of the recipe, to sort by"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all there is, recipes too")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table, scores 0 to 1")


def main(args: argparse.Namespace) -> int:
    """Print the tables; gives the exit status."""
    rows = found(args.folder)
    _sort(rows, args.sort)
    if args.json:
        storage.write_text(args.json, json.dumps([vars(row) for row in rows], indent=2) + "\n")
    if args.csv:
        storage.write_text(args.csv, _csv(rows))
    for kind in ("pretrain", "finetune"):
        some = [row for row in rows if row.kind == kind]
        if some:
            sys.stdout.write(f"{kind}\n{table(some)}\n")
    for row in rows:
        if row.trouble:
            sys.stdout.write(f"damaged: {row.run}: {row.trouble}\n")
    return 0


def found(folder: Path) -> list[Row]:
    """The runs below a folder, by name; imported weights are none.

    Raises:
        ValueError: there are none.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; give one with runs in it")
    rows = [_row(run, folder) for run in _runs(folder, DEPTH)]
    if not rows:
        raise ValueError(
            f"there is no run in {folder} (a folder with a recipe.yaml) nor {DEPTH} folders below; "
            f"give the folder that --out named, or one above it"
        )
    return rows


def differing(rows: Sequence[Row]) -> list[str]:
    """Leaves that are not the same in all runs that have them, in the order of the recipe."""
    values: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.recipe.items():
            values.setdefault(name, set()).add(json.dumps(value))
    return [name for name, told in values.items() if len(told) > 1]


def table(rows: Sequence[Row]) -> str:
    """A line a run, columns in line; scores in %."""
    leaves = differing(rows)
    head = [*COLUMNS, *_shortened(leaves)]
    body = [[_shown(row, name) for name in (*COLUMNS, *leaves)] for row in rows]
    widths = [max(len(line[place]) for line in (head, *body)) for place in range(len(head))]
    lines = [head, ["-" * width for width in widths], *body]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _runs(folder: Path, depth: int) -> Iterator[Path]:
    """Folders that are runs, or were; what is below a run is its own."""
    if (folder / "recipe.yaml").is_file() or (folder / "metrics.jsonl").is_file():
        yield folder
    elif depth and not (folder / runs.CONFIG).is_file():
        for inner in sorted(folder.iterdir()):
            if inner.is_dir() and not inner.is_symlink() and not inner.name.startswith("."):
                yield from _runs(inner, depth - 1)


def _row(run: Path, folder: Path) -> Row:
    name = run.name if run == folder else str(run.relative_to(folder))
    row = Row(name, "finetune" if (run / "results.json").is_file() else "pretrain")
    try:
        recipe = configs.read_yaml(run / "recipe.yaml")
        row.kind = "finetune" if "task" in recipe else "pretrain"
        row.recipe = dict(_leaves(recipe))
        _fill(row, run)
    except (ValueError, OSError) as error:
        row.state, row.trouble = "damaged", " ".join(str(error).split())
    return row


def _fill(row: Row, run: Path) -> None:
    """What the run has told of itself."""
    now = progress(run)
    row.step, row.loss = now.step, now.loss
    row.minutes = round(now.seconds / 60, 2)
    if row.kind == "pretrain":
        row.steps = now.steps
        finished = now.steps is not None and now.kept is not None and now.kept >= now.steps
        if now.probe is not None:
            row.score, row.of = now.probe[1], f"kNN at {now.probe[0]}"
    else:
        row.steps = row.recipe.get("training.epochs") if now.step else None
        finished = (run / "results.json").is_file()
    begun = bool(now.step) or now.kept is not None
    row.state = "finished" if finished else "stopped" if begun else "empty"
    if runs.is_held(run):
        row.state = "running"
    if row.kind == "finetune" and finished:
        _score(row, results.read(run / "results.json"))


def _score(row: Row, records: Sequence[results.Record]) -> None:
    if not records:
        raise ValueError("its results.json holds no record; run sslaudio finetune again")
    row.score = statistics.fmean(record.test for record in records)
    folds = f", {len(records)} folds" if len(records) > 1 else ""
    row.of = f"{records[0].task} {records[0].protocol}{folds}"
    row.minutes = round(sum(record.seconds for record in records) / 60, 2)


def _leaves(values: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every leaf; plug-ins in a list go by their names."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _leaves(value, f"{where}.{key}" if where else str(key))
    elif isinstance(values, list) and any(isinstance(one, Mapping) for one in values):
        named = [one for one in values if isinstance(one, Mapping)]
        yield where, [one.get("name") for one in named]
        for one in named:
            inner = {key: value for key, value in one.items() if key != "name"}
            yield from _leaves(inner, f"{where}.{one.get('name')}")
    else:
        yield where, values


def _sort(rows: list[Row], column: str) -> None:
    """By a column, rows that have nothing there last.

    Raises:
        ValueError: no run has such a column.
    """
    leaves = {name for row in rows for name in row.recipe}
    if column not in (*COLUMNS, *leaves):
        near = [name for name in sorted(leaves) if name.endswith(f".{column}")]
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"--sort is {column!r}; {hint}give one of {', '.join(COLUMNS)}, or a leaf of the recipe"
        )
    told = [row for row in rows if row.cell(column) is not None]
    untold = [row for row in rows if row.cell(column) is None]
    numbers = all(isinstance(row.cell(column), int | float) for row in told)
    falls = column not in LOWEST_FIRST and column in COLUMNS
    told.sort(key=lambda row: row.cell(column) if numbers else str(row.cell(column)), reverse=falls)
    rows[:] = told + untold


def _shortened(names: Sequence[str]) -> list[str]:
    """Last words of dotted names, as many as tell them apart."""
    short = []
    for name in names:
        words = name.split(".")
        ends = [".".join(words[-count:]) for count in range(1, len(words) + 1)]
        alone = (
            end for end in ends if sum(f".{other}".endswith(f".{end}") for other in names) == 1
        )
        short.append(next(alone, name))
    return short


def _shown(row: Row, column: str) -> str:
    value = row.cell(column)
    if column == "step" and value is not None and row.steps is not None:
        return f"{value}/{row.steps}"
    if value is None:
        return "-"
    if column == "score":
        return f"{100 * value:.1f}"
    if column == "loss":
        return f"{value:.3f}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ",".join(str(one) for one in value) or "none"
    return str(value)


def _csv(rows: Sequence[Row]) -> str:
    leaves = differing(rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ("kind", *COLUMNS[:3], "steps", *COLUMNS[3:], *leaves)
    writer.writerow(columns)
    for row in rows:
        cells = (row.cell(name) for name in columns)
        writer.writerow(
            json.dumps(cell) if isinstance(cell, list | dict | bool) else cell for cell in cells
        )
    return text.getvalue()
