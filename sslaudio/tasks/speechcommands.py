"""Speech Commands: which word is said; 35, 12 or 10 classes.

In:  the corpus in its published layout: a folder a word, two list files, background noise.
Out: one fold, by the list files.

Source: Warden 2018 (arXiv:1804.03209), section 5; the 12-class task after TensorFlow's
examples/speech_commands/input_data.py, prepare_data_index.
"""

import math
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sslaudio.data.corpora import speech_commands
from sslaudio.data.corpora.base import Clip, is_sound_file
from sslaudio.data.decode import decode
from sslaudio.tasks import sources
from sslaudio.tasks.base import PARTS, Example, Fold, Task, choose_folds, class_notes

TEN = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
"""The command words of the 12-class task."""
SILENCE, UNKNOWN = "_silence_", "_unknown_"
"""The other two of its classes, and folders of the published test archives: all of them test."""
ONLY_V2 = ("backward", "follow", "forward", "learn", "visual")
"""The words that version 2 of the corpus added to version 1's thirty."""
EXTRA_SHARE = 0.1
"""Unknown and silent clips, each as a share of the command words' clips of a part."""
SEED = 59185
"""input_data.py's RANDOM_SEED."""
NOISE_SPANS = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}
"""Share of every noise file that a part may cut from. TensorFlow cuts all parts from all of it."""
CLIP_SECONDS = 1.0
"""Nominal length of a clip; some are shorter."""
CORPUS = "speech_commands"
"""Where the clips come from."""
SAMPLE_RATE_HZ = 16_000
"""Of the published corpus; only the length of the noise files is measured at it."""


@dataclass(frozen=True)
class Config:
    """Which of the corpus's tasks."""

    version: Literal["v2-35", "v2-12", "v1-12", "v2-10"] = "v2-35"
    """v2-35: all words. v2-12, v1-12: ten commands, unknown, silence. v2-10: ten commands."""
    folds: tuple[str, ...] = ()
    """There is one, ``published``."""


@dataclass(frozen=True)
class _Piece:
    """A clip, or a cut of a noise file, under the class it has in this version."""

    clip: Clip
    label: str
    key: str
    start_seconds: float = 0.0
    seconds: float | None = None

    def example(self, classes: Sequence[str]) -> Example:
        return Example(
            key=self.key,
            target=classes.index(self.label),
            path=self.clip.path,
            byte_range=self.clip.byte_range,
            start_seconds=self.start_seconds,
            seconds=self.seconds,
            recording=self.clip.recording,
            speaker=self.clip.speaker,
        )


def build(config: Config, root: Path) -> Task:
    """Read the corpus below ``root`` and set up ``config.version`` of the task."""
    source = sources.read(CORPUS, root)
    clips = list(source.clips)
    notes = _corpus_notes(config.version, {clip.label for clip in clips if clip.label})
    if config.version == "v1-12":
        clips = [clip for clip in clips if clip.label not in ONLY_V2]
    parts = {part: _words(config.version, clips, part) for part in PARTS}
    if config.version.endswith("-12"):
        archived = _archived(root)
        for part in PARTS:
            parts[part] += _extras(clips, archived, part, len(parts[part]))
        if {piece.label for piece in archived} < {SILENCE, UNKNOWN}:
            notes.append("unknown and silence are drawn at 10 %, not the published archive's clips")
    classes = tuple(sorted({piece.label for pieces in parts.values() for piece in pieces}))
    examples = (tuple(piece.example(classes) for piece in parts[part]) for part in PARTS)
    fold = Fold("published", *examples)
    return Task(
        name="speechcommands",
        classes=classes,
        seconds=CLIP_SECONDS,
        split_rule=f"{config.version}, {_split_source(root)}",
        notes=(*notes, *_absent_notes(config.version, classes), *class_notes(classes, [fold])),
        folds=choose_folds([fold], config.folds),
    )


def _words(version: str, clips: Sequence[Clip], part: str) -> list[_Piece]:
    """The clips of ``part`` that are a class by their own word."""
    return [
        _Piece(clip, clip.label, clip.source)
        for clip in clips
        if clip.split == part and clip.label and (version == "v2-35" or clip.label in TEN)
    ]


def _archived(root: Path) -> list[_Piece]:
    """The clips in folders of the published test archives, where they were put beside the words."""
    return [
        _Piece(Clip(path, source, label=label), label, source)
        for label in (SILENCE, UNKNOWN)
        for path in sorted(root.glob(f"{label}/*"))
        if is_sound_file(path) and (source := path.relative_to(root).as_posix())
    ]


def _extras(
    clips: Sequence[Clip], archived: Sequence[_Piece], part: str, words: int
) -> list[_Piece]:
    """Unknown and silent clips of ``part``: the archive's for test, else a draw of each."""
    count = math.ceil(EXTRA_SHARE * words)
    unknown = [piece for piece in archived if piece.label == UNKNOWN and part == "test"]
    silence = [piece for piece in archived if piece.label == SILENCE and part == "test"]
    return [
        *(unknown or _draw_unknown(clips, part, count)),
        *(silence or _cut_silence(clips, part, count)),
    ]


def _draw_unknown(clips: Sequence[Clip], part: str, count: int) -> list[_Piece]:
    """``count`` clips of other words, or all of them where they are fewer."""
    others = [clip for clip in clips if clip.split == part and clip.label and clip.label not in TEN]
    others.sort(key=lambda clip: clip.source)
    drawn = random.Random(f"{SEED} {part}").sample(others, min(count, len(others)))
    return [_Piece(clip, UNKNOWN, clip.source) for clip in drawn]


def _cut_silence(clips: Sequence[Clip], part: str, count: int) -> list[_Piece]:
    """``count`` seconds of background noise, evenly spaced over the part's span of each file.

    At the noise's own volume; TensorFlow scales each by a random 0 to 1.
    """
    noises = [clip for clip in clips if clip.split == "noise"]
    if not noises:
        return []
    lengths = [
        len(decode(clip.path, SAMPLE_RATE_HZ, byte_range=clip.byte_range)) / SAMPLE_RATE_HZ
        for clip in noises
    ]
    cuts_a_file = math.ceil(count / len(noises))
    pieces = []
    for cut in range(count):
        round_index, file = divmod(cut, len(noises))
        start, end = (share * lengths[file] for share in NOISE_SPANS[part])
        seconds = min(CLIP_SECONDS, end - start)
        start += (round_index + 0.5) / cuts_a_file * (end - start - seconds)
        key = f"{noises[file].source}#{part}{round_index}"
        pieces.append(_Piece(noises[file], SILENCE, key, start, seconds))
    return pieces


def _split_source(root: Path) -> str:
    present = [name for name in speech_commands.LISTS.values() if (root / name).is_file()]
    return f"by {' and '.join(present)}" if present else "by the published hash of the speaker"


def _corpus_notes(version: str, labels: set[str]) -> list[str]:
    """Say, and warn, where the folder holds the other version of the corpus."""
    newer = sorted(labels & set(ONLY_V2))
    note = ""
    if version == "v1-12" and newer:
        note = (
            f"v1-12 asked for, but the folder holds version 2's words {', '.join(newer)}: they are "
            f"left out"
        )
    if version in ("v2-12", "v2-35") and not newer:
        note = f"{version} asked for, but none of version 2's own words is there: is it version 1?"
    if note:
        warnings.warn(note, stacklevel=3)
    return [note] if note else []


def _absent_notes(version: str, classes: Sequence[str]) -> list[str]:
    expected = {"v2-35": 35, "v2-12": 12, "v1-12": 12, "v2-10": 10}[version]
    if len(classes) == expected:
        return []
    return [f"{len(classes)} of {expected} {'classes' if expected == 12 else 'words'}"]
