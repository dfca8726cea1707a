"""What a folder of shards holds: ``index.json``, and offsets to every clip, memory-mapped.

In:  a folder that ``sslaudio shards build`` wrote.
Out: counts and totals without opening a tar; any clip's audio and JSON by one read each.

The files are described in shards/README.md.
"""

import json
import os
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

VERSION = 1
"""Of ``index.json`` and of the offsets files."""
INDEX_NAME = "index.json"
SPLIT_CODES = ("", "train", "validation", "test", "noise")
"""A clip's ``split`` as the number in the offsets file; 0 is a clip without one."""
OFFSETS = np.dtype(
    [
        ("audio_offset", "<u8"),
        ("json_offset", "<i4"),
        ("audio_bytes", "<u4"),
        ("json_bytes", "<u4"),
        ("samples", "<u4"),
        ("crc32", "<u4"),
        ("split", "u1"),
        ("spare", "V3"),
    ]
)
"""One clip in an offsets file: 32 bytes, little-endian.

``audio_offset`` counts from the tar's first byte, ``json_offset`` from the sound's; ``crc32`` is
of the tar's bytes from the header before the sound to the end of the JSON."""

TAR_BLOCK = 512
"""Bytes of a tar member's header; its content is filled up to a multiple of them."""

_OPEN_TARS = 64


@dataclass(frozen=True)
class Shard:
    """One tar, as ``index.json`` tells of it."""

    name: str
    """File name."""
    samples: int
    """Clips in it (webdataset's word)."""
    seconds: float
    """Of sound."""
    bytes: int
    """Size of the tar."""
    sha256: str
    """Of the tar."""
    splits: dict[str, int]
    """Clips in each split; "" is no split."""
    inputs: str
    """SHA-256 over the bytes of the source files, in order."""

    @property
    def offsets_name(self) -> str:
        """File name of its offsets."""
        return Path(self.name).with_suffix(".idx").name


@dataclass(frozen=True)
class Totals:
    """What all shards of a folder hold together."""

    clips: int = 0
    seconds: float = 0.0
    bytes: int = 0
    rejected: int = 0
    """Source files left out; ``rejected.jsonl`` names them."""
    splits: dict[str, dict[str, float]] = field(default_factory=dict)
    """Clips and seconds in each split; "" is no split."""
    labels: dict[str, int] = field(default_factory=dict)
    """Clips that bear each label."""
    licences: dict[str, int] = field(default_factory=dict)
    """Clips under each licence; "" where it is not known."""


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

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.folder = folder
        self.corpus: str = content["corpus"]
        self.sample_rate: int = content["sample_rate"]
        """Hz of every clip."""
        self.codec: str = content["codec"]
        self.settings: dict[str, Any] = content["settings"]
        """What was built from what; a build with other settings is another folder."""
        self.totals = Totals(**content["totals"])
        self.shards = [Shard(**shard) for shard in content["shards"]]
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


def read_index(folder: Path) -> dict[str, Any]:
    """The content of ``index.json``, checked for version and form."""
    path = folder / INDEX_NAME
    if not folder.is_dir():
        raise ValueError(f"there is no folder of shards {folder}; {_how_to_build(folder)}")
    if not path.is_file():
        raise ValueError(f"{folder} has no {INDEX_NAME}: {_how_to_build(folder)}")
    try:
        content = json.loads(path.read_bytes())
        version = content["version"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no index of shards: {error}; build it again") from error
    if version != VERSION:
        raise ValueError(
            f"{path} has version {version}, this sslaudio reads {VERSION}; "
            f"build the shards again with this version"
        )
    missing = {"corpus", "sample_rate", "codec", "settings", "totals", "shards"} - set(content)
    if missing:
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}; build the shards again")
    return content


def index_content(settings: dict[str, Any], totals: Totals, shards: list[Shard]) -> dict[str, Any]:
    """What ``index.json`` holds."""
    return {
        "version": VERSION,
        "corpus": settings["corpus"],
        "sample_rate": settings["sample_rate"],
        "codec": settings["codec"],
        "settings": settings,
        "totals": asdict(totals),
        "shards": [asdict(shard) for shard in shards],
    }


def size_problem(folder: Path, shard: Shard) -> str | None:
    """What is wrong with the sizes of a shard's two files, or None."""
    expected = {shard.name: shard.bytes, shard.offsets_name: shard.samples * OFFSETS.itemsize}
    for name, size in expected.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        found = path.stat().st_size
        if found < size:
            return f"{name} is truncated: {found} of {size} bytes"
        if found > size:
            return f"{name} is altered: {found} bytes, the index says {size}"
    return None


def _key(header: bytes) -> str:
    """A clip's key from its tar header: the file name without the suffix."""
    return header[:100].rstrip(b"\0").decode("ascii", "replace").partition(".")[0]


def _how_to_build(folder: Path) -> str:
    return f"make one with `sslaudio shards build --corpus NAME --root DIR --out {folder}`"
