"""One shard from its source files: what a worker process of a build does.

In:  the clips of a shard, in order.
Out: the tar, its offsets, and a record of what went in and what was rejected and why.

Each file is written aside, flushed to the disk and renamed; the record comes last. So a shard
with a record is whole, and one without is made anew.
"""

import hashlib
import json
import os
import tarfile
import zlib
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float32

from sslaudio.data.corpora.base import Clip
from sslaudio.data.decode import DecodeError, decode_bytes, read_bytes
from sslaudio.data.encode import Codec, encode
from sslaudio.data.layout import OFFSETS, TAR_BLOCK, Shard, marks
from sslaudio.data.pieces import sought

WORK_FOLDER = ".build"
"""Inside ``--out``: records of finished shards, and files being written."""

Fields = dict[str, Any]


@dataclass(frozen=True)
class Packing:
    """One shard to be written."""

    name: str
    clips: tuple[Clip, ...]
    keys: tuple[str, ...]
    """One a clip."""
    out: Path
    sample_rate: int
    codec: Codec

    @property
    def record_path(self) -> Path:
        """Where the record of the finished shard lies while the build runs."""
        return self.out / WORK_FOLDER / Path(self.name).with_suffix(".json").name


@dataclass(frozen=True)
class Record:
    """What became of a shard's clips."""

    shard: Shard
    split_seconds: dict[str, float]
    labels: dict[str, int]
    licences: dict[str, int]
    rejected: list[tuple[str, float, str]]
    """(source, second at which the clip begins, reason) of each clip left out."""

    @classmethod
    def read(cls, path: Path) -> "Record":
        """From the JSON that :func:`pack` wrote."""
        return cls.of(json.loads(path.read_bytes()))

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Record":
        """From what such a JSON tells."""
        rejected = [(source, start, reason) for source, start, reason in content.pop("rejected")]
        return cls(Shard(**content.pop("shard")), rejected=rejected, **content)


def pack(packing: Packing) -> Record:
    """Decode, resample, encode and write one shard; then its record."""
    writer, work, shard_name = _Writer(), packing.out / WORK_FOLDER, packing.name
    temporary = work / f"{shard_name}.{os.getpid()}.tmp"
    with temporary.open("wb") as tar:
        for clip, key in zip(packing.clips, packing.keys, strict=True):
            writer.add(tar, clip, key, packing)
        writer.end(tar)
        _flush(tar)
    offsets = np.array(writer.rows, OFFSETS).tobytes()
    record = writer.record(shard_name, zlib.crc32(offsets))
    temporary.rename(packing.out / shard_name)
    write_atomically(packing.out / record.shard.offsets_name, offsets, work)
    text = json.dumps(asdict(record), sort_keys=True)
    write_atomically(packing.record_path, text.encode(), work)
    return record


def inputs_digest(packing: Packing) -> str:
    """SHA-256 over the clips' files, as :func:`pack` computes it on its way.

    Over a file's bytes; of a clip that is cut from one over its samples, so that a long file is
    not read whole for each.
    """
    digest = hashlib.sha256()
    for clip in packing.clips:
        try:
            if clip.is_cut:
                _digest_file(digest, _cut(clip, packing.sample_rate).tobytes())
            else:
                _digest_file(digest, read_bytes(clip.path))
        except DecodeError:
            _digest_file(digest, None)
    return digest.hexdigest()


def write_atomically(path: Path, data: bytes, work: Path) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    temporary = work / f"{path.name}.{os.getpid()}.tmp"
    with temporary.open("wb") as file:
        file.write(data)
        _flush(file)
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class _Writer:
    """Fills one tar and counts what goes in."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.rejected: list[tuple[str, float, str]] = []
        self.splits: Counter[str] = Counter()
        self.split_samples: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.licences: Counter[str] = Counter()
        self.inputs = hashlib.sha256()
        self.sha256 = hashlib.sha256()
        self.bytes = 0
        self.sample_rate = 1

    def add(self, tar: BinaryIO, clip: Clip, key: str, packing: Packing) -> None:
        """Write a clip's two members, or note why it was rejected."""
        self.sample_rate = packing.sample_rate
        data = None
        try:
            if clip.is_cut:
                waveform = _cut(clip, packing.sample_rate)
                data = waveform.tobytes()
            else:
                data = read_bytes(clip.path)
                waveform = decode_bytes(data, packing.sample_rate, name=clip.source)
        except DecodeError as error:
            self.rejected.append((clip.source, clip.start_seconds, error.reason))
            return
        finally:
            _digest_file(self.inputs, data)
        audio = encode(waveform, packing.sample_rate, packing.codec)
        fields = fields_of(clip, len(waveform) / packing.sample_rate)
        text = json.dumps(fields, sort_keys=True).encode()
        audio_member = _member(f"{key}.{packing.codec}", audio)
        json_member = _member(f"{key}.json", text)
        padding = bytes(-len(text) % TAR_BLOCK)
        crc32 = zlib.crc32(json_member.removesuffix(padding), zlib.crc32(audio_member))
        offsets = (self.bytes + TAR_BLOCK, len(audio_member))
        sizes = (len(audio), len(text), len(waveform))
        self.rows.append(
            (*offsets, *sizes, crc32, marks(clip.split, clip.recording or clip.source))
        )
        self._write(tar, audio_member + json_member)
        self._count(clip, len(waveform))

    def end(self, tar: BinaryIO) -> None:
        """Close the tar as tarfile does: two empty blocks, filled up to a record."""
        size = self.bytes + 2 * TAR_BLOCK
        self._write(tar, bytes(2 * TAR_BLOCK + -size % tarfile.RECORDSIZE))

    def _write(self, tar: BinaryIO, data: bytes) -> None:
        tar.write(data)
        self.sha256.update(data)
        self.bytes += len(data)

    def _count(self, clip: Clip, samples: int) -> None:
        self.splits[clip.split or ""] += 1
        self.split_samples[clip.split or ""] += samples
        self.labels.update(clip.labels or ([] if clip.label is None else [clip.label]))
        self.licences[clip.licence or ""] += 1

    def record(self, name: str, offsets_crc32: int) -> Record:
        """What the finished tar holds."""
        rate = self.sample_rate
        seconds = sum(self.split_samples.values()) / rate
        digest, inputs = self.sha256.hexdigest(), self.inputs.hexdigest()
        splits = dict(self.splits)
        return Record(
            Shard(name, len(self.rows), seconds, self.bytes, digest, offsets_crc32, splits, inputs),
            {split: samples / rate for split, samples in self.split_samples.items()},
            dict(self.labels),
            dict(self.licences),
            self.rejected,
        )


def fields_of(clip: Clip, seconds: float) -> Fields:
    """A clip's ``KEY.json``: what its corpus tells, and nothing for what it does not."""
    told = {
        "label": clip.label,
        "labels": list(clip.labels) or None,
        "split": clip.split,
        "fold": clip.fold,
        "recording": clip.recording,
        "speaker": clip.speaker,
        "subsets": list(clip.subsets) or None,
        "source": clip.source,
        "start": clip.start_seconds if clip.is_cut else None,
        "seconds": seconds,
        "licence": clip.licence,
    }
    return {name: value for name, value in told.items() if value is not None}


def _cut(clip: Clip, sample_rate: int) -> Float32[np.ndarray, "samples"]:
    start = round(clip.start_seconds * sample_rate)
    end = clip.start_seconds + clip.seconds if clip.seconds is not None else None
    return sought(clip.path, sample_rate, start, None if end is None else round(end * sample_rate))


def _member(name: str, data: bytes) -> bytes:
    """A file as it stands in a tar: header with a fixed owner and time, content, filling."""
    member = tarfile.TarInfo(name)  # mtime 0, owner 0, no names
    member.size, member.mode = len(data), 0o444
    return member.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % TAR_BLOCK)


def _digest_file(digest: Any, data: bytes | None) -> None:
    """Add a file to a digest; its size first, so that two files never look like one."""
    digest.update(b"missing" if data is None else len(data).to_bytes(8, "little"))
    digest.update(data or b"")


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
