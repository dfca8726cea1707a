"""A table of eight files in two folders, two classes each."""

from pathlib import Path

from miniatures import sounds


def make(root: Path) -> None:
    lines = ["path,label,split"]
    for place in range(8):
        file = f"{'ab'[place % 2]}/{place}, é.wav"
        sounds(root, file)
        lines.append(f'"{file}","dog, wet",{"test" if place > 5 else "train"}')
    lines[1::2] = [line.replace("dog, wet", "猫") for line in lines[1::2]]
    (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
