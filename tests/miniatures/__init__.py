"""Miniatures of published layouts: a few short sounds each, made in milliseconds.

``miniatures/NAME.py`` has ``make(root)``, which lays corpus NAME out below a folder.
"""

import importlib
from pathlib import Path

import numpy as np
import soundfile


def make(corpus: str, root: Path) -> Path:
    """Lay the miniature of a corpus out below ``root``."""
    importlib.import_module(f"miniatures.{corpus}").make(root)
    return root


def sounds(root: Path, *sources: str, seconds: float = 0.05, rate: int = 8_000) -> None:
    """Write short sounds, each of its own pitch."""
    times = np.arange(round(seconds * rate)) / rate
    for source in sources:
        (root / source).parent.mkdir(parents=True, exist_ok=True)
        hertz = 200 + sum(source.encode()) % 1_000
        soundfile.write(root / source, 0.1 * np.sin(2 * np.pi * hertz * times), rate)
