"""Miniatures of the published layouts: a few short sounds each, made in milliseconds."""

from pathlib import Path

import numpy as np
import pytest
import soundfile


def write_sound(path: Path, seconds: float = 0.05, rate: int = 8_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    waveform = 0.1 * np.sin(np.arange(round(seconds * rate)))
    soundfile.write(path, waveform, rate)
    return path


@pytest.fixture(scope="session")
def sound():
    """Write a short sound to a path."""
    return write_sound


@pytest.fixture
def shared():
    """Real audio for development beside the repository; tests that need it skip without."""

    def folder(name: str) -> Path:
        root = Path(__file__).parents[3] / "shared" / "data" / name
        if not root.is_dir():
            pytest.skip(f"{root} is not there")
        return root

    return folder
