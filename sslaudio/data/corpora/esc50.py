"""ESC-50 and its part ESC-10 (Piczak 2015, doi:10.1145/2733373.2806390).

In:  ``meta/esc50.csv`` and the files it lists in ``audio/``, of any suffix (published as WAV);
     ``meta/attribution.csv`` with a licence a clip, if there.
Out: one clip a row with its category, fold, Freesound id as recording, and ``esc10`` among its
     subsets where it belongs to that part.

The corpus has folds and no splits, so its clips have none, and pretraining on ``train`` takes
them all. A row whose file is missing becomes a clip that the build rejects and lists.
"""

import csv
import warnings
from dataclasses import dataclass
from pathlib import Path

from sslaudio.data.corpora.base import Clip, is_sound_file

TABLE = "meta/esc50.csv"
ATTRIBUTION = "meta/attribution.csv"
LICENCE = "CC BY-NC 3.0"
"""Of ESC-50 as a whole, where no table tells it clip by clip."""

LAYOUT = TABLE
"""What a folder is known by."""

_COLUMNS = ("filename", "fold", "category", "esc10", "src_file")
_LICENCE_COLUMNS = ("filename", "licence")


@dataclass(frozen=True)
class Config:
    """Nothing to choose: the corpus tells all."""


def recognises(root: Path) -> bool:
    """Whether a folder is this corpus as published."""
    return (root / TABLE).is_file()


def build(config: Config, root: Path) -> list[Clip]:
    """Every clip of the table, sorted by path."""
    table = root / TABLE
    if not table.is_file():
        raise ValueError(
            f"{root} is not ESC-50: looked for {TABLE}; set --root to the folder that holds "
            f"audio/ and meta/"
        )
    rows = _read_rows(table)
    files = {path.stem: path for path in sorted(root.glob("audio/*")) if is_sound_file(path)}
    licences = _read_licences(root / ATTRIBUTION)
    clips = [_clip(stem, row, root, files, licences) for stem, row in rows.items()]
    unlisted = sorted(set(files) - set(rows))
    if unlisted:
        warnings.warn(
            f"{len(unlisted)} files of {root / 'audio'} are not in {TABLE} and are left out, "
            f"the first is {files[unlisted[0]].name}",
            stacklevel=2,
        )
    return sorted(clips, key=lambda clip: clip.source)


def _read_rows(table: Path) -> dict[str, dict[str, str]]:
    """Rows by file name without suffix."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        absent = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if absent:
            raise ValueError(f"{table} lacks the column {absent[0]}; it needs {_COLUMNS}")
        rows: dict[str, dict[str, str]] = {}
        for row in reader:
            short = next((name for name in _COLUMNS if row[name] is None), None)
            if short:
                raise ValueError(
                    f"{table}, line {reader.line_num}: the row ends before its {short}; mend it "
                    f"or restore the published table"
                )
            if not row["fold"].isdecimal():
                raise ValueError(f"{table}, line {reader.line_num}: fold {row['fold']!r}")
            stem = Path(row["filename"]).stem
            if rows.setdefault(stem, row) != row:
                raise ValueError(f"{table} has two different rows for {row['filename']}")
    if not rows:
        raise ValueError(f"{table} lists no clips")
    return rows


def _read_licences(table: Path) -> dict[str, str]:
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        absent = [name for name in _LICENCE_COLUMNS if name not in (reader.fieldnames or ())]
        if absent:
            warnings.warn(
                f"{table} lacks the column {absent[0]}: every clip is given the corpus's licence, "
                f"{LICENCE}",
                stacklevel=3,
            )
            return {}
        return {Path(row["filename"]).stem: row["licence"] for row in reader if row["licence"]}


def _clip(
    stem: str,
    row: dict[str, str],
    root: Path,
    files: dict[str, Path],
    licences: dict[str, str],
) -> Clip:
    path = files.get(stem, root / "audio" / Path(row["filename"]).name)
    return Clip(
        path,
        path.relative_to(root).as_posix(),
        label=row["category"],
        fold=int(row["fold"]),
        recording=row["src_file"],
        licence=licences.get(stem, LICENCE),
        subsets=("esc10",) if row["esc10"].strip().lower() == "true" else (),
    )
