"""What a folder of shards holds: ``index.json``, and offsets to every clip, memory-mapped.

In:  a folder that ``sslaudio shards build`` wrote.
Out: counts and totals without opening a tar; any clip's audio and JSON by one read each.

The files are described in sslaudio/data/layout.py.
"""

import json
import os
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from sslaudio.data.layout import (
    OFFSETS,
    SPLIT_CODES,
    TAR_BLOCK,
    Content,
    read_index,
    size_problem,
)

_OPEN_TARS = 64


@dataclass(frozen=True)
class Example:
    """One labelled clip, for whoever reads shards clip by clip."""

    key: str
    fields: dict[str, Any]
    """The clip's JSON: ``label`` or ``labels``, ``split``, ``fold``, … as the corpus tells."""
    shard: Path
    byte_range: tuple[int, int]
    """(offset, size) of the audio inside ``shard``, for :func:`sslaudio.data.decode.decode`."""
    samples: int
    """Length at the index's sample rate."""


@dataclass(frozen=True)
class StoredClip:
    """All of one clip, as it lies in its shard."""

    key: str
    fields: dict[str, Any]
    """Its JSON."""
    audio: bytes
    """Its encoded sound."""
    samples: int
    """Length at the index's sample rate."""


class Index:
    """A folder of shards, opened; :meth:`open` checks that it is whole."""

    def __init__(self, folder: Path, content: Content) -> None:
        self.folder = folder
        self.corpus = content.corpus
        self.sample_rate = content.sample_rate
        """Hz of every clip."""
        self.codec = content.codec
        self.settings = content.settings
        """What was built from what; a build with other settings is another folder."""
        self.totals = content.totals
        self.shards = content.shards
        self._offsets: dict[int, np.ndarray] = {}
        self._tars: OrderedDict[int, int] = OrderedDict()

    @classmethod
    def open(cls, folder: Path) -> "Index":
        """Read ``index.json`` and check the sizes of the files it names.

        Raises:
            ValueError: the folder or its index is missing, of another version, or does not
                fit the files; the message names the file and the command that helps.
        """
        index = cls(folder, read_index(folder))
        for shard in index.shards:
            problem = size_problem(folder, shard)
            if problem:
                raise ValueError(f"{folder}: {problem}; run `sslaudio shards verify {folder}`")
        return index

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Index.open, (self.folder,)

    @property
    def split_names(self) -> list[str]:
        """The splits that its clips have, in their usual order; "" is none."""
        return [split for split in SPLIT_CODES if split in self.totals.splits]

    def offsets(self, shard: int) -> np.ndarray:
        """The offsets of a shard's clips: :data:`OFFSETS` records, memory-mapped."""
        if shard not in self._offsets:
            path = self.folder / self.shards[shard].offsets_name
            # As a plain array: a memmap takes ten times as long to give one row.
            rows = np.memmap(path, OFFSETS, "r") if path.stat().st_size else np.empty(0, OFFSETS)
            self._offsets[shard] = rows.view(np.ndarray)
        return self._offsets[shard]

    def clip(self, shard: int, member: int) -> StoredClip:
        """All of a clip, undecoded, by one read: its header, sound and JSON are neighbours."""
        row = self.offsets(shard)[member].item()
        audio_at, json_after, audio_bytes, json_bytes, samples, crc32, _, _ = row
        size = TAR_BLOCK + json_after + json_bytes
        data = self._read(shard, audio_at - TAR_BLOCK, size)
        if zlib.crc32(data) != crc32:
            raise self.corrupt(shard, _key(data), "its checksum is not its index's")
        fields = self._fields(data[TAR_BLOCK + json_after :], shard, member)
        return StoredClip(_key(data), fields, data[TAR_BLOCK : TAR_BLOCK + audio_bytes], samples)

    def examples(self) -> Iterator[Example]:
        """Every clip of every shard, in the order of the tars."""
        for number, shard in enumerate(self.shards):
            for member, row in enumerate(self.offsets(number)):
                audio_at, json_after, audio_bytes, json_bytes, samples, *_ = row.item()
                text = self._read(number, audio_at + json_after, json_bytes)
                yield Example(
                    _key(self._read(number, audio_at - TAR_BLOCK, TAR_BLOCK)),
                    self._fields(text, number, member),
                    self.folder / shard.name,
                    (audio_at, audio_bytes),
                    samples,
                )

    def split_counts(self, splits: tuple[str, ...]) -> Int64[np.ndarray, "shards"]:
        """Clips of the given splits in each shard, from the index alone."""
        counts = [sum(shard.splits.get(split, 0) for split in splits) for shard in self.shards]
        return np.array(counts, np.int64)

    def corrupt(self, shard: int, key: str, reason: str) -> ValueError:
        """The error that says which clip of which shard is corrupt, and what to do."""
        return ValueError(
            f"{self.folder / self.shards[shard].name}: clip {key} is corrupt ({reason}); run "
            f"`sslaudio shards verify {self.folder}`, then build the shards again"
        )

    def _fields(self, text: bytes, shard: int, member: int) -> dict[str, Any]:
        try:
            fields = json.loads(text)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise self.corrupt(shard, str(member), "its JSON is broken")
        return fields

    def _read(self, shard: int, offset: int, size: int) -> bytes:
        if shard not in self._tars:
            if len(self._tars) >= _OPEN_TARS:
                os.close(self._tars.popitem(last=False)[1])
            self._tars[shard] = os.open(self.folder / self.shards[shard].name, os.O_RDONLY)
        self._tars.move_to_end(shard)
        # pread and no mmap: a tar cut short while it is read must not kill the process.
        sound = offset >= 0 and size >= 0 and offset + size <= self.shards[shard].bytes
        data = os.pread(self._tars[shard], size, offset) if sound else b""
        if len(data) < size or not sound:
            raise ValueError(
                f"{self.folder / self.shards[shard].name} does not hold a clip "
                f"where its offsets say; "
                f"run `sslaudio shards verify {self.folder}`"
            )
        return data

    def __del__(self) -> None:
        for descriptor in getattr(self, "_tars", {}).values():
            os.close(descriptor)


def labelled_examples(folder: Path) -> Iterator[Example]:
    """Every clip of a folder of shards with its labels and where its sound lies."""
    return Index.open(folder).examples()


def _key(header: bytes) -> str:
    """A clip's key from its tar header: the file name without the suffix."""
    return header[:100].rstrip(b"\0").decode("ascii", "replace").partition(".")[0]
