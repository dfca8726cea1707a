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

from sslaudio.data.corpora import tables
from sslaudio.data.corpora.base import Clip, Download, Source, by_stem, comparable, is_sound_file

TABLE = "meta/esc50.csv"
ATTRIBUTION = "meta/attribution.csv"
LICENCE = "CC BY-NC 3.0"
"""Of ESC-50 as a whole, where no table tells it clip by clip."""
FOLDS = range(1, 6)
"""As published."""

LAYOUT = TABLE
"""What a folder is known by."""
RECORDINGS = "freesound"
"""Recordings are ids of Freesound uploads."""

_COMMIT = "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6"
DOWNLOADS = (
    Download(
        "",
        # GitHub packs it anew for everyone, and its bytes change: of this commit, two MD5s are in
        # use. So its sounds are counted.
        (Source(f"https://github.com/karolpiczak/ESC-50/archive/{_COMMIT}.zip", 647_000_000),),
        unpacked_bytes=890_000_000,  # 2,000 clips of 441,044 bytes
        inside=f"ESC-50-{_COMMIT}",
        sounds=2_000,
    ),
)
"""One archive, of a commit."""

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
    rows = tables.read(table, _COLUMNS)
    paths = sorted(path for path in root.glob("audio/*") if is_sound_file(path))
    files = by_stem(paths)
    licences = _read_licences(root / ATTRIBUTION)
    clips = [_clip(row, root, files, licences) for _, row in tables.unlike_before(rows, "filename")]
    tables.warn_of_unlisted(set(paths) - {clip.path for clip in clips}, TABLE)
    return sorted(clips, key=lambda clip: clip.source)


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
        return {
            Path(comparable(row["filename"])).stem: row["licence"]
            for row in reader
            if row["licence"]
        }


def _clip(
    row: tables.Row,
    root: Path,
    files: dict[str, Path],
    licences: dict[str, str],
) -> Clip:
    empty = next((column for column in ("filename", "category") if not row.text(column)), None)
    if empty:
        raise row.wrong(f"its {empty} is empty")
    name = Path(comparable(row["filename"]))
    path = files.get(name.stem, root / "audio" / name.name)
    return Clip(
        path,
        path.relative_to(root).as_posix(),
        label=row["category"],
        fold=row.whole("fold", FOLDS),
        recording=row["src_file"],
        licence=licences.get(name.stem, LICENCE),
        subsets=("esc10",) if row.text("esc10").lower() == "true" else (),
    )
