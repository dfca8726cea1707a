"""The twelve classes of Speech Commands: ten commands, unknown words and silence.

In:  the corpus's clips, those of the published test archive among them if there.
Out: the clips of each part as pieces, each under the class that it has here.

Source: TensorFlow's examples/speech_commands/input_data.py, prepare_data_index (10 % unknown,
10 % silence); s3prl/downstream/speech_commands for SUPERB (arXiv:2105.01051).
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from sslaudio.data.corpora.base import Clip
from sslaudio.data.corpora.speech_commands import ARCHIVE, SILENCE, UNKNOWN, is_archived_alone
from sslaudio.data.decode import decode
from sslaudio.tasks.base import PARTS, Example

TEN = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
"""The command words."""
EXTRA_SHARE = 0.1
"""Unknown and silent clips, each as a share of the command words' clips of a part."""
SEED = 59185
"""input_data.py's RANDOM_SEED."""
NOISE_SPANS = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}
"""Share of every noise file that a part may cut from. TensorFlow cuts all parts from all of it."""
CLIP_SECONDS = 1.0
"""Nominal length of a clip; some are shorter."""
SAMPLE_RATE_HZ = 16_000
"""Of the published corpus; only the length of the noise files is measured at it."""


@dataclass(frozen=True)
class Piece:
    """A clip, or a cut of a noise file, under the class it has."""

    clip: Clip
    label: str
    key: str
    start_seconds: float = 0.0
    seconds: float | None = None

    def example(self, classes: Sequence[str]) -> Example:
        """As an example of a task with these classes."""
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


@dataclass(frozen=True)
class Archived:
    """What there is of the published test archive."""

    words: tuple[Clip, ...]
    unknown: tuple[Clip, ...]
    silence: tuple[Clip, ...]

    @classmethod
    def of(cls, clips: Sequence[Clip], corpus_version: str) -> "Archived":
        """The archive of a version of the corpus; of none, what lies among the words.

        Args:
            clips: all of the corpus.
            corpus_version: ``1`` or ``2``.
        """
        of_version = [c for c in clips if f"{ARCHIVE}_v0.0{corpus_version}" in c.subsets]
        there = of_version or [clip for clip in clips if ARCHIVE in clip.subsets]
        return cls(
            *(
                tuple(clip for clip in there if clip.label in labels)
                for labels in (TEN, (UNKNOWN,), (SILENCE,))
            )
        )

    @property
    def is_whole(self) -> bool:
        """Whether nothing of test's unknown and silence need be drawn."""
        return bool(self.unknown and self.silence)


def words(clips: Sequence[Clip], part: str, labels: Sequence[str] = ()) -> list[Piece]:
    """The corpus's own clips of ``part`` that are a class by their word; of ``labels`` if any."""
    return [
        Piece(clip, clip.label, clip.name)
        for clip in clips
        if clip.split == part and clip.label and not is_archived_alone(clip)
        if not labels or clip.label in labels
    ]


def parts(clips: Sequence[Clip], archived: Archived, training: str) -> dict[str, list[Piece]]:
    """Every part's pieces; ``training`` is that of the task's Config."""
    made = {part: words(clips, part, TEN) for part in PARTS}
    if archived.words:
        made["test"] = _pieces(archived.words)
    for part in PARTS:
        count = math.ceil(EXTRA_SHARE * len(made[part]))
        if training == "superb" and part != "test":
            made[part] += _all_unknown(clips, part)
            made[part] += _whole_noise(clips, archived) if part == "train" else []
            continue
        unknown = _pieces(archived.unknown) if part == "test" else []
        silence = _pieces(archived.silence) if part == "test" else []
        made[part] += unknown or _draw_unknown(clips, part, count)
        made[part] += silence or _cut_silence(clips, part, count)
    return made


def _pieces(clips: Sequence[Clip]) -> list[Piece]:
    return [Piece(clip, str(clip.label), clip.name) for clip in clips]


def _all_unknown(clips: Sequence[Clip], part: str) -> list[Piece]:
    """Every clip of another word."""
    return [
        Piece(piece.clip, UNKNOWN, piece.key)
        for piece in words(clips, part)
        if piece.label not in TEN
    ]


def _draw_unknown(clips: Sequence[Clip], part: str, count: int) -> list[Piece]:
    """``count`` clips of other words, or all of them where they are fewer."""
    others = sorted(_all_unknown(clips, part), key=lambda piece: piece.key)
    return random.Random(f"{SEED} {part}").sample(others, min(count, len(others)))


def _noises(clips: Sequence[Clip]) -> list[Clip]:
    """The noise files by name: shards hold them in another order, and must give the same cuts."""
    return sorted((clip for clip in clips if clip.split == "noise"), key=lambda clip: clip.source)


def _length(noise: Clip) -> float:
    """Seconds."""
    return len(decode(noise.path, SAMPLE_RATE_HZ, byte_range=noise.byte_range)) / SAMPLE_RATE_HZ


def _whole_noise(clips: Sequence[Clip], archived: Archived) -> list[Piece]:
    """A silent clip a noise file, whole, for training to crop.

    Without the archive test is cut from the files' ends, which training then leaves out.
    """
    if archived.silence:
        return [Piece(noise, SILENCE, noise.name) for noise in _noises(clips)]
    share, _ = NOISE_SPANS["test"]
    return [
        Piece(noise, SILENCE, f"{noise.name}#train", seconds=share * _length(noise))
        for noise in _noises(clips)
    ]


def _cut_silence(clips: Sequence[Clip], part: str, count: int) -> list[Piece]:
    """``count`` seconds of background noise, evenly spaced over the part's span of each file.

    At the noise's own volume; TensorFlow scales each by a random 0 to 1.
    """
    noises = _noises(clips)
    if not noises:
        return []
    lengths = [_length(noise) for noise in noises]
    cuts_a_file = math.ceil(count / len(noises))
    pieces = []
    for cut in range(count):
        round_index, file = divmod(cut, len(noises))
        start, end = (share * lengths[file] for share in NOISE_SPANS[part])
        seconds = min(CLIP_SECONDS, end - start)
        start += (round_index + 0.5) / cuts_a_file * (end - start - seconds)
        key = f"{noises[file].name}#{part}{round_index}"
        pieces.append(Piece(noises[file], SILENCE, key, start, seconds))
    return pieces
