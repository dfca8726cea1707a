"""Three instruments of two families train; one of each family, another, validates and tests."""

import json
from pathlib import Path

from miniatures import sounds

INSTRUMENTS = {
    "nsynth-train": ("bass_synthetic_033", "bass_electronic_025", "organ_electronic_028"),
    "nsynth-valid": ("bass_synthetic_098", "organ_electronic_001"),
    "nsynth-test": ("bass_synthetic_098", "organ_electronic_001"),
}


def make(root: Path) -> None:
    for place, (folder, instruments) in enumerate(INSTRUMENTS.items()):
        notes = {}
        for instrument in instruments:
            for pitch in (60, 61):
                note = f"{instrument}-0{pitch}-{25 * (place + 1):03d}"
                sounds(root, f"{folder}/audio/{note}.wav")
                family = instrument.split("_")[0]
                notes[note] = {"instrument_str": instrument, "instrument_family_str": family}
        (root / folder / "examples.json").write_text(json.dumps(notes))
