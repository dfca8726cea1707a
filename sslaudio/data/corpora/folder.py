"""Any tree of sound files: a folder of one's own.

In:  a folder with WAV, FLAC, OGG (Vorbis or Opus) or MP3 files at any depth.
Out: one clip a file, all of split ``train``, sorted by path.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sslaudio.data.corpora.base import SUFFIXES, Clip, sound_files, warn_of_unread

LAYOUT = f"{', '.join(SUFFIXES)} at any depth"
"""What a folder is known by."""


@dataclass(frozen=True)
class Config:
    """How to read a tree of sound files."""

    label: Literal["none", "parent"] = "none"
    """``parent`` takes the name of the folder that a file lies in as its label."""


def recognises(root: Path) -> bool:
    """Whether a folder holds sound at all."""
    return bool(sound_files(root))


def build(config: Config, root: Path) -> list[Clip]:
    """Every sound file under ``root``; hidden files and folders are left out."""
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}; set --root to a folder of sound files")
    paths = sound_files(root)
    if not paths:
        raise ValueError(
            f"{root} holds no sound files: looked for {LAYOUT}; "
            f"set --root to a folder that has some"
        )
    warn_of_unread([root])
    return [_clip(path, root, config) for path in paths]


def _clip(path: Path, root: Path, config: Config) -> Clip:
    label = path.parent.name if config.label == "parent" else None
    if label is not None and path.parent == root:
        raise ValueError(
            f"{path} lies in {root} itself, so it has no parent folder to take its label from; "
            f"move it into one, or set --label none"
        )
    return Clip(path, path.relative_to(root).as_posix(), label=label, split="train")
