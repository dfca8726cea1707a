"""Three sessions, each with a dialogue of six emotions by two speakers."""

from pathlib import Path

from miniatures import sounds

CODES = {"F000": "neu", "M000": "ang", "F001": "exc", "M001": "sad", "F002": "fru", "M002": "xxx"}


def make(root: Path) -> None:
    for session in (1, 2, 3):
        dialogue = f"Ses0{session}F_script01_1"
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for turn, code in CODES.items():
            sounds(root, f"Session{session}/sentences/wav/{dialogue}/{dialogue}_{turn}.wav")
            lines.append(f"[6.2901 - 8.2357]\t{dialogue}_{turn}\t{code}\t[2.5000, 2.5000, 2.5000]")
            lines.append("C-E2:\tNeutral;\t()")
        table = root / f"Session{session}" / "dialog" / "EmoEvaluation" / f"{dialogue}.txt"
        table.parent.mkdir(parents=True)
        table.write_text("\n".join(lines) + "\n")
