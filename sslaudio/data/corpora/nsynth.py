"""NSynth (Engel et al. 2017, arXiv:1704.01279): single notes, by family of instrument.

In:  ``nsynth-train``, ``nsynth-valid`` and ``nsynth-test``, or some of them, each with
     ``examples.json`` and ``audio/NOTE.wav``.
Out: one clip a note of the tables with its family, its part as split and its instrument as
     recording.

A note whose file is missing becomes a clip whose path does not exist.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslaudio.data.corpora import tables
from sslaudio.data.corpora.base import Clip, Download, Source, by_stem, comparable, is_sound_file

PARTS = {"nsynth-train": "train", "nsynth-valid": "validation", "nsynth-test": "test"}
"""Folder to split."""
TABLE = "examples.json"
LICENCE = "CC BY 4.0"

LAYOUT = f"nsynth-PART/{TABLE}"
"""What a folder is known by."""

_URL = "http://download.magenta.tensorflow.org/datasets/nsynth/"
# Nobody publishes checksums of these archives (tensorflow/datasets has the tfrecords'); Google's
# storage tells an MD5 with each. Sizes by the share of notes of 25.2 GB, which jg583/NSynth on
# Hugging Face gives for all three; a note takes 128,044 bytes.
DOWNLOADS = tuple(
    Download(
        part,
        (Source(f"{_URL}nsynth-{part}.jsonwav.tar.gz", size_bytes),),
        unpacked_bytes=129_000 * notes,
        sounds=notes,
    )
    for part, size_bytes, notes in (
        ("train", 23_850_000_000, 289_205),
        ("valid", 1_050_000_000, 12_678),
        ("test", 340_000_000, 4_096),
    )
)
"""An archive a part."""

_FIELDS = ("instrument_family_str", "instrument_str")
_CURE = "unpack the published archive of that part again"


@dataclass(frozen=True)
class Config:
    """Nothing to choose: the corpus tells all."""


def recognises(root: Path) -> bool:
    """Whether a folder is this corpus as published."""
    return any((root / folder / TABLE).is_file() for folder in PARTS)


def build(config: Config, root: Path) -> list[Clip]:
    """Every note of the parts that are there, sorted by path."""
    if not recognises(root):
        raise ValueError(
            f"{root} is not NSynth: looked for {LAYOUT}; set --root to the folder that holds "
            f"{', '.join(PARTS)}"
        )
    absent = [folder for folder in PARTS if not (root / folder / TABLE).is_file()]
    if absent:
        warnings.warn(
            f"{root} lacks {' and '.join(f'{folder}/{TABLE}' for folder in absent)}: the notes of "
            f"{' and '.join(PARTS[folder] for folder in absent)} are left out",
            stacklevel=2,
        )
    clips = [
        clip
        for folder in PARTS
        if folder not in absent
        for clip in _part(root, folder, _read_table(root / folder / TABLE))
    ]
    return sorted(clips, key=lambda clip: clip.source)


def _read_table(table: Path) -> dict[str, dict[str, Any]]:
    """What is told of each note."""
    try:
        notes = json.loads(table.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{table} is no JSON ({error}); {_CURE}") from error
    if not isinstance(notes, dict) or not notes:
        raise ValueError(f"{table} names no notes; {_CURE}")
    for name, told in notes.items():
        lacks = [
            field
            for field in _FIELDS
            if not (isinstance(told, dict) and isinstance(told.get(field), str) and told[field])
        ]
        if lacks:
            raise ValueError(f"{table}: note {name!r} lacks its {lacks[0]}; {_CURE}")
    return notes


def _part(root: Path, folder: str, notes: dict[str, dict[str, Any]]) -> list[Clip]:
    audio = root / folder / "audio"
    there = sorted(audio.iterdir()) if audio.is_dir() else []
    there = [path for path in there if is_sound_file(path)]
    files = by_stem(there)
    paths = {note: files.get(comparable(note), audio / f"{note}.wav") for note in notes}
    tables.warn_of_unlisted(set(there) - set(paths.values()), f"{folder}/{TABLE}")
    return [
        Clip(
            paths[note],
            f"{folder}/audio/{paths[note].name}",
            label=told["instrument_family_str"],
            split=PARTS[folder],
            recording=told["instrument_str"],
            licence=LICENCE,
        )
        for note, told in notes.items()
    ]
