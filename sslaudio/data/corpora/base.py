"""What every corpus importer returns: one :class:`Clip` a sound, with what is published of it.

Where importers look: the corpus's root, and the sound below a folder. And what may be fetched: a
corpus has ``DOWNLOADS``, a tuple of :class:`Download`, or ``STEPS``, what to do by hand, in which
``DIR`` stands for the root.
"""

import os
import unicodedata
import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
"""File names taken for sound, in any case of letters."""
UNREAD = (".aac", ".aif", ".aiff", ".amr", ".m4a", ".mka", ".mp4", ".webm", ".wma")
"""File names of sound that nothing here decodes."""
SPLITS = ("train", "validation", "test", "noise")
"""Names a clip's ``split`` may have; ``noise`` is background noise that is nobody's clip."""


@dataclass(frozen=True)
class Clip:
    """One sound of a corpus in its published layout.

    A field that the corpus does not tell is None (``labels``: empty) and is left out of
    the shard's JSON.
    """

    path: Path
    """The file itself."""
    source: str
    """Path relative to the corpus's root, with forward slashes."""
    label: str | None = None
    """Published display name of the one class; None where unlabelled or multi-label."""
    labels: tuple[str, ...] = ()
    """Published display names where a clip has several classes."""
    split: str | None = None
    """One of :data:`SPLITS`."""
    fold: int | None = None
    """Published cross-validation fold."""
    recording: str | None = None
    """Id that clips cut from one recording share (Freesound, YouTube or source id)."""
    speaker: str | None = None
    """Who speaks."""
    licence: str | None = None
    """Licence of this clip where the corpus tells it clip by clip or as a whole."""
    subsets: tuple[str, ...] = ()
    """Named parts of the corpus that the clip belongs to (``esc10`` within ESC-50)."""
    start_seconds: float = 0.0
    """Where in the file the clip begins."""
    seconds: float | None = None
    """Length of the clip; None reads to the end of the file."""
    byte_range: tuple[int, int] | None = None
    """Where in ``path`` the encoded sound lies, for a clip that was read from a shard."""
    part: str = ""
    """Tells clips that were cut from one file apart; ends their keys."""

    def __post_init__(self) -> None:
        if self.split not in (None, *SPLITS):
            raise ValueError(
                f"{self.source}: its split is {self.split!r}; an importer gives "
                f"{', '.join(SPLITS)}, or None"
            )
        if self.label is not None and self.labels:
            raise ValueError(
                f"{self.source} has both a label and labels; an importer gives label where every "
                f"clip has one class, labels where a clip may have several"
            )

    @property
    def name(self) -> str:
        """Unique in its corpus: the source, and which part of it the clip is."""
        return f"{self.source}#{self.part}" if self.part else self.source

    @property
    def is_cut(self) -> bool:
        """Whether the clip is a part of its file, or of its member of a shard."""
        return self.start_seconds > 0 or self.seconds is not None


class LeftOutWarning(UserWarning):
    """Some sound files are nobody's clip; ``files`` is how many."""

    def __init__(self, words: str, files: int) -> None:
        super().__init__(words)
        self.files = files


def warn_of_left_out(paths: Collection[Path], reason: str) -> None:
    """Say how many sound files are nobody's clip, and why."""
    if paths:
        words = f"{len(paths)} files are left out, since {reason}; the first is {min(paths)}"
        warnings.warn(LeftOutWarning(words, len(paths)), stacklevel=3)


def warn_of_unread(folders: Iterable[Path]) -> None:
    """Say how many files below some folders hold sound that nothing here decodes."""
    unread = [path for folder in folders for path in sound_files(folder, UNREAD)]
    warn_of_left_out(
        unread,
        f"{', '.join(sorted({path.suffix.lower() for path in unread}))} is not read: convert them, "
        f"to .flac say",
    )


def comparable(name: str) -> str:
    """A name as others are compared with it: an é may be written as one character or as two."""
    return unicodedata.normalize("NFC", name)


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Files by their (comparable) names without suffix; of several, the first."""
    files: dict[str, Path] = {}
    for path in paths:
        files.setdefault(comparable(path.stem), path)
    return files


def one_of_each(paths: Iterable[Path]) -> list[Path]:
    """Of files in one folder whose names differ in the suffix alone the first, the others warned
    of; sorted."""
    paths = sorted(paths)
    first: dict[tuple[Path, str], Path] = {}
    for path in paths:
        first.setdefault((path.parent, comparable(path.stem)), path)
    kept = list(first.values())
    warn_of_left_out(set(paths) - set(kept), "another file of the name serves")
    return kept


@dataclass(frozen=True)
class Source:
    """A file as its publisher serves it."""

    url: str
    size_bytes: int
    """As served; about, where no checksum is published."""
    checksum: str = ""
    """``sha256:…`` or ``md5:…``, from where the corpus's file cites; "" where none is published."""

    @property
    def name(self) -> str:
        """The file's name."""
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True)
class Download:
    """An archive of a corpus that may be fetched: one file, or the volumes of a split zip."""

    part: str
    """What ``--part`` calls it; "" comes with every part."""
    sources: tuple[Source, ...]
    """The archive; volumes in order, the ``.zip`` last."""
    unpacked_bytes: int
    """About what it takes on disk."""
    inside: str = ""
    """Folder of the archive whose content is taken; what lies outside it is left out."""
    folder: str = ""
    """Where in the root its content goes."""
    is_default: bool = True
    """Fetched where no part is asked for."""
    version: str = ""
    """Archives of two versions may not share a root."""
    sounds: int = 0
    """Sound files in it as published; an archive with fewer is refused. 0: not told."""
    shared: tuple[str, ...] = ()
    """Files that other archives of the corpus bring too; the first one stays."""

    @property
    def name(self) -> str:
        """The archive's name, its last volume's."""
        return self.sources[-1].name

    @property
    def size_bytes(self) -> int:
        """Of all volumes."""
        return sum(source.size_bytes for source in self.sources)


def is_sound_file(path: Path, suffixes: tuple[str, ...] = SUFFIXES) -> bool:
    """Whether a file's name says that it is sound; hidden files are not."""
    return path.name.lower().endswith(suffixes) and not path.name.startswith(".")


def sound_files(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """Every sound file below a folder at any depth, sorted by path; hidden ones are left out.

    Linked folders are entered too, each folder once however many links lead there.
    """
    found: list[Path] = []
    entered: set[Path] = set()
    for below, subfolders, names in os.walk(folder, followlinks=True):
        subfolders.sort()
        if (real := Path(below).resolve()) in entered:
            subfolders.clear()
            continue
        entered.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [path for name in names if is_sound_file(path := Path(below, name), suffixes)]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def corpus_root(root: Path | None, corpus: str, file_serves: bool = False) -> Path:
    """The folder of a corpus: ``--root``, or else ``$SSLAUDIO_DATA/CORPUS``.

    Args:
        root: as given with ``--root``; None where it was not.
        corpus: name of the importer, such as ``speech_commands``.
        file_serves: whether ``--root`` may be a file.

    Raises:
        ValueError: neither leads to a folder; the message names both ways.
    """
    ways = f"give --root DIR, or set $SSLAUDIO_DATA to the folder that holds {corpus}/"
    if root is not None:
        if not root.is_dir() and not (file_serves and root.is_file()):
            kind = "neither a folder nor a file" if file_serves else "no folder"
            raise ValueError(f"--root {root} is {kind}; {ways}")
        return root
    data = os.environ.get("SSLAUDIO_DATA")
    if not data:
        raise ValueError(f"where is the corpus {corpus}? {ways}")
    if not Path(data, corpus).is_dir():
        raise ValueError(f"$SSLAUDIO_DATA is {data}, which has no folder {corpus}; {ways}")
    return Path(data, corpus)
