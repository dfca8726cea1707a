"""AudioSet (Gemmeke et al. 2017, doi:10.1109/ICASSP.2017.7952261): ten-second cuts of YouTube.

In:  ``{balanced_train,unbalanced_train,eval}_segments.csv``, ``class_labels_indices.csv``, and
     sound anywhere below ``audio/PART/`` or ``PART/`` (or ``audio/`` alone, for all parts), already
     cut to its segment, named ``YTID``, ``YYTID`` or ``YTID_START_END``, with the suffix of any
     kind of sound that is read.
Out: one clip a row with its classes by display name, its part among its subsets, and its
     YouTube id as recording; eval tests, the others train.

A part is there where both its table and its folder are. AudioSet is never whole: a row whose file
is missing becomes a clip that the build rejects and lists.

``fraction`` chooses among the rows of both training parts by a keyed hash of the YouTube id alone,
so that neither missing files nor the other rows change what is chosen.
"""

import hashlib
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sslaudio.data.corpora import tables
from sslaudio.data.corpora.base import Clip, sound_files, warn_of_unread

CHOSEN = "chosen.txt"
"""Where a fraction was asked for, the YouTube ids that it chose: one a line, sorted, those whose
file is missing too."""
PARTS = {"balanced_train": "train", "unbalanced_train": "train", "eval": "test"}
"""Published part to the split of its clips."""
FOLDERS = {
    "balanced_train": ("balanced_train", "balanced_train_segments", "bal_train", "balanced"),
    "unbalanced_train": (
        "unbalanced_train",
        "unbalanced_train_segments",
        "unbal_train",
        "unbalanced",
    ),
    "eval": ("eval", "eval_segments"),
}
"""Published part to the names of folders with its sound, of which the publisher gives none."""
CLASSES = "class_labels_indices.csv"
LAYOUT = f"{CLASSES}, PART_segments.csv and audio/PART/ (PART one of {', '.join(PARTS)})"
"""What a folder is known by."""
RECORDINGS = "youtube"
"""Recordings are ids of YouTube videos."""

LICENCE = "tables CC BY 4.0; the sound is its uploaders'"
STEPS = """\
AudioSet's tables may be fetched by anyone; nobody may pass on its sound, which lies on YouTube.
1. The tables:
     mkdir -p DIR && cd DIR
     for table in class_labels_indices balanced_train_segments eval_segments \\
         unbalanced_train_segments; do
       curl -L -C - -O https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/$table.csv
     done
2. The sound, with yt-dlp and ffmpeg (pip install yt-dlp; YouTube's terms are yours to keep), a part
   at a time: balanced_train, eval, unbalanced_train. It goes on where it was stopped:
     part=balanced_train; mkdir -p audio/$part
     grep -v '^#' ${part}_segments.csv | tr -d ' ' | while IFS=, read -r id start end labels; do
       yt-dlp -q -f bestaudio -x --audio-format flac --no-overwrites --force-keyframes-at-cuts \\
         --download-sections "*$start-$end" -o "audio/$part/%(id)s.%(ext)s" \\
         -- "https://www.youtube.com/watch?v=$id" </dev/null
     done
   Many videos are gone. A copy that a colleague has serves as well: files named YTID below
   audio/balanced_train/, audio/eval/ and audio/unbalanced_train/.
3. sslaudio shards build --corpus audioset --root DIR --out shards/audioset --max-rejected 0.3
"""

_HEAD = ("YTID", "start_seconds", "end_seconds", "positive_labels")
_NAME = re.compile(r"Y?(?P<id>[A-Za-z0-9_-]{11})(_[0-9.]+){0,2}")


@dataclass(frozen=True)
class Config:
    """Which parts, and how much of the training parts."""

    subset: Literal["all", "20k", "balanced_train", "unbalanced_train", "eval"] = "all"
    """``all``: the parts that are there. ``20k``: balanced_train and eval. Or one of them."""
    fraction: float = 1.0
    """Share of the training parts' clips, above 0 up to 1; eval is taken whole. 0.1 for the tenth
    that the papers train on."""
    seed: int = 0
    """Of the fraction: another one chooses other clips."""

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(
                f"--fraction is {self.fraction:g}; it is a share of the training clips, above 0 up "
                f"to 1: 0.1 for a tenth"
            )
        if self.fraction < 1 and self.subset == "eval":
            raise ValueError(
                f"--fraction is {self.fraction:g}, but eval, the --subset, is never thinned; leave "
                f"one of them out"
            )
        if self.fraction == 1 and self.seed:
            raise ValueError(
                f"--seed is {self.seed}, but chooses nothing where all clips are taken; set "
                f"--fraction below 1, or leave --seed out"
            )

    def parts(self) -> tuple[str, ...]:
        """Names of the published parts."""
        if self.subset == "20k":
            return ("balanced_train", "eval")
        return tuple(part for part in PARTS if self.subset in ("all", part))


def recognises(root: Path) -> bool:
    """Whether a folder is this corpus as published."""
    return (root / CLASSES).is_file() and any(_table(root, part).is_file() for part in PARTS)


def build(config: Config, root: Path) -> list[Clip]:
    """Every clip of the parts asked for that are there, sorted by path."""
    names = _class_names(root)
    folders = {part: _folders(root, part) for part in config.parts()}
    there = _parts_there(config, root)
    if not there:
        raise ValueError(
            f"{root} is not AudioSet's {' or '.join(folders)}: looked for {LAYOUT}; set --root to "
            f"the folder that holds them"
        )
    if config.subset != "all" and len(there) < len(folders):
        absent = next(part for part in folders if part not in there)
        warnings.warn(f"{root} holds no {absent}: it is left out", stacklevel=2)
    clips = _clips(root, {part: folders[part] for part in there}, names)
    chosen = [clip for clip in clips if _is_chosen(config, clip.subsets[0], str(clip.recording))]
    if not chosen:
        raise ValueError(
            f"--fraction {config.fraction:g} chooses none of the {len(clips)} clips of {root}; "
            f"raise it, or set another --seed"
        )
    return sorted(chosen, key=lambda clip: clip.source)


def beside(config: Config, root: Path) -> dict[str, str]:
    """The list of what was chosen of the training parts, where not all of it was."""
    if config.fraction == 1:
        return {}
    chosen = {
        row["YTID"]
        for part in _parts_there(config, root)
        if PARTS[part] == "train"
        for row in _rows(root, part)
        if is_chosen(row["YTID"], config.fraction, config.seed)
    }
    return {CHOSEN: "".join(f"{name}\n" for name in sorted(chosen))}


def is_chosen(name: str, fraction: float, seed: int) -> bool:
    """Whether a YouTube id belongs to a fraction of the training clips.

    The first eight bytes (big-endian) of the SHA-256 of ``SEED YTID``, as a share of 2^64, are
    below ``fraction``. So a larger fraction holds a smaller one of the same seed.
    """
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def _is_chosen(config: Config, part: str, name: str) -> bool:
    return PARTS[part] != "train" or is_chosen(name, config.fraction, config.seed)


def _parts_there(config: Config, root: Path) -> list[str]:
    return [p for p in config.parts() if _folders(root, p) and _table(root, p).is_file()]


def _class_names(root: Path) -> dict[str, str]:
    """Display name by machine id."""
    if not (root / CLASSES).is_file():
        raise ValueError(
            f"{root} is not AudioSet: looked for {LAYOUT}; set --root to the folder that holds them"
        )
    rows = tables.read(root / CLASSES, ("index", "mid", "display_name"))
    return {row["mid"]: row["display_name"] for row in rows}


def _table(root: Path, part: str) -> Path:
    return root / f"{part}_segments.csv"


def _rows(root: Path, part: str) -> list[tables.Row]:
    return tables.read(_table(root, part), _HEAD, _HEAD)


def _folders(root: Path, part: str) -> list[Path]:
    """Where the sound of a part is: folders of its own, or the one for all."""
    own = {
        part: [
            folder
            for holder in (root / "audio", root)
            for name in names
            if (folder := holder / name).is_dir()
        ]
        for part, names in FOLDERS.items()
    }
    shared = [root / "audio"] if (root / "audio").is_dir() else []
    return own[part] if any(own.values()) else shared


def _clips(root: Path, folders: dict[str, list[Path]], names: dict[str, str]) -> list[Clip]:
    """The clips of the parts whose folders are told; each folder is looked through once."""
    parts_of = {
        tuple(places): [part for part in folders if folders[part] == places]
        for places in folders.values()
    }
    clips = []
    for places, parts in parts_of.items():
        paths = [path for folder in places for path in sound_files(folder)]
        serving: set[Path] = set()
        for part in parts:
            rows = dict(tables.unlike_before(_rows(root, part), "YTID"))
            files = _by_id(paths, rows)
            serving |= set(files.values())
            clips += [
                _clip(row, files.get(name, places[0] / f"{name}.wav"), root, part, names)
                for name, row in rows.items()
            ]
        told = " or ".join(_table(root, part).name for part in parts)
        tables.warn_of_unlisted(set(paths) - serving, told)
        warn_of_unread(places)
    return clips


def _by_id(paths: Iterable[Path], listed: dict[str, tables.Row]) -> dict[str, Path]:
    """The file of each listed YouTube id: the first, where there are several."""
    files: dict[str, Path] = {}
    for path in paths:
        name = path.stem
        if name not in listed and (match := _NAME.fullmatch(name)):
            name = match["id"]
        if name in listed:
            files.setdefault(name, path)
    return files


def _clip(row: tables.Row, path: Path, root: Path, part: str, names: dict[str, str]) -> Clip:
    if not row["YTID"]:
        raise row.wrong("its YTID is empty")
    mids = [mid.strip() for mid in row["positive_labels"].split(",")]
    unknown = [mid for mid in mids if mid not in names]
    if unknown:
        raise row.wrong(f"its class {unknown[0]!r} is not in {CLASSES}")
    return Clip(
        path,
        path.relative_to(root).as_posix(),
        labels=tuple(dict.fromkeys(names[mid] for mid in mids)),
        split=PARTS[part],
        recording=row["YTID"],
        subsets=(part,),
    )
