"""Sounds at two depths, of three suffixes."""

from pathlib import Path

from miniatures import sounds


def make(root: Path) -> None:
    sounds(root, "b/2.wav", "b/1.flac", "a.ogg", "b.wav")
