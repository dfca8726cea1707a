"""Three words, three speakers, one of each part, and background noise."""

from pathlib import Path

from miniatures import sounds

PARTS = {"aaaaaaaa": None, "bbbbbbbb": "validation", "cccccccc": "testing"}


def make(root: Path) -> None:
    for word in ("yes", "no", "visual"):
        for speaker, part in PARTS.items():
            sounds(root, f"{word}/{speaker}_nohash_0.wav")
            if part:
                with (root / f"{part}_list.txt").open("a") as names:
                    names.write(f"{word}/{speaker}_nohash_0.wav\n")
    sounds(root, "_background_noise_/hum.wav")
