"""AudioSet (Gemmeke et al. 2017, doi:10.1109/ICASSP.2017.7952261): ten-second cuts of YouTube.

In:  ``{balanced_train,unbalanced_train,eval}_segments.csv``, ``class_labels_indices.csv``, and
     sound anywhere below ``audio/PART/`` or ``PART/``, already cut to its segment, named
     ``YTID``, ``YYTID`` or ``YTID_START_END`` with any suffix.
Out: one clip a row with its classes by display name, its part among its subsets, and its
     YouTube id as recording; eval tests, the others train.

A part is there where both its table and its folder are. AudioSet is never whole: a row whose file
is missing becomes a clip that the build rejects and lists.
"""

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sslaudio.data.corpora import tables
from sslaudio.data.corpora.base import Clip, sound_files

PARTS = {"balanced_train": "train", "unbalanced_train": "train", "eval": "test"}
"""Published part to the split of its clips."""
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
    """Which parts."""

    subset: Literal["all", "20k", "balanced_train", "unbalanced_train", "eval"] = "all"
    """``all``: the parts that are there. ``20k``: balanced_train and eval. Or one of them."""

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
    there = [part for part in folders if folders[part] and _table(root, part).is_file()]
    if not there:
        raise ValueError(
            f"{root} is not AudioSet's {' or '.join(folders)}: looked for {LAYOUT}; set --root to "
            f"the folder that holds them"
        )
    if config.subset != "all" and len(there) < len(folders):
        absent = next(part for part in folders if part not in there)
        warnings.warn(f"{root} holds no {absent}: it is left out", stacklevel=2)
    clips = [clip for part in there for clip in _part(root, part, folders[part], names)]
    return sorted(clips, key=lambda clip: clip.source)


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


def _folders(root: Path, part: str) -> list[Path]:
    return [folder for folder in (root / "audio" / part, root / part) if folder.is_dir()]


def _part(root: Path, part: str, folders: list[Path], names: dict[str, str]) -> list[Clip]:
    rows = dict(tables.unlike_before(tables.read(_table(root, part), _HEAD, _HEAD), "YTID"))
    paths = [path for folder in folders for path in sound_files(folder)]
    files = _by_id(paths, rows)
    clips = [
        _clip(row, files.get(name, folders[0] / f"{name}.wav"), root, part, names)
        for name, row in rows.items()
    ]
    tables.warn_of_unlisted(set(paths) - set(files.values()), _table(root, part).name)
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
    mids = row["positive_labels"].split(",")
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
