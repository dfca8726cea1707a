"""The files of a folder of shards: what ``index.json`` and the offsets files say, and how.

Described in shards/README.md.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import UInt64
from pydantic import TypeAdapter, ValidationError

from sslaudio.data.corpora.base import SPLITS
from sslaudio.data.encode import CODECS
from sslaudio.data.places import Local, Place

VERSION = 2
"""Of ``index.json`` and of the offsets files."""
INDEX_NAME = "index.json"
SPLIT_CODES = ("", *SPLITS)
"""A clip's ``split`` as the number in the offsets file; 0 is a clip without one."""
OFFSETS = np.dtype(
    [
        ("audio_offset", "<u8"),
        ("json_offset", "<i4"),
        ("audio_bytes", "<u4"),
        ("json_bytes", "<u4"),
        ("samples", "<u4"),
        ("crc32", "<u4"),
        ("marks", "<u8"),
    ]
)
"""One clip in an offsets file: 36 bytes, little-endian.

``audio_offset`` counts from the tar's first byte, ``json_offset`` from the sound's; ``crc32`` is
of the tar's bytes from the header before the sound to the end of the JSON; ``marks`` are split and
recording, see :func:`marks`."""

FOREIGN = "foreign"
"""The codec of tars that others made: any, and any rate."""

RATES = range(1_000, 384_001)
"""Hz that the clips of shards may have."""

TAR_BLOCK = 512
"""Bytes of a tar member's header; its content is filled up to a multiple of them."""

LONGEST_JSON = 1 << 20
"""Bytes of a clip's JSON; more is no description of a clip."""

_LARGEST = 1 << 50
"""Bytes of a tar; more is no size."""
_SPLIT_BITS = 8


def marks(split: str | None, recording: str) -> int:
    """Split and recording of a clip in 64 bits.

    The low eight are the split's place in :data:`SPLIT_CODES`, the others :func:`mark_of` the
    recording; a clip whose recording is not told is its own, by its source.
    """
    return SPLIT_CODES.index(split or "") | mark_of(recording) << _SPLIT_BITS


def mark_of(recording: str) -> int:
    """A number above 0, of 56 bits, for the name of a recording: a hash of it.

    Of a hundred million recordings two are likely to be taken for one another.
    """
    digest = hashlib.sha256(recording.encode("utf-8", "surrogatepass")).digest()
    return max(1, int.from_bytes(digest[:7]))


def splits_marked(rows: np.ndarray) -> UInt64[np.ndarray, "clips"]:
    """Place in :data:`SPLIT_CODES` of each clip's split, from its record."""
    return rows["marks"] & np.uint64((1 << _SPLIT_BITS) - 1)


def recordings_marked(rows: np.ndarray) -> UInt64[np.ndarray, "clips"]:
    """:func:`mark_of` each clip's recording, from its record."""
    return rows["marks"] >> np.uint64(_SPLIT_BITS)


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
    offsets_crc32: int
    """Of the offsets file."""
    splits: dict[str, int]
    """Clips in each split; "" is no split."""
    inputs: str
    """SHA-256 over the bytes of the source files, in order."""

    @property
    def offsets_name(self) -> str:
        """File name of its offsets."""
        return Path(self.name).with_suffix(".idx").name


@dataclass(frozen=True)
class SplitTotals:
    """What all shards hold of one split."""

    clips: int
    seconds: float
    """Of sound."""


@dataclass(frozen=True)
class Totals:
    """What all shards of a folder hold together."""

    clips: int
    seconds: float
    """Of sound."""
    bytes: int
    """Size of the tars."""
    rejected: int
    """Source files left out; ``rejected.jsonl`` names them."""
    splits: dict[str, SplitTotals]
    """What there is of each split; "" is no split."""
    labels: dict[str, int]
    """Clips that bear each label."""
    licences: dict[str, int]
    """Clips under each licence; "" where it is not known."""


@dataclass(frozen=True)
class Content:
    """What ``index.json`` says."""

    version: int
    """:data:`VERSION`."""
    corpus: str
    """Name of the importer."""
    sample_rate: int
    """Hz of every clip."""
    codec: str
    """Suffix of the clips' sound."""
    settings: dict[str, Any]
    """What was built from what; a build with other settings is another folder."""
    totals: Totals
    shards: list[Shard]

    @classmethod
    def of(cls, settings: dict[str, Any], totals: Totals, shards: list[Shard]) -> "Content":
        """Of a finished build with these settings."""
        told = {name: settings[name] for name in ("corpus", "sample_rate", "codec")}
        return cls(VERSION, settings=settings, totals=totals, shards=shards, **told)

    def to_json(self) -> bytes:
        """As it stands in the file: the same bytes every time."""
        return f"{json.dumps(asdict(self), indent=1, sort_keys=True)}\n".encode()


def read_index(folder: Path | Place) -> Content:
    """The content of ``index.json``, checked for version and form.

    Raises:
        ValueError: folder or file is missing, of another version, or a field is absent or of
            another type; the message names the file and the field.
        OSError: an address cannot be read.
    """
    place = Local(folder) if isinstance(folder, Path) else folder
    path = f"{place}/{INDEX_NAME}"
    if isinstance(place, Local) and not place.folder.is_dir():
        raise ValueError(f"there is no folder of shards {place}; {_how_to_build(place)}")
    try:
        text = place.read(INDEX_NAME)
    except FileNotFoundError:
        raise ValueError(f"{place} has no {INDEX_NAME}: {_how_to_build(place)}") from None
    try:
        version = json.loads(text)["version"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{path} is no index of shards: {reason}; build the shards again into a new folder"
        ) from error
    if version != VERSION:
        raise ValueError(
            f"{path} has version {version}, this sslaudio reads {VERSION}; "
            f"build the shards again with this version"
        )
    try:
        content = TypeAdapter(Content).validate_json(text, strict=True)
    except ValidationError as error:
        raise ValueError(_wrong_field(path, error)) from error
    wrong = "" if content.sample_rate in RATES else f"a sample_rate of {content.sample_rate} Hz"
    if content.codec not in (*CODECS, FOREIGN):
        wrong = f"the codec {content.codec!r}"
    if wrong:
        raise ValueError(f"{path} has {wrong}; build the shards again into a new folder")
    _check_shards(path, content.shards)
    return content


def _check_shards(path: str, shards: list[Shard]) -> None:
    """Refuse names that lead out of the folder, and counts that are none.

    Raises:
        ValueError: names the shard.
    """
    for shard in shards:
        wrong = None
        if not _is_tar_name(shard.name):
            wrong = "a name that is no plain file name of a tar"
        elif min(shard.samples, shard.bytes, *shard.splits.values(), 0) < 0:
            wrong = "a count below 0"
        elif not 0 <= shard.seconds < math.inf:
            wrong = f"{shard.seconds} seconds of sound"
        elif shard.bytes > _LARGEST or shard.samples * TAR_BLOCK > shard.bytes:
            wrong = f"{shard.samples} clips in {shard.bytes} bytes"
        elif not set(shard.splits) <= set(SPLIT_CODES):
            wrong = f"the splits {', '.join(shard.splits)}"
        elif sum(shard.splits.values()) != shard.samples:
            wrong = f"{shard.samples} clips, its splits {sum(shard.splits.values())}"
        if wrong:
            raise ValueError(
                f"{path}: the shard {shard.name!r} has {wrong}; build the shards again into a new "
                f"folder"
            )
    names = {shard.name for shard in shards}
    if len(names) < len(shards):
        raise ValueError(f"{path} names a shard twice; build the shards again into a new folder")


def _is_tar_name(name: str) -> bool:
    path = PurePosixPath(name)
    return path.name == name and path.suffix == ".tar" and not {"\\", "\0"} & set(name)


def _wrong_field(path: str, error: ValidationError) -> str:
    """The first field that is absent or of another type, in one line."""
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    wrong = f"lacks {name}"
    if first["type"] != "missing":
        wrong = f"has {name} {str(first['input'])[:40]!r}: {first['msg']}"
    return f"{path} {wrong}; build the shards again into a new folder"


def size_problem(place: Local, shard: Shard) -> str | None:
    """What is wrong with the sizes of a shard's two files, or None."""
    expected = {shard.name: shard.bytes, shard.offsets_name: shard.samples * OFFSETS.itemsize}
    for name, size in expected.items():
        found = place.size(name)
        if found is None:
            return f"{name} is missing"
        if found < size:
            return f"{name} is truncated: {found} of {size} bytes"
        if found > size:
            return f"{name} is altered: {found} bytes, the index says {size}"
    return None


def _how_to_build(place: Place) -> str:
    return f"make one with `sslaudio shards build --corpus NAME --root DIR --out {place}`"
