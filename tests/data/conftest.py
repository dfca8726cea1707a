"""Small corpora and shards whose contents are known."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sslaudio.data.corpora.base import Clip
from sslaudio.data.progress import silent
from sslaudio.data.shards import build

RATE = 16_000
SPLITS = ("train", "train", "train", "validation", "test")


def write_tones(folder: Path, count: int, *, seconds: float = 0.05) -> list[Clip]:
    """Clips whose n-th holds the constant value n / 1000; lengths grow by one sample a clip."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for number in range(count):
        path = folder / f"clip {number:03d}.wav"
        samples = round(seconds * RATE) + number
        soundfile.write(path, np.full(samples, number / 1000), RATE, "PCM_16")
        clips.append(
            Clip(
                path,
                path.name,
                label="even" if number % 2 == 0 else "odd",
                split=SPLITS[number % len(SPLITS)],
                fold=number % 4 + 1,
                recording=f"r{number // 2}",
                speaker=("anna", "bert", "cleo")[number % 3],
                licence="CC0 1.0",
            )
        )
    return clips


@pytest.fixture(scope="session")
def make_clips():
    return write_tones


@pytest.fixture(scope="session")
def shards_folder(tmp_path_factory) -> Path:
    """50 clips in 5 shards: 30 train, 10 validate, 10 test. Read only."""
    folder = tmp_path_factory.mktemp("shards")
    clips = write_tones(folder / "sounds", 50)
    build(clips, folder / "out", corpus="toy", clips_per_shard=10, jobs=1, progress=silent)
    return folder / "out"


@pytest.fixture(scope="session")
def second_folder(tmp_path_factory) -> Path:
    """20 clips in 4 shards of another corpus, all without a split. Read only."""
    folder = tmp_path_factory.mktemp("second")
    clips = [
        Clip(clip.path, f"second/{clip.source}", speaker="dora")
        for clip in write_tones(folder / "sounds", 20)
    ]
    build(clips, folder / "out", corpus="second", clips_per_shard=5, jobs=1, progress=silent)
    return folder / "out"
