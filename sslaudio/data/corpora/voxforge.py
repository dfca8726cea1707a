"""VoxForge (voxforge.org): read speech of volunteers in six languages.

In:  a folder a language (``de``, ``German``, … in any case; ``SpeechCorpus`` is English) with
     submissions ``USER-YYYYMMDD-xyz/wav/NAME.wav`` (or ``flac/``), at once or below
     ``Trunk/Audio/Main/16kHz_16bit/`` as the repository has them.
Out: one clip a file with its language's folder as label, speaker and split, and the submission as
     recording.

No split is published. Ours is by user name, the same in all languages, so that nobody is heard
in two parts and a user who comes or goes moves nobody else. ``anonymous`` is many people: their
clips have no speaker and only train.
"""

import hashlib
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sslaudio.data.corpora.base import Clip, comparable, is_sound_file, warn_of_left_out

LANGUAGES = {
    "English": ("en", "eng", "english", "speechcorpus"),
    "French": ("fr", "fra", "fre", "french", "français"),
    "German": ("de", "deu", "ger", "german", "deutsch"),
    "Italian": ("it", "ita", "italian", "italiano"),
    "Russian": ("ru", "rus", "russian"),
    "Spanish": ("es", "spa", "spanish", "español"),
}
"""Language to the folder names that are taken for it, in any case of letters."""
ANONYMOUS = "anonymous"
"""The user name of all who give none."""
LICENCE = "GPL-3.0"

LAYOUT = "LANGUAGE/USER-YYYYMMDD-xyz/wav/NAME.wav (or flac) in folders such as en or German"
"""What a folder is known by."""

STEPS = """\
VoxForge is a web folder of thousands of small archives, and has no list of checksums.
1. A language at a time: SpeechCorpus (English), de, es, fr, it, Russian. It goes on where it was
   stopped:
     mkdir -p DIR && cd DIR
     language=SpeechCorpus
     wget -r -np -nH --cut-dirs=1 -c -A tgz \\
       http://www.repository.voxforge1.org/downloads/$language/Trunk/Audio/Main/16kHz_16bit/
2. Unpack each where it lies, and remove it:
     find . -name '*.tgz' -execdir sh -c 'tar xzf "$1" && rm "$1"' - {} \\;
3. sslaudio shards build --corpus voxforge --root DIR --out shards/voxforge
"""

_HOLDERS = (".", "Trunk/Audio/Main/16kHz_16bit")
_SUBMISSION = re.compile(r"(?P<user>.+?)-(?P<date>[0-9]{8}).*")
_SOUNDS = ("flac", "wav")
"""Folders of a submission; where a name is in both, the last one's file serves."""
_LANGUAGE_OF = {name: language for language, names in LANGUAGES.items() for name in names}


@dataclass(frozen=True)
class Config:
    """Nothing to choose: the corpus tells all."""


def recognises(root: Path) -> bool:
    """Whether a folder is this corpus as published."""
    return any(next(_submissions(folder), None) for folder, _, _ in _language_folders(root))


def build(config: Config, root: Path) -> list[Clip]:
    """Every file of every submission, sorted by path."""
    submissions: dict[tuple[str, str], Path] = {}
    clips, left_out, silent, nameless = [], [], [], []
    for folder, language, label in _language_folders(root):
        for submission in sorted(map(Path, _submissions(folder))):
            paths, others = _sounds(submission)
            name = comparable(submission.name)
            if submissions.setdefault((language, name), submission) != submission:
                left_out += paths + others
                continue
            clips += [_clip(path, root, language, label, name) for path in paths]
            left_out += others
            silent += [] if paths else [submission]
        for other in _others(folder):
            nameless += [path for paths in _sounds(other) for path in paths]
    if not clips:
        raise ValueError(
            f"{root} is not VoxForge: looked for {LAYOUT}; set --root to the folder that holds "
            f"the languages"
        )
    _warn_of_other_languages(root)
    _warn_of_empty(silent)
    warn_of_left_out(left_out, "another file of the name serves")
    warn_of_left_out(nameless, "their folder is not named as a submission, USER-YYYYMMDD-xyz")
    return sorted(clips, key=lambda clip: clip.source)


def split_by_hash(user: str) -> str:
    """The part of a user's clips: of ten users eight train, one validates, one tests.

    By a hash of the name alone: neither the other users nor the languages matter.
    """
    user = comparable(user).casefold()
    if user == ANONYMOUS:
        return "train"
    digest = hashlib.sha256(f"voxforge {user}".encode()).digest()
    tenth = int.from_bytes(digest[:8]) * 10 >> 64
    return {8: "validation", 9: "test"}.get(tenth, "train")


def _language_folders(root: Path) -> Iterator[tuple[Path, str, str]]:
    """The folders that hold submissions, their language, and the name of its (first) folder."""
    labels: dict[str, str] = {}
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        language = _LANGUAGE_OF.get(comparable(folder.name).casefold())
        if language and folder.is_dir():
            label = labels.setdefault(language, comparable(folder.name))
            yield from ((folder / name, language, label) for name in _HOLDERS)


def _submissions(folder: Path) -> Iterator[str]:
    """Paths of the submissions in a folder, as they come: the first is there at a glance."""
    if folder.is_dir():
        with os.scandir(folder) as entries:
            for entry in entries:
                if _SUBMISSION.fullmatch(entry.name) and entry.is_dir():
                    yield entry.path


def _others(folder: Path) -> list[Path]:
    """Folders that hold sound as a submission does, and do not tell whose."""
    others = {path.parent for name in _SOUNDS for path in folder.glob(f"*/{name}")}
    return sorted(other for other in others if not _SUBMISSION.fullmatch(other.name))


def _sounds(submission: Path) -> tuple[list[Path], list[Path]]:
    """The sounds of a submission, and those for which another serves."""
    found: dict[str, Path] = {}
    left_out: list[Path] = []
    for folder in _SOUNDS:
        for path in sorted((submission / folder).glob("*")):
            if is_sound_file(path):
                left_out += [found[path.stem]] if path.stem in found else []
                found[path.stem] = path
    return list(found.values()), left_out


def _clip(path: Path, root: Path, language: str, label: str, submission: str) -> Clip:
    told = _SUBMISSION.fullmatch(submission)
    assert told is not None, "as _submissions chose it"
    return Clip(
        path,
        path.relative_to(root).as_posix(),
        label=label,
        split=split_by_hash(told["user"]),
        recording=submission,
        speaker=None if told["user"].casefold() == ANONYMOUS else f"{language} {told['user']}",
        licence=LICENCE,
    )


def _warn_of_other_languages(root: Path) -> None:
    others = [
        folder.name
        for folder in sorted(root.iterdir())
        if comparable(folder.name).casefold() not in _LANGUAGE_OF
        and any(next(_submissions(folder / name), None) for name in _HOLDERS)
    ]
    if others:
        warnings.warn(
            f"{root}: {', '.join(others)} is left out, since the folder bears the name of none of "
            f"{', '.join(LANGUAGES)}; rename it (to en, say) if it holds one of them",
            stacklevel=3,
        )


def _warn_of_empty(submissions: list[Path]) -> None:
    if submissions:
        warnings.warn(
            f"{len(submissions)} submissions are left out, since they hold no sound in "
            f"{' or '.join(_SOUNDS)}; the first is {min(submissions)}",
            stacklevel=3,
        )
