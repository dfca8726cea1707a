"""An index for tars that others made, so that they are read like our own.

In:  a folder of uncompressed WebDataset tars: members ``KEY.wav`` (or flac, ogg, opus, mp3) and, if
     they like, ``KEY.json``, at any rate, mono or not.
Out: ``NAME.idx`` beside each tar, and ``index.json``; the tars stay as they are.

What is in a tar comes from strangers: sizes are held against the file's, nothing is unpacked, and
a member that is no sound after all is left out and listed.
"""

import hashlib
import json
import shutil
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from sslaudio.data import progress as progress_display
from sslaudio.data.corpora.base import SPLITS, SUFFIXES
from sslaudio.data.decode import RESAMPLER, DecodeError, decode_bytes
from sslaudio.data.index import Index
from sslaudio.data.layout import (
    FOREIGN,
    INDEX_NAME,
    LONGEST_JSON,
    OFFSETS,
    TAR_BLOCK,
    VERSION,
    Shard,
    marks,
)
from sslaudio.data.metered import HeadersError, Metered
from sslaudio.data.pack import WORK_FOLDER, Record, write_atomically
from sslaudio.data.processes import check_jobs, run_parallel
from sslaudio.data.progress import ProgressMaker
from sslaudio.data.resume import locked
from sslaudio.data.shards import check_rate, write_index

_HASHED_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class _Reading:
    """One tar to be read."""

    tar: Path
    sample_rate: int

    @property
    def record_path(self) -> Path:
        """Where its record lies while the others are read."""
        return self.tar.parent / WORK_FOLDER / self.tar.with_suffix(".json").name


@dataclass
class _Sample:
    """Neighbouring members of one key."""

    key: str
    sound: tarfile.TarInfo | None = None
    text: tarfile.TarInfo | None = None


def index(
    folder: Path,
    *,
    sample_rate: int = 16_000,
    max_rejected: float = 0.01,
    jobs: int | None = None,
    progress: ProgressMaker = progress_display.shown,
) -> Index:
    """Read every tar of a folder, decode every sound, and write the index.

    Args:
        folder: holds the tars; it is written to.
        sample_rate: Hz that the clips will be heard at; sound at another rate is resampled then.
        max_rejected: share of sounds, 0 to 1, that may be unusable; from 100 on.
        jobs: processes; None takes every core.
        progress: shows how far it is.

    Raises:
        ValueError: there are no tars, shards of our own, or too much is unusable.
    """
    check_jobs(jobs)
    check_rate(sample_rate)
    tars = _tars(folder)
    with locked(folder, "DIR"):
        work = folder / WORK_FOLDER
        work.mkdir(exist_ok=True)
        readings = [_Reading(tar, sample_rate) for tar in tars]
        records = {one.tar.name: record for one in readings if (record := _finished(one))}
        todo = [one for one in readings if one.tar.name not in records]
        with progress(f"index {folder}", len(tars)) as advance:
            advance(len(records))
            for record in run_parallel(_read, todo, jobs):
                records[record.shard.name] = record
                advance(1)
        ordered = [records[tar.name] for tar in tars]
        files = sum(record.shard.samples + len(record.rejected) for record in ordered)
        if not files:
            raise ValueError(
                f"no tar of {folder} holds a sound: looked for members {', '.join(SUFFIXES)}; "
                f"give a folder of audio WebDatasets"
            )
        settings = {
            "format": VERSION,
            "corpus": folder.resolve().name,
            "sample_rate": sample_rate,
            "codec": FOREIGN,
            "resampler": RESAMPLER,
            "files": files,
        }
        write_index(ordered, settings, folder, max_rejected)
        shutil.rmtree(work)
    return Index.open(folder)


def _tars(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; give one that holds tars")
    if (folder / INDEX_NAME).is_file():
        content = json.loads((folder / INDEX_NAME).read_bytes())
        if content.get("codec") != FOREIGN:
            raise ValueError(f"{folder} holds shards of our own, which have their index already")
    tars = sorted(folder.glob("*.tar"))
    packed = sorted(path.name for path in folder.glob("*.tar.*") if path.suffix != ".tmp")
    if packed:
        raise ValueError(
            f"{folder / packed[0]} is compressed, so nothing in it can be reached at once; unpack "
            f"it to a plain .tar (gunzip, unxz or zstd -d)"
        )
    if not tars:
        below = next(iter(sorted(folder.glob("*/**/*.tar"))), None)
        hint = f"; there are some in {below.parent}" if below else ""
        raise ValueError(f"{folder} holds no .tar{hint}; give the folder that the tars lie in")
    return tars


def _finished(reading: _Reading) -> Record | None:
    """What was read of a tar before a kill, if the tar is as it was."""
    if not reading.record_path.is_file():
        return None
    told = json.loads(reading.record_path.read_bytes())
    tar = reading.tar.stat()
    if told.pop("read") != [reading.sample_rate, tar.st_size, tar.st_mtime_ns]:
        return None
    return Record.of(told)


def _read(reading: _Reading) -> Record:
    """Read one tar; write its offsets, then its record."""
    made = _Rows(reading)
    with reading.tar.open("rb") as file:
        try:
            for sample in _samples(file):
                made.add(sample, file)
        except (tarfile.TarError, EOFError, OSError, HeadersError) as error:
            made.rejected.append((reading.tar.name, 0.0, f"no whole tar: {error}"))
    offsets = np.array(made.rows, OFFSETS).tobytes()
    record = made.record(zlib.crc32(offsets))
    work, tar = reading.record_path.parent, reading.tar.stat()
    write_atomically(reading.tar.parent / record.shard.offsets_name, offsets, work)
    told = {**asdict(record), "read": [reading.sample_rate, tar.st_size, tar.st_mtime_ns]}
    write_atomically(reading.record_path, json.dumps(told, sort_keys=True).encode(), work)
    return record


def _samples(file: Any) -> Iterator[_Sample]:
    """Neighbouring members of one key, as webdataset takes them together."""
    sample = _Sample("")
    metered = Metered(file, "the tar")
    with tarfile.open(fileobj=metered, mode="r:") as archive:
        for member in archive:
            metered.passed(0)
            if not member.isreg() or member.sparse is not None:
                continue
            path = PurePosixPath(member.name)
            key = str(path.with_name(path.name.partition(".")[0] or path.name))
            if key != sample.key:
                if sample.sound is not None:
                    yield sample
                sample = _Sample(key)
            suffix = path.suffix.lower()
            if suffix in SUFFIXES and sample.sound is None:
                sample.sound = member
            elif suffix == ".json" and sample.text is None:
                sample.text = member
    if sample.sound is not None:
        yield sample


class _Rows:
    """Offsets and counts of one tar."""

    def __init__(self, reading: _Reading) -> None:
        self.reading = reading
        self.bytes = reading.tar.stat().st_size
        self.rows: list[tuple[int, ...]] = []
        self.rejected: list[tuple[str, float, str]] = []
        self.samples: Counter[str] = Counter()
        self.clips: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.licences: Counter[str] = Counter()

    def add(self, sample: _Sample, file: Any) -> None:
        """Decode a sound, and note where it lies or why it is left out."""
        assert sample.sound is not None, "samples without a sound are passed over"
        sound, text = sample.sound, sample.text
        name = f"{self.reading.tar.name}/{sound.name}"
        try:
            fields = self._fields(file, text)
            audio = self._content(file, sound)
            waveform = decode_bytes(audio, self.reading.sample_rate, name=name)
        except DecodeError as error:
            self.rejected.append((name, 0.0, error.reason))
            return
        split = fields.get("split") if fields.get("split") in SPLITS else ""
        recording = fields.get("recording")
        at, size = sound.offset_data, sound.size
        json_at, json_size = (text.offset_data - at, text.size) if text is not None else (0, 0)
        neighbour = json_at == size + -size % TAR_BLOCK + TAR_BLOCK
        end = at + (json_at + json_size if json_size and neighbour else size)
        file.seek(at - TAR_BLOCK)
        crc32 = zlib.crc32(file.read(end - at + TAR_BLOCK))
        marked = marks(split, sample.key if recording is None else str(recording))
        self.rows.append((at, json_at, size, json_size, len(waveform), crc32, marked))
        self._count(split, fields, len(waveform))

    def record(self, offsets_crc32: int) -> Record:
        """What the tar holds."""
        rate = self.reading.sample_rate
        digest = hashlib.sha256()
        with self.reading.tar.open("rb") as file:
            while block := file.read(_HASHED_AT_ONCE):
                digest.update(block)
        sha256 = digest.hexdigest()
        return Record(
            Shard(
                self.reading.tar.name, len(self.rows), self.samples.total() / rate, self.bytes,
                sha256, offsets_crc32, dict(self.clips), sha256,
            ),
            {split: samples / rate for split, samples in self.samples.items()},
            dict(self.labels),
            dict(self.licences),
            self.rejected,
        )  # fmt: skip

    def _content(self, file: Any, member: tarfile.TarInfo) -> bytes:
        if not TAR_BLOCK <= member.offset_data <= self.bytes - member.size:
            reason = f"truncated: the tar ends inside {member.name}"
            raise DecodeError(member.name, reason)
        file.seek(member.offset_data)
        return file.read(member.size)

    def _fields(self, file: Any, text: tarfile.TarInfo | None) -> dict[str, Any]:
        if text is None:
            return {}
        if text.size > LONGEST_JSON:
            raise DecodeError(text.name, f"its JSON has {text.size} bytes")
        try:
            fields = json.loads(self._content(file, text))
            json.dumps(fields, ensure_ascii=False).encode()  # half of a character is no text
        except (ValueError, RecursionError):
            raise DecodeError(text.name, "its JSON is broken") from None
        if not isinstance(fields, dict):
            raise DecodeError(text.name, "its JSON is no table")
        return fields

    def _count(self, split: Any, fields: dict[str, Any], samples: int) -> None:
        self.clips[split] += 1
        self.samples[split] += samples
        told = fields.get("labels", fields.get("label"))
        labels = told if isinstance(told, list) else [] if told is None else [told]
        self.labels.update(map(str, labels))
        self.licences[str(fields.get("licence", ""))] += 1
