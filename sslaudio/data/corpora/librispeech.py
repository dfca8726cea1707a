"""LibriSpeech (Panayotov et al. 2015, doi:10.1109/ICASSP.2015.7178964): read English books.

In:  ``PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER-UTTERANCE.flac`` (or another suffix) below the root or
     its folder ``LibriSpeech``, PART one or more of the seven published ones, each chapter with its
     ``SPEAKER-CHAPTER.trans.txt``, if there.
Out: one clip an utterance with its part among its subsets, the split of that, its chapter as
     recording and its speaker. There is no label.

An utterance of a transcript whose file is missing becomes a clip whose path does not exist.
"""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sslaudio.data.corpora.base import Clip, Download, Source, sound_files, warn_of_left_out

PARTS = {
    "train-clean-100": "train",
    "train-clean-360": "train",
    "train-other-500": "train",
    "dev-clean": "validation",
    "dev-other": "validation",
    "test-clean": "test",
    "test-other": "test",
}
"""Published part to the split of its clips."""
HOLDER = "LibriSpeech"
"""The folder that the archives unpack to."""
LICENCE = "CC BY 4.0"
LAYOUT = f"PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER-UTTERANCE.flac (PART one of {', '.join(PARTS)})"
"""What a folder is known by."""

# Sizes and SHA-256: tensorflow/datasets, tensorflow_datasets/url_checksums/librispeech.txt;
# torchaudio/datasets/librispeech.py has the same SHA-256.
DOWNLOADS = tuple(
    Download(
        part,
        (
            Source(
                f"https://www.openslr.org/resources/12/{part}.tar.gz",
                size_bytes,
                f"sha256:{sha256}",
            ),
        ),
        unpacked_bytes=size_bytes,  # FLAC packs no further
        inside=HOLDER,
        is_default=part in ("train-clean-100", "dev-clean", "test-clean"),
        shared=("README.TXT", "LICENSE.TXT", "SPEAKERS.TXT", "CHAPTERS.TXT", "BOOKS.TXT"),
    )
    for part, size_bytes, sha256 in (
        (
            "train-clean-100",
            6_387_309_499,
            "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
        ),
        (
            "dev-clean",
            337_926_286,
            "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
        ),
        (
            "test-clean",
            346_663_984,
            "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
        ),
        (
            "dev-other",
            314_305_928,
            "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
        ),
        (
            "test-other",
            328_757_843,
            "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
        ),
        (
            "train-clean-360",
            23_049_477_885,
            "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
        ),
        (
            "train-other-500",
            30_593_501_606,
            "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
        ),
    )
)
"""An archive a part."""

_NAME = re.compile(r"(?P<speaker>[0-9]+)-(?P<chapter>[0-9]+)-[0-9]+")


@dataclass(frozen=True)
class Config:
    """Which parts."""

    subset: Literal[
        "all",
        "100",
        "460",
        "960",
        "train-clean-100",
        "train-clean-360",
        "train-other-500",
        "dev-clean",
        "dev-other",
        "test-clean",
        "test-other",
    ] = "all"
    """``all``: the parts that are there. ``100``, ``460``, ``960``: the first, the first two or all
    three of the training parts, by their hours. Or one of the parts."""

    def parts(self) -> tuple[str, ...]:
        """Names of the published parts."""
        hours = {"100": 1, "460": 2, "960": 3}
        if self.subset in hours:
            return tuple(PARTS)[: hours[self.subset]]
        return tuple(part for part in PARTS if self.subset in ("all", part))


def recognises(root: Path) -> bool:
    """Whether a folder is this corpus as published."""
    return any((holder / part).is_dir() for holder in (root, root / HOLDER) for part in PARTS)


def build(config: Config, root: Path) -> list[Clip]:
    """Every utterance of the parts asked for that are there, sorted by path."""
    holder = root / HOLDER if (root / HOLDER).is_dir() else root
    there = [part for part in config.parts() if (holder / part).is_dir()]
    clips = [clip for part in there for clip in _part(root, holder / part)]
    if not clips:
        asked = "" if config.subset == "all" else f"'s {' or '.join(config.parts())}"
        raise ValueError(
            f"{root} is not LibriSpeech{asked}: looked for {LAYOUT}; set "
            f"--root to the folder that holds them, or to the one that holds {HOLDER}/"
        )
    if config.subset != "all" and len(there) < len(config.parts()):
        absent = ", ".join(part for part in config.parts() if part not in there)
        warnings.warn(f"{holder} holds no {absent}: it is left out", stacklevel=2)
    return sorted(clips, key=lambda clip: clip.source)


def _part(root: Path, folder: Path) -> list[Clip]:
    files: dict[str, Path] = {}
    others = []
    for path in sound_files(folder):
        if not _NAME.fullmatch(path.stem) or files.setdefault(path.stem, path) != path:
            others.append(path)
    warn_of_left_out(
        others, f"they are not named as {folder.name}'s utterances or another file serves"
    )
    for name, chapter in _transcribed(folder):
        files.setdefault(name, chapter / f"{name}.flac")
    return [_clip(path, root, folder.name) for path in files.values()]


def _transcribed(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and folder of each utterance that a transcript tells."""
    for table in sorted(folder.glob("*/*/*.trans.txt")):
        if table.name.startswith("."):
            continue
        text = table.read_text(encoding="utf-8-sig", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            name = line.partition(" ")[0].strip()
            if name and not _NAME.fullmatch(name):
                raise ValueError(
                    f"{table}, line {number}: {line.strip()[:80]!r} does not begin with an "
                    f"utterance, as in '84-121123-0000 GO DO YOU HEAR'; restore the published file"
                )
            if name:
                yield name, table.parent


def _clip(path: Path, root: Path, part: str) -> Clip:
    told = _NAME.fullmatch(path.stem)
    assert told is not None, "as _part chose it"
    return Clip(
        path,
        path.relative_to(root).as_posix(),
        split=PARTS[part],
        recording=f"{told['speaker']}-{told['chapter']}",
        speaker=told["speaker"],
        licence=LICENCE,
        subsets=(part,),
    )
