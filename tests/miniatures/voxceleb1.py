"""Two speakers; of each, two videos train, one validates, one tests."""

from pathlib import Path

from miniatures import sounds

PARTS = {"aaaaaaaaaaa": 1, "-bbbbbbbbbb": 1, "ccccccccccc": 2, "ddddddddddd": 3}


def make(root: Path) -> None:
    lines = []
    for speaker in ("id10001", "id11251"):
        for video, code in PARTS.items():
            sounds(root, f"wav/{speaker}/{video}/00001.wav")
            lines.append(f"{code} {speaker}/{video}/00001.wav")
    (root / "iden_split.txt").write_text("\n".join(lines) + "\n")
