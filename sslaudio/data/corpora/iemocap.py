"""IEMOCAP (Busso et al. 2008, doi:10.1007/s10579-008-9076-6): acted dialogues, by emotion.

In:  ``SessionN/dialog/EmoEvaluation/*.txt``, whose lines that begin with ``[`` name an utterance
     and its emotion, and ``SessionN/sentences/wav/DIALOGUE/UTTERANCE.wav``.
Out: one clip a line with its emotion (none where the raters did not agree, or where it is none of
     the four that are told apart), session as fold, dialogue as recording and speaker.

A listed file that is missing becomes a clip whose path does not exist.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sslaudio.data.corpora.base import Clip, by_stem, is_sound_file, warn_of_left_out

EMOTIONS = {
    "ang": "angry",
    "dis": "disgusted",
    "exc": "excited",
    "fea": "fearful",
    "fru": "frustrated",
    "hap": "happy",
    "neu": "neutral",
    "oth": "other",
    "sad": "sad",
    "sur": "surprised",
    "xxx": None,
}
"""The tables' codes and what they stand for; ``xxx`` is no agreement."""
FOUR = {"ang": "angry", "exc": "happy", "hap": "happy", "neu": "neutral", "sad": "sad"}
"""The classes that papers tell apart, by code: excited counts as happy."""
LICENCE = "IEMOCAP release form (research only)"

LAYOUT = "SessionN/dialog/EmoEvaluation"
"""What a folder is known by."""

STEPS = """\
IEMOCAP is for research alone and on request.
1. Fill in the release form at https://sail.usc.edu/iemocap/iemocap_release.htm; the answer by
   e-mail brings an address and a password.
2. Fetch IEMOCAP_full_release.tar.gz (12 GB or more, most of it video) and unpack what is read:
     mkdir -p DIR
     tar xzf IEMOCAP_full_release.tar.gz -C DIR --strip-components=1 --wildcards \\
       '*/Session?/dialog/EmoEvaluation/*' '*/Session?/sentences/wav/*'
3. sslaudio shards build --corpus iemocap --root DIR --out shards/iemocap
"""

_SESSION = re.compile(r"session([1-5])", re.IGNORECASE)
_TURN = re.compile(
    r"\[[^\]]*\]\s+(?P<utterance>(?P<dialogue>\w+)_(?P<gender>[FM])\w*)\s+(?P<code>\w+)"
)
_CURE = "restore the published file"


@dataclass(frozen=True)
class Config:
    """Which emotions are labels."""

    emotions: Literal["four", "all"] = "four"
    """``four``: angry, happy (excited too), neutral and sad; the others have no label. ``all``: as
    published, excited apart."""


@dataclass(frozen=True)
class _Turn:
    """One rated utterance of a table."""

    dialogue: str
    gender: str
    code: str


def recognises(root: Path) -> bool:
    """Whether a folder is this corpus as published."""
    return any((folder / "dialog" / "EmoEvaluation").is_dir() for folder, _ in _sessions(root))


def build(config: Config, root: Path) -> list[Clip]:
    """Every rated utterance, sorted by path."""
    if not recognises(root):
        raise ValueError(
            f"{root} is not IEMOCAP: looked for {LAYOUT}; set --root to the folder that holds "
            f"Session1 to Session5"
        )
    names = FOUR if config.emotions == "four" else EMOTIONS
    clips = [
        clip for folder, number in _sessions(root) for clip in _session(folder, number, root, names)
    ]
    if not clips:
        raise ValueError(
            f"{root}: no table of {LAYOUT} names an utterance; restore the published files"
        )
    return sorted(clips, key=lambda clip: clip.source)


def _sessions(root: Path) -> Iterator[tuple[Path, int]]:
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if told := _SESSION.fullmatch(folder.name):
            yield folder, int(told[1])


def _session(folder: Path, number: int, root: Path, names: Mapping[str, str | None]) -> list[Clip]:
    turns = _read_turns(folder)
    sounds = sorted(folder.glob("sentences/wav/*/*"))
    sounds = [path for path in sounds if is_sound_file(path)]
    files = by_stem(sounds)
    serving = {files[utterance] for utterance in turns if utterance in files}
    warn_of_left_out(
        set(sounds) - serving, "no table rates them or another file of the name serves"
    )
    clips = []
    for utterance, turn in turns.items():
        absent = folder / "sentences" / "wav" / turn.dialogue / f"{utterance}.wav"
        clips.append(_clip(files.get(utterance, absent), turn, number, root, names))
    return clips


def _read_turns(folder: Path) -> dict[str, _Turn]:
    """Turns of a session by utterance, without hidden files and the raters' own folders."""
    turns: dict[str, _Turn] = {}
    for table in sorted((folder / "dialog" / "EmoEvaluation").glob("*.txt")):
        if table.name.startswith("."):
            continue
        text = table.read_text(encoding="utf-8-sig", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.startswith("["):
                continue
            utterance, turn = _parse(line, f"{table}, line {number}")
            if turns.setdefault(utterance, turn) != turn:
                raise ValueError(
                    f"{table}, line {number}: {utterance} is {turn.code}, and "
                    f"{turns[utterance].code} further up; {_CURE}"
                )
    return turns


def _parse(line: str, where: str) -> tuple[str, _Turn]:
    told = _TURN.match(line)
    if told is None:
        raise ValueError(
            f"{where}: {line.strip()[:80]!r} does not name times, utterance and emotion, as in "
            f"'[6.2901 - 8.2357] Ses01F_impro01_F000 neu'; {_CURE}"
        )
    code = told["code"].lower()
    if code not in EMOTIONS:
        raise ValueError(f"{where}: emotion {code!r} is none of {', '.join(EMOTIONS)}; {_CURE}")
    return told["utterance"], _Turn(told["dialogue"], told["gender"], code)


def _clip(
    path: Path, turn: _Turn, session: int, root: Path, names: Mapping[str, str | None]
) -> Clip:
    return Clip(
        path,
        path.relative_to(root).as_posix(),
        label=names.get(turn.code),
        fold=session,
        recording=turn.dialogue,
        speaker=f"Ses{session:02d}{turn.gender}",
        licence=LICENCE,
    )
