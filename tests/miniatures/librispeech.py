"""Four of the seven parts, two chapters each, with their transcripts."""

from pathlib import Path

from miniatures import sounds

CHAPTERS = {
    "train-clean-100": ("103-1240", "103-1241"),
    "train-other-500": ("20-205", "25-123319"),
    "dev-clean": ("84-121123", "174-50561"),
    "test-other": ("367-130732", "367-293981"),
}


def make(root: Path) -> None:
    for part, chapters in CHAPTERS.items():
        for chapter in chapters:
            folder = f"LibriSpeech/{part}/{chapter.replace('-', '/')}"
            names = [f"{chapter}-{number:04d}" for number in range(2)]
            sounds(root, *(f"{folder}/{name}.flac" for name in names), rate=16_000)
            lines = [f"{name} GO DO YOU HEAR\n" for name in names]
            (root / folder / f"{chapter}.trans.txt").write_text("".join(lines))
    speakers = "; comments\n;ID  |SEX| SUBSET           |MINUTES| NAME\n103 | F | train-clean-100 |"
    (root / "LibriSpeech" / "SPEAKERS.TXT").write_text(f"{speakers} 25.1 | Karen Savage\n")
