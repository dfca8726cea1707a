"""UrbanSound8K (Salamon, Jacoby and Bello 2014, doi:10.1145/2647868.2655045).

In:  ``metadata/UrbanSound8K.csv`` and the files it lists in ``audio/fold1`` to ``fold10``, of any
     suffix (published as WAV).
Out: one clip a row with its class, fold and Freesound id as recording.

The corpus has folds and no splits, so its clips have none, and pretraining on ``train`` takes
them all. A row whose file is missing becomes a clip that the build rejects and lists.
"""

from dataclasses import dataclass
from pathlib import Path

from sslaudio.data.corpora import tables
from sslaudio.data.corpora.base import Clip, Download, Source, by_stem, comparable, is_sound_file

TABLE = "metadata/UrbanSound8K.csv"
LICENCE = "CC BY-NC 3.0"
FOLDS = range(1, 11)
"""As published."""
LAYOUT = TABLE
"""What a folder is known by."""
RECORDINGS = "freesound"
"""Recordings are ids of Freesound uploads."""

DOWNLOADS = (
    Download(
        "",
        (
            Source(
                "https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz?download=1",
                6_023_741_708,
                # Zenodo's, as in soundata 1.0, soundata/datasets/urbansound8k.py.
                "md5:9aa69802bbf37fb986f71ec1483a196e",
            ),
        ),
        unpacked_bytes=7_200_000_000,
        inside="UrbanSound8K",
    ),
)
"""One archive."""

_COLUMNS = ("slice_file_name", "fsID", "fold", "class")


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
            f"{root} is not UrbanSound8K: looked for {TABLE}; set --root to the folder that holds "
            f"audio/ and metadata/"
        )
    rows = tables.read(table, _COLUMNS)
    paths = sorted(path for path in root.glob("audio/fold*/*") if is_sound_file(path))
    files = {
        folder.name: by_stem(path for path in paths if path.parent == folder)
        for folder in {path.parent for path in paths}
    }
    clips = [_clip(row, root, files) for _, row in tables.unlike_before(rows, "slice_file_name")]
    tables.warn_of_unlisted(set(paths) - {clip.path for clip in clips}, TABLE)
    return sorted(clips, key=lambda clip: clip.source)


def _clip(row: tables.Row, root: Path, files: dict[str, dict[str, Path]]) -> Clip:
    fold = row.whole("fold", FOLDS)
    empty = next((column for column in _COLUMNS if not row[column]), None)
    if empty:
        raise row.wrong(f"its {empty} is empty")
    name = Path(comparable(row["slice_file_name"]))
    absent = root / "audio" / f"fold{fold}" / name.name
    path = files.get(f"fold{fold}", {}).get(name.stem, absent)
    return Clip(
        path,
        path.relative_to(root).as_posix(),
        label=row["class"],
        fold=fold,
        recording=row["fsID"],
        licence=LICENCE,
    )
