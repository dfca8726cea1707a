"""Three classes; three clips train, two validate, two test."""

import json
from pathlib import Path

from miniatures import sounds

VOCABULARY = "0,Bark,/m/05tny_\n1,Dog,/m/0bt9lr\n2,Rain,/m/06mb1\n"
BARK, RAIN = '"Bark,Dog","/m/05tny_,/m/0bt9lr"', "Rain,/m/06mb1"
DEV = {"64760": f"{BARK},train", "9": f"{RAIN},train", "10": f"{BARK},train"}
DEV |= {"16399": f"{RAIN},val", "16401": f"{BARK},val"}
EVAL = {"37199": RAIN, "175151": BARK}


def make(root: Path) -> None:
    truth = root / "FSD50K.ground_truth"
    truth.mkdir(parents=True)
    (truth / "vocabulary.csv").write_text(VOCABULARY)
    parts = {"dev": ("fname,labels,mids,split", DEV), "eval": ("fname,labels,mids", EVAL)}
    for part, (head, rows) in parts.items():
        lines = [head, *(f"{name},{told}" for name, told in rows.items())]
        (truth / f"{part}.csv").write_text("\n".join(lines) + "\n")
        sounds(root, *(f"FSD50K.{part}_audio/{name}.wav" for name in rows))
    info = root / "FSD50K.metadata" / "dev_clips_info_FSD50K.json"
    info.parent.mkdir()
    info.write_text(json.dumps({"64760": {"title": "bark", "license": "CC0"}}))
