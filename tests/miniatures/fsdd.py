"""Two digits, two speakers, eight takes and an eleventh."""

from pathlib import Path

from miniatures import sounds


def make(root: Path) -> None:
    takes = (*range(8), 10)
    names = [f"{n}_{who}_{take}.wav" for n in (7, 0) for who in ("bob", "ada") for take in takes]
    sounds(root, *(f"recordings/{name}" for name in names))
