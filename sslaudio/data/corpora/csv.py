"""A table of one's own: a row a clip, with its path and what else is to be told of it.

In:  a CSV (or TSV) file, or a folder that holds ``labels.csv``, ``metadata.csv`` or one CSV alone.
     Columns: path (from the table's folder); and, where they are there, label or labels, split,
     fold, start, end, speaker, recording. They may be called otherwise.
Out: one clip a row with what the row tells. Several may lie in one file.

A row whose file is missing becomes a clip that the build rejects and lists.
"""

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sslaudio.data.corpora import own_table, tables
from sslaudio.data.corpora.base import Clip
from sslaudio.data.corpora.own_table import Columns
from sslaudio.data.corpora.tables import Row

LAYOUT = own_table.LAYOUT
"""What a table is known by."""
ROOT_MAY_BE_A_FILE = True


@dataclass(frozen=True)
class Config(Columns):
    """Whether a clip has one class, and what the columns are called."""

    target: Literal["auto", "single", "multi"] = "auto"
    """``single``: one class a clip. ``multi``: any number of them. ``auto``: by which of the two
    columns is there; without either, there are no labels."""


def recognises(root: Path) -> bool:
    """Whether this is a table, or a folder with one, whose columns are called as they are here."""
    try:
        table = own_table.find(root)
    except ValueError:
        return False
    with table.open(encoding="utf-8-sig", errors="replace") as file:
        head = file.readline().replace("\t", ",").split(",")
    return Columns.path_column in [cell.strip(' "\r\n') for cell in head]


def build(config: Config, root: Path) -> list[Clip]:
    """Every row's clip, sorted by path, start and length."""
    table = own_table.find(root)
    rows = tables.read(table)
    config.check(rows, "path_column")
    several = _has_several(config, rows)
    rows = own_table.once(config, rows)
    recordings = own_table.recordings(config, rows)
    paths = [config.path_of(row) for row in rows]
    sources = _sources(paths, table.parent)
    clips = [
        _clip(config, row, path, source, recording, several)
        for row, path, source, recording in zip(rows, paths, sources, recordings, strict=True)
    ]
    return _numbered(sorted(clips, key=_place))


def _has_several(config: Config, rows: Sequence[Row]) -> bool:
    """Whether clips have any number of classes, once the columns for them are there."""
    if config.target != "auto":
        field = "label_column" if config.target == "single" else "labels_column"
        config.check(rows, field)
        return config.target == "multi"
    there = rows[0].cells
    if config.label_column in there and config.labels_column in there:
        raise ValueError(
            f"{rows[0].table} has the columns {config.label_column} and {config.labels_column}; "
            f"set --target to single or multi to say which is told"
        )
    return config.labels_column in there


def _sources(paths: Sequence[Path], folder: Path) -> list[str]:
    """Paths from the table's folder; where one leads out of it, from the folder that holds all."""
    whole = [os.path.normpath(path.absolute()) for path in paths]
    top = os.path.normpath(folder.absolute())
    if any(os.path.commonpath([top, path]) != top for path in whole):
        top = os.path.commonpath([Path(path).parent for path in whole])
    return [Path(os.path.relpath(path, top)).as_posix() for path in whole]


def _clip(
    config: Config, row: Row, path: Path, source: str, recording: str | None, several: bool
) -> Clip:
    start, seconds = config.span_of(row)
    if recording == config.file_of(row):  # not told
        recording = source
    return Clip(
        path,
        source,
        label=None if several else row.text(config.label_column) or None,
        labels=config.labels_of(row) if several else (),
        split=config.split_of(row),
        fold=config.fold_of(row),
        recording=recording,
        speaker=config.speaker_of(row),
        start_seconds=start,
        seconds=seconds,
    )


def _place(clip: Clip) -> tuple[str, float, float]:
    return clip.source, clip.start_seconds, math.inf if clip.seconds is None else clip.seconds


def _numbered(clips: Sequence[Clip]) -> list[Clip]:
    """Those that share a file, told apart by their places in it."""
    counts = Counter(clip.source for clip in clips)
    seen: Counter[str] = Counter()
    numbered = []
    for clip in clips:
        if counts[clip.source] > 1:
            numbered.append(replace(clip, part=f"{seen[clip.source]:04d}"))
            seen[clip.source] += 1
        else:
            numbered.append(clip)
    return numbered
