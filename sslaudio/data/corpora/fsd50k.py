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
from sslaudio.data.corpora.base import Clip, Download, Source, by_stem, comparable, is_sound_file

GROUND_TRUTH = "FSD50K.ground_truth"
PARTS = ("dev", "eval")
SPLITS = {"train": "train", "val": "validation"}
"""Split of the dev table to ours."""
LICENCE = "CC BY 4.0 as a whole; each clip CC0, CC BY, CC BY-NC or CC Sampling+"
LAYOUT = f"{GROUND_TRUTH}/dev.csv and vocabulary.csv"
"""What a folder is known by."""
RECORDINGS = "freesound"
"""Recordings are ids of Freesound uploads."""


def _file(name: str, size_bytes: int, md5: str) -> Source:
    url = f"https://zenodo.org/records/4060432/files/FSD50K.{name}?download=1"
    return Source(url, size_bytes, f"md5:{md5}")


_VOLUME = 3 << 30
# MD5: Zenodo's, as in soundata 1.0, soundata/datasets/fsd50k.py. Sizes: two public programs that
# fetch these files tell the same.
DOWNLOADS = (
    Download(
        "",
        (_file("ground_truth.zip", 334_701, "ca27382c195e37d2269c4c866dd73485"),),
        unpacked_bytes=6_000_000,
    ),
    Download(
        "",
        (_file("metadata.zip", 6_700_838, "b9ea0c829a411c1d42adb9da539ed237"),),
        unpacked_bytes=60_000_000,
    ),
    Download(
        "dev",
        (
            _file("dev_audio.z01", _VOLUME, "faa7cf4cc076fc34a44a479a5ed862a3"),
            _file("dev_audio.z02", _VOLUME, "8f9b66153e68571164fb1315d00bc7bc"),
            _file("dev_audio.z03", _VOLUME, "1196ef47d267a993d30fa98af54b7159"),
            _file("dev_audio.z04", _VOLUME, "d088ac4e11ba53daf9f7574c11cccac9"),
            _file("dev_audio.z05", _VOLUME, "81356521aa159accd3c35de22da28c7f"),
            _file("dev_audio.zip", 2_306_663_327, "c480d119b8f7a7e32fdb58f3ea4d6c5a"),
        ),
        unpacked_bytes=25_600_000_000,  # 80.4 hours
    ),
    Download(
        "eval",
        (
            _file("eval_audio.z01", _VOLUME, "3090670eaeecc013ca1ff84fe4442aeb"),
            _file("eval_audio.zip", 3_037_675_767, "6fa47636c3a3ad5c7dfeba99f2637982"),
        ),
        unpacked_bytes=8_900_000_000,  # 27.9 hours
    ),
)
"""Tables come with either part."""

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
    return {row["mid"]: row["label"] for row in rows}


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
