"""FSD50K (Fonseca et al. 2022, arXiv:2010.00475).

In:  ``FSD50K.ground_truth/{dev,eval,vocabulary}.csv`` and ``FSD50K.{dev,eval}_audio/``, of any
     suffix (published as WAV); ``FSD50K.metadata/{dev,eval}_clips_info_FSD50K.json`` with a
     licence a clip, if there.
Out: one clip a row with its classes by the vocabulary's display names, its split (dev trains and
     validates as published, eval tests) and its Freesound id as recording.

A row whose file is missing becomes a clip that the build rejects and lists.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

from sslaudio.data.corpora import tables
from sslaudio.data.corpora.base import Clip, by_stem, comparable, is_sound_file

GROUND_TRUTH = "FSD50K.ground_truth"
PARTS = ("dev", "eval")
SPLITS = {"train": "train", "val": "validation"}
"""Split of the dev table to ours."""
LAYOUT = f"{GROUND_TRUTH}/dev.csv and vocabulary.csv"
"""What a folder is known by."""

_COLUMNS = ("fname", "labels", "mids")


@dataclass(frozen=True)
class Config:
    """Nothing to choose: the corpus tells all."""


def recognises(root: Path) -> bool:
    """Whether a folder is this corpus as published."""
    return any((root / GROUND_TRUTH / f"{part}.csv").is_file() for part in PARTS)


def build(config: Config, root: Path) -> list[Clip]:
    """Every clip of both tables, or of the one that is there; sorted by path."""
    there = [part for part in PARTS if (root / GROUND_TRUTH / f"{part}.csv").is_file()]
    if not there:
        raise ValueError(
            f"{root} is not FSD50K: looked for {LAYOUT}; set --root to the folder that holds "
            f"{GROUND_TRUTH}/ and FSD50K.dev_audio/"
        )
    if len(there) < len(PARTS):
        absent = ", ".join(sorted(set(PARTS) - set(there)))
        warnings.warn(
            f"{root / GROUND_TRUTH} has no {absent}.csv: that part is left out", stacklevel=2
        )
    names = _vocabulary(root / GROUND_TRUTH / "vocabulary.csv")
    clips = [clip for part in there for clip in _part(root, part, names)]
    return sorted(clips, key=lambda clip: clip.source)


def _vocabulary(table: Path) -> dict[str, str]:
    """Display name by machine id; the published file has no head line."""
    if not table.is_file():
        raise ValueError(
            f"{table} is missing, and it tells the classes' names; restore it from FSD50K's "
            f"ground truth"
        )
    rows = tables.read(table, ("label", "mid"), head=("index", "label", "mid"))
    return {row["mid"]: row["label"] for row in rows if row["index"] != "index"}


def _part(root: Path, part: str, names: dict[str, str]) -> list[Clip]:
    table = root / GROUND_TRUTH / f"{part}.csv"
    rows = tables.read(table, (*_COLUMNS, "split") if part == "dev" else _COLUMNS)
    paths = sorted(path for path in root.glob(f"FSD50K.{part}_audio/*") if is_sound_file(path))
    files = by_stem(paths)
    licences = _licences(root / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json")
    clips = []
    for name, row in tables.unlike_before(rows, "fname"):
        path = files.get(comparable(name), root / f"FSD50K.{part}_audio" / f"{name}.wav")
        clips.append(
            Clip(
                path,
                path.relative_to(root).as_posix(),
                labels=_labels(row, names),
                split=_split(row) if part == "dev" else "test",
                recording=name,
                licence=licences.get(name),
            )
        )
    tables.warn_of_unlisted(
        set(paths) - {clip.path for clip in clips}, f"{GROUND_TRUTH}/{part}.csv"
    )
    return clips


def _labels(row: tables.Row, names: dict[str, str]) -> tuple[str, ...]:
    """By machine id: names may hold commas, which also part them."""
    if not row["fname"] or not row["mids"]:
        raise row.wrong(f"its {'mids' if row['fname'] else 'fname'} is empty")
    mids = [mid.strip() for mid in row["mids"].split(",")]
    unknown = [mid for mid in mids if mid not in names]
    if unknown:
        raise row.wrong(f"its class {unknown[0]!r} of {row['labels']!r} is not in vocabulary.csv")
    return tuple(dict.fromkeys(names[mid] for mid in mids))


def _split(row: tables.Row) -> str:
    if row["split"] not in SPLITS:
        raise row.wrong(f"its split is {row['split']!r}, neither {' nor '.join(SPLITS)}")
    return SPLITS[row["split"]]


def _licences(file: Path) -> dict[str, str]:
    """Licence of each clip; none where the file is not there, or is another."""
    if not file.is_file():
        return {}
    try:
        told = json.loads(file.read_text(encoding="utf-8-sig"))
        return {name: str(clip["license"]) for name, clip in told.items() if clip["license"]}
    except (ValueError, TypeError, KeyError, AttributeError):
        warnings.warn(f"{file} does not tell a license a clip: none is given", stacklevel=4)
        return {}
