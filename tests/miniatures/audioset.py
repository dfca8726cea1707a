"""All three parts, files under each of the names they are found by; one balanced clip validates."""

from pathlib import Path

from miniatures import sounds

COMMENTS = "# Segments csv created in a test\n# num_ytids=4\n# YTID, start_seconds, end_seconds\n"
CLASSES = (
    "index,mid,display_name\n"
    "0,/m/09x0r,Speech\n"
    '1,/t/dd00003,"Male speech, man speaking"\n'
    "2,/m/0bt9lr,Dog\n"
)
SPEECH, DOG = '"/t/dd00003,/m/09x0r"', '"/m/0bt9lr"'
PARTS = {
    "balanced_train": {"-train00001": SPEECH, "_train00002": DOG, "VALIDATES": SPEECH},
    "unbalanced_train": {"Ytrain00003": DOG, "train00004A": SPEECH},
    "eval": {"eval000000A": SPEECH, "eval000000B": DOG},
}
FILES = (
    "audio/balanced_train/-train00001.wav",
    "audio/balanced_train/Y_train00002.flac",
    "audio/balanced_train/VALIDATES_30.000_40.000.wav",
    "audio/unbalanced_train/part00/Ytrain00003.wav",
    "audio/unbalanced_train/part01/Ytrain00004A.wav",
    "eval/Yeval000000A_0_10.wav",
    "eval/eval000000B.ogg",
)
VALIDATES = "-valid00050"


def make(root: Path) -> None:
    root.mkdir(exist_ok=True)
    (root / "class_labels_indices.csv").write_text(CLASSES)
    for part, rows in PARTS.items():
        lines = [
            f"{name.replace('VALIDATES', VALIDATES)}, 30.000, 40.000, {mids}"
            for name, mids in rows.items()
        ]
        (root / f"{part}_segments.csv").write_text(COMMENTS + "\n".join(lines) + "\n")
    sounds(root, *(file.replace("VALIDATES", VALIDATES) for file in FILES))
