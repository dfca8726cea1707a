"""The files of a folder of shards: what ``index.json`` and the offsets files say, and how.

Described in shards/README.md.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sslaudio.data.corpora.base import SPLITS

VERSION = 1
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
        ("split", "u1"),
        ("spare", "V3"),
    ]
)
"""One clip in an offsets file: 32 bytes, little-endian.

``audio_offset`` counts from the tar's first byte, ``json_offset`` from the sound's; ``crc32`` is
of the tar's bytes from the header before the sound to the end of the JSON."""

TAR_BLOCK = 512
"""Bytes of a tar member's header; its content is filled up to a multiple of them."""


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


def _how_to_build(folder: Path) -> str:
    return f"make one with `sslaudio shards build --corpus NAME --root DIR --out {folder}`"
