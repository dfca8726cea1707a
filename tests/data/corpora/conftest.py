"""Miniatures of corpora in their published layout, and the real ones where they are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

REAL = Path(os.environ.get("SSLAUDIO_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.fixture
def write_sounds(tmp_path):
    """Writes short sounds at paths below a fresh root, and returns the root."""

    def write(*sources: str, rate: int = 16_000) -> Path:
        for source in sources:
            path = tmp_path / "corpus" / source
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = path.suffix[1:].upper()
            soundfile.write(path, np.zeros(160), rate, format=kind)
        return tmp_path / "corpus"

    return write


@pytest.fixture
def real_corpus():
    """Path of a real corpus; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        if not (REAL / name).is_dir():
            pytest.skip(f"{name} is not in {REAL}; set SSLAUDIO_DATA")
        return REAL / name

    return find
