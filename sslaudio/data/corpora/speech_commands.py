"""Google Speech Commands (Warden 2018, arXiv:1804.03209), versions 0.01 and 0.02.

In:  one folder a word with ``<speaker>_nohash_<n>`` files, ``_background_noise_``, and
     ``validation_list.txt`` and ``testing_list.txt``. The published test archives of the
     12-class task, if there: folders ``speech_commands_test_set_v0.0N`` in the root or beside
     it, or their ``_silence_`` and ``_unknown_`` among the words.
Out: one clip a file with its word, speaker and split; background noise as split ``noise``. Clips
     of a test archive have its name among their subsets, those of a word once: as the corpus's.

The two lists decide the split. Only where both are absent does the publisher's hash of the
speaker, with a warning. Files may be WAV or FLAC, whatever the lists say.
"""

import hashlib
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sslaudio.data.corpora.base import Clip, Download, Source, is_sound_file, one_of_each

LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
"""Split to the published file that lists its clips."""
NOISE_FOLDER = "_background_noise_"
SILENCE, UNKNOWN = "_silence_", "_unknown_"
"""Folders of the test archives that are no word; all of their clips test."""
ARCHIVE = "speech_commands_test_set"
"""A subset: of the test archive. Of a folder's one with its version, as ``…_v0.02``."""
LICENCE = "CC BY 4.0"
LAYOUT = "WORD/SPEAKER_nohash_N.wav (or .flac)"
"""What a folder is known by."""

_URL = "https://storage.googleapis.com/download.tensorflow.org/data/"
# Sizes and SHA-256 of version 0.02: tensorflow/datasets,
# tensorflow_datasets/url_checksums/speech_commands.txt. SHA-256 of 0.01: torchaudio 2.11,
# torchaudio/datasets/speechcommands.py. Nobody publishes that of its test archive.
DOWNLOADS = (
    Download(
        "v0.02",
        (
            Source(
                f"{_URL}speech_commands_v0.02.tar.gz",
                2_428_923_189,
                "sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
            ),
        ),
        unpacked_bytes=3_500_000_000,  # 105,829 clips of a second
        version="0.02",
    ),
    Download(
        "v0.02-test",
        (
            Source(
                f"{_URL}{ARCHIVE}_v0.02.tar.gz",
                112_563_277,
                "sha256:cc2a00c1147c2254e9be3fa0f779d8c17421dc349b86366567a8edfa9acd51df",
            ),
        ),
        unpacked_bytes=160_000_000,  # 4,890 clips
        folder=f"{ARCHIVE}_v0.02",
        version="0.02",
    ),
    Download(
        "v0.01",
        (
            Source(
                f"{_URL}speech_commands_v0.01.tar.gz",
                1_489_096_277,
                "sha256:743935421bb51cccdb6bdd152e04c5c70274e935c82119ad7faeec31780d811d",
            ),
        ),
        unpacked_bytes=2_200_000_000,  # 64,727 clips
        is_default=False,
        version="0.01",
    ),
    Download(
        "v0.01-test",
        (Source(f"{_URL}{ARCHIVE}_v0.01.tar.gz", 71_000_000),),
        unpacked_bytes=100_000_000,
        folder=f"{ARCHIVE}_v0.01",
        is_default=False,
        version="0.01",
    ),
)
"""By default what the tasks of version 0.02 need, the 12-class one's test archive too."""

_MOST_CLIPS_OF_A_WORD = 2**27 - 1
_NOHASH = re.compile(r"_nohash_.*$")


@dataclass(frozen=True)
class Config:
    """Nothing to choose: the corpus tells all."""


def recognises(root: Path) -> bool:
    """Whether a folder is this corpus as published; a test archive alone is not."""
    return not _is_archive(root) and any(
        _is_word_clip(path) and is_sound_file(path) for path in root.glob("*/*_nohash_*")
    )


def build(config: Config, root: Path) -> list[Clip]:
    """Every word's clips and the background noise, sorted by path."""
    words = one_of_each(path for path in _sound_files(root, "*") if _is_word_clip(path))
    if not words:
        raise ValueError(
            f"{root} is not Speech Commands: looked for {LAYOUT}; "
            f"set --root to the folder that holds the word folders"
        )
    listed = _read_lists(root)
    clips = [_word_clip(path, root, listed) for path in words]
    clips = _with_archives(clips, root)
    clips += _missing(listed or {}, clips, root)
    clips += [_noise_clip(path, root) for path in one_of_each(_sound_files(root, NOISE_FOLDER))]
    return sorted(clips, key=lambda clip: clip.source)


def is_archived_alone(clip: Clip) -> bool:
    """Whether a clip lies in a test archive and not among the corpus's words."""
    return clip.label in (SILENCE, UNKNOWN) or ARCHIVE in clip.source


def split_by_hash(file_name: str) -> str:
    """The split that the publisher's rule gives a file: a tenth validates, a tenth tests.

    Every file of a speaker falls into one split.
    Source: ``which_set`` in the archive's README and in Warden 2018, section 7.
    """
    speaker = _NOHASH.sub("", Path(file_name).name)
    digest = int(hashlib.sha1(speaker.encode()).hexdigest(), 16)
    percentage = digest % (_MOST_CLIPS_OF_A_WORD + 1) * (100.0 / _MOST_CLIPS_OF_A_WORD)
    if percentage < 10.0:
        return "validation"
    return "test" if percentage < 20.0 else "train"


def _is_archive(root: Path) -> bool:
    """Whether a folder is a published test archive, by its name or by what it has and lacks."""
    if root.resolve().name.startswith(ARCHIVE):
        return True
    whole = any((root / name).exists() for name in (NOISE_FOLDER, *LISTS.values()))
    return not whole and any((root / label).is_dir() for label in (SILENCE, UNKNOWN))


def _sound_files(root: Path, folders: str) -> list[Path]:
    return [path for path in root.glob(f"{folders}/*") if is_sound_file(path)]


def _is_word_clip(path: Path) -> bool:
    return not path.parent.name.startswith(("_", ".")) and bool(_NOHASH.search(path.stem))


def _read_lists(root: Path) -> dict[str, str] | None:
    """Split of each listed clip by ``WORD/NAME`` without suffix; None where no list is there."""
    absent = [name for name in LISTS.values() if not (root / name).is_file()]
    if len(absent) == 1:
        raise ValueError(
            f"{root} lacks {absent[0]} but has the other of the two split lists, so its splits "
            f"cannot be told; put {absent[0]} back (or remove both to split by the published hash)"
        )
    if absent:
        warnings.warn(
            f"{root} has neither {' nor '.join(absent)}: clips are split by the published hash "
            f"of the speaker",
            stacklevel=3,
        )
        return None
    listed: dict[str, str] = {}
    for split, name in LISTS.items():
        for line in (root / name).read_text(encoding="utf-8-sig").splitlines():
            entry = _without_suffix(line.strip())
            if listed.get(entry, split) != split:
                raise ValueError(f"{entry} is in both split lists of {root}; mend {name}")
            if entry:
                listed[entry] = split
    return listed


def _word_clip(path: Path, root: Path, listed: dict[str, str] | None) -> Clip:
    source = path.relative_to(root).as_posix()
    if listed is None:
        split = split_by_hash(path.stem)
    else:
        split = listed.get(_without_suffix(source), "train")
    speaker = _NOHASH.sub("", path.stem)
    return Clip(path, source, label=path.parent.name, split=split, speaker=speaker, licence=LICENCE)


def _noise_clip(path: Path, root: Path) -> Clip:
    return Clip(path, path.relative_to(root).as_posix(), split="noise", licence=LICENCE)


def _missing(listed: dict[str, str], clips: list[Clip], root: Path) -> list[Clip]:
    """Clips of the split lists whose files are not there, in an archive neither: to be counted."""
    there = {"/".join(Path(_without_suffix(clip.source)).parts[-2:]) for clip in clips}
    names = sorted(set(listed) - there)
    return [_word_clip(root / f"{name}.wav", root, listed) for name in names]


def _without_suffix(source: str) -> str:
    return source[: -len(Path(source).suffix)] if Path(source).suffix else source


def _with_archives(words: Sequence[Clip], root: Path) -> list[Clip]:
    """The words, marked where a test archive has them too, and what it has besides."""
    clips = {_without_suffix(clip.source): clip for clip in words}
    trained = 0
    for archive, path, source in _archived_files(root):
        name = _without_suffix(f"{path.parent.name}/{path.name}")
        if name not in clips:
            clips[_without_suffix(source)] = Clip(
                path, source, path.parent.name, split="test", licence=LICENCE, subsets=(archive,)
            )
            continue
        trained += clips[name].split != "test"
        subsets = (*clips[name].subsets, archive)
        clips[name] = replace(clips[name], split="test", subsets=subsets)
    if trained:
        warnings.warn(
            f"{trained} clips that train or validate by the split of {root} are in a test archive: "
            f"they test",
            stacklevel=3,
        )
    return list(clips.values())


def _archived_files(root: Path) -> Iterator[tuple[str, Path, str]]:
    """Subset, path and source of every sound of the test archives."""
    for label in (SILENCE, UNKNOWN):
        for path in one_of_each(_sound_files(root, label)):
            yield ARCHIVE, path, path.relative_to(root).as_posix()
    beside = root.resolve().parent
    folders = {place.name: place for place in beside.glob(f"{ARCHIVE}_v0.0*") if place.is_dir()}
    folders.pop(root.resolve().name, None)
    folders |= {place.name: place for place in root.glob(f"{ARCHIVE}_v0.0*") if place.is_dir()}
    for name, folder in sorted(folders.items()):
        archive = name[: len(f"{ARCHIVE}_v0.0N")]
        for path in one_of_each(_sound_files(folder, "*")):
            if _is_word_clip(path) or path.parent.name in (SILENCE, UNKNOWN):
                above = "" if folder.parent == root else "../"
                yield archive, path, f"{above}{path.relative_to(folder.parent).as_posix()}"
