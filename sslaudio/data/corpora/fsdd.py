"""Free Spoken Digit Dataset (Jackson et al., github.com/Jakobovski/free-spoken-digit-dataset).

In:  ``recordings/<digit>_<speaker>_<n>.wav`` (or another suffix).
Out: one clip a file with its digit, speaker and published split: ``n`` of 0 to 4 tests, the
     rest trains.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from sslaudio.data.corpora.base import (
    Clip,
    Download,
    Source,
    is_sound_file,
    one_of_each,
    warn_of_left_out,
)

LICENCE = "CC BY-SA 4.0"
TEST_TAKES = 5
"""Takes of each digit and speaker that test: the first ones, by the corpus's README."""

LAYOUT = "recordings/DIGIT_SPEAKER_N.wav (or .flac)"
"""What a folder is known by."""

_COMMIT = "d6938f9bf1545aa66d8489fc9f1385a7abd64282"
DOWNLOADS = (
    Download(
        "",
        (
            Source(
                f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{_COMMIT}.zip",
                16_200_000,
            ),
        ),
        unpacked_bytes=30_000_000,
        inside=f"free-spoken-digit-dataset-{_COMMIT}",
        sounds=3_000,
    ),
)
"""Release 1.0.10. GitHub packs it anew for everyone, and its bytes may change."""

_NAME = re.compile(r"(?P<digit>[0-9])_(?P<speaker>.+)_(?P<take>[0-9]+)")


@dataclass(frozen=True)
class Config:
    """Nothing to choose: the corpus tells all."""


def recognises(root: Path) -> bool:
    """Whether a folder is this corpus as published."""
    return any(
        is_sound_file(path) and _NAME.fullmatch(path.stem) for path in root.glob("recordings/*")
    )


def build(config: Config, root: Path) -> list[Clip]:
    """Every recording, sorted by path."""
    there = [path for path in root.glob("recordings/*") if is_sound_file(path)]
    named = [path for path in there if _NAME.fullmatch(path.stem)]
    clips = [
        _clip(path, root, name)
        for path in one_of_each(named)
        if (name := _NAME.fullmatch(path.stem))
    ]
    if not clips:
        raise ValueError(
            f"{root} is not FSDD: looked for {LAYOUT}; "
            f"set --root to the folder that holds recordings/"
        )
    warn_of_left_out(set(there) - set(named), f"their names are not like {LAYOUT}")
    return sorted(clips, key=lambda clip: clip.source)


def _clip(path: Path, root: Path, name: re.Match[str]) -> Clip:
    return Clip(
        path,
        path.relative_to(root).as_posix(),
        label=name["digit"],
        split="test" if int(name["take"]) < TEST_TAKES else "train",
        speaker=name["speaker"],
        licence=LICENCE,
    )
