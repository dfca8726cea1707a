"""Embeddings that were worked out once: kept in a folder, by encoder and clip.

In:  an encoder and clips.
Out: their embeddings, read where they are kept and worked out where not.

An encoder is known by its weights, its front end and its pooling; a clip by its key, its place
in its file, and the file's size and time. So a checkpoint that trains on, or a corpus that was
mended, is embedded anew.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from sslaudio import ranks
from sslaudio.backbones.encoder import Encoder
from sslaudio.downstream.predictions import DAMAGED
from sslaudio.tasks.base import Example
from sslaudio.training import runs
from sslaudio.training.storage import replacing

CLIPS_A_FILE = 4_096
"""Clips that are worked out before they are written down: what a kill may cost."""
Embed = Callable[[Encoder, Sequence[Example]], Float[np.ndarray, "clips dim"]]


class Cache:
    """A folder of embeddings.

    Args:
        folder: made if absent.
        work_out: gives the embeddings that are not there.
        writes: whether this process writes them down; of several, one does.
    """

    def __init__(self, folder: Path, work_out: Embed, writes: bool) -> None:
        self.folder, self.work_out, self.writes = folder, work_out, writes
        self.held: dict[str, dict[str, np.ndarray]] = {}
        _size.cache_clear()

    def __call__(
        self, encoder: Encoder, examples: Sequence[Example]
    ) -> Float[np.ndarray, "clips dim"]:
        """Embeddings of clips, in the order given."""
        name = named(encoder)
        held = self._read(name)
        names = [clip_name(example) for example in examples]
        own = [place for place, clip in enumerate(names) if clip not in held]
        # Folders may differ between machines: what one lacks, all work out together.
        absent = sorted({place for places in ranks.all_values(own) for place in places})
        for first in range(0, len(absent), CLIPS_A_FILE):
            places = absent[first : first + CLIPS_A_FILE]
            rows = self.work_out(encoder, [examples[place] for place in places])
            fresh = {names[place]: row for place, row in zip(places, rows, strict=True)}
            held |= fresh
            if self.writes:
                self._write(name, fresh)
        return np.stack([held[clip] for clip in names])

    def _read(self, name: str) -> dict[str, np.ndarray]:
        """What the folder holds of an encoder; a file that is damaged is as good as none."""
        if name not in self.held:
            self.held[name] = {}
            for file in sorted((self.folder / name).glob("*.npz")):
                try:
                    with np.load(file, allow_pickle=False) as part:
                        keys, rows = part["clips"].tolist(), part["embeddings"]
                except (*DAMAGED, KeyError):
                    continue
                self.held[name] |= dict(zip(keys, rows, strict=False))
        return self.held[name]

    def _write(self, name: str, rows: dict[str, np.ndarray]) -> None:
        clips = np.array(list(rows), np.str_)
        part = hashlib.sha256("".join(rows).encode()).hexdigest()[:16]
        path = self.folder / name / f"{part}-{os.getpid()}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft, draft.open("wb") as file:
            np.savez(file, clips=clips, embeddings=np.stack(list(rows.values())))


def named(encoder: Encoder) -> str:
    """A name that changes with whatever changes an encoder's embeddings."""
    front_end = encoder.front_end
    settings = {
        **asdict(front_end.config),
        "mean": front_end.mean,
        "std": front_end.std,
        "pooling": encoder.pooling,
        "pooled_block": encoder.pooled_block,
        "window": encoder.window_columns,
    }
    told = json.dumps([runs.digest(encoder.backbone), settings], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def clip_name(example: Example) -> str:
    """A name that changes with whatever is heard as this clip."""
    place = (example.start_seconds, example.seconds, example.byte_range)
    size = _size(example.path)
    told = f"{example.path.absolute()} {size} {place} {example.key}"
    return hashlib.sha256(told.encode()).hexdigest()[:24]


@lru_cache(maxsize=1 << 20)
def _size(path: Path) -> tuple[int, int]:
    """Bytes of a file and when it was written, looked up once: every cell of an evaluation asks."""
    told = path.stat()
    return told.st_size, told.st_mtime_ns
