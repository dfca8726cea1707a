"""What a folder of shards holds: ``index.json``, and offsets to every clip, memory-mapped.

In:  a folder that ``sslaudio shards build`` wrote, here or below an address.
Out: counts and totals without opening a tar; any clip's audio and JSON by one read.

The files are described in sslaudio/data/layout.py.
"""

import json
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Int64

from sslaudio.data.layout import (
    INDEX_NAME,
    LONGEST_JSON,
    OFFSETS,
    SPLIT_CODES,
    TAR_BLOCK,
    Content,
    read_index,
    size_problem,
)
from sslaudio.data.places import Local, Place, Range, place_of
from sslaudio.data.range_cache import RangeCache

_SHARDS_HELD = 64
_DESCRIBED_TOGETHER = 256
"""Clips whose JSON is read together, without their sound."""


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


class CorruptError(ValueError):
    """A clip that cannot be heard: which, of which kind the damage is, and what to do."""

    def __init__(self, shard: str, key: str, kind: str, reason: str, cure: str) -> None:
        super().__init__(f"{shard}: clip {key} is corrupt ({reason}); {cure}")
        self.shard, self.key, self.kind, self.reason, self.cure = shard, key, kind, reason, cure

    def __reduce__(self) -> tuple[Any, ...]:
        return CorruptError, (self.shard, self.key, self.kind, self.reason, self.cure)


KINDS = ("offsets", "checksum", "json", "decode", "length", "tar")
"""Kinds of damage: the clip is not where its offsets say; its bytes are others; its JSON is none;
its sound cannot be decoded, or has another length; a tar without an index is none."""


class Index:
    """A folder of shards, opened; :meth:`open` checks that it is whole."""

    def __init__(self, place: Place, content: Content) -> None:
        self.place = place
        """The folder or address."""
        self.corpus = content.corpus
        self.sample_rate = content.sample_rate
        """Hz of every clip."""
        self.codec = content.codec
        self.settings = content.settings
        """What was built from what; a build with other settings is another folder."""
        self.totals = content.totals
        self.shards = content.shards
        self._content = content
        self._offsets: OrderedDict[int, np.ndarray] = OrderedDict()

    @classmethod
    def open(cls, folder: Path | str, cache: RangeCache | None = None) -> "Index":
        """Read ``index.json``; in a folder here, check the sizes of the files it names.

        Args:
            folder: a path or an address, see :mod:`sslaudio.data.places`.
            cache: keeps what is read from an address.

        Raises:
            ValueError: the folder or its index is missing, of another version, or does not
                fit the files; the message names the file and the command that helps.
            OSError: an address cannot be read.
        """
        place = place_of(folder, cache)
        index = cls(place, read_index(place))
        for shard in index.shards:
            if isinstance(place, Local) and (problem := size_problem(place, shard)):
                raise ValueError(f"{folder}: {problem}; run `sslaudio shards verify {folder}`")
        return index

    def __reduce__(self) -> tuple[Any, ...]:
        return Index, (self.place, self._content)

    @property
    def split_names(self) -> list[str]:
        """The splits that its clips have, in their usual order; "" is none."""
        return [split for split in SPLIT_CODES if split in self.totals.splits]

    def offsets(self, shard: int) -> np.ndarray:
        """The offsets of a shard's clips: :data:`OFFSETS` records, memory-mapped in a folder here.

        Raises:
            ValueError: the file is not what the index says.
        """
        if shard not in self._offsets:
            self.open_offsets([shard])
        self._offsets.move_to_end(shard)
        return self._offsets[shard]

    def open_offsets(self, shards: Iterable[int]) -> None:
        """Read the offsets of some shards together, so that none is waited for by itself.

        Raises:
            ValueError: a file is not what the index says.
        """
        absent = [shard for shard in shards if shard not in self._offsets]
        files = [self._offsets_file(shard) for shard in absent]
        read = iter(self.place.mapped([one for one in files if one.size]))
        for shard, file in zip(absent, files, strict=True):
            data = next(read) if file.size else b""
            if len(data) != file.size:
                raise ValueError(
                    f"{self.place}/{file.name} has {len(data)} bytes, {INDEX_NAME} says "
                    f"{file.size}; {self._verify()}"
                )
            if zlib.crc32(data) != self.shards[shard].offsets_crc32:
                raise ValueError(
                    f"{self.place}/{file.name} is altered: its checksum is not {INDEX_NAME}'s; "
                    f"{self._verify()}"
                )
            self._offsets[shard] = np.frombuffer(data, OFFSETS)
            if len(self._offsets) > _SHARDS_HELD:
                self._offsets.popitem(last=False)

    def _offsets_file(self, shard: int) -> Range:
        told = self.shards[shard]
        size = told.samples * OFFSETS.itemsize
        return Range(told.offsets_name, 0, size, str(told.offsets_crc32), told.offsets_crc32)

    def clip(self, shard: int, member: int) -> StoredClip:
        """All of a clip, undecoded.

        Raises:
            CorruptError: it is not as it was written.
        """
        [found] = self.clips([(shard, member)])
        if isinstance(found, CorruptError):
            raise found
        return found

    def clips(self, places: Sequence[tuple[int, int]]) -> list["StoredClip | CorruptError"]:
        """Clips by shard and member, undecoded, read together; corrupt ones as what they are.

        A clip is one read where its header, sound and JSON are neighbours, as in our own tars.
        """
        told = [self._told(shard, member) for shard, member in places]
        ranges = [one for spans in told for one in spans if one is not None]
        read = iter(self.place.read_ranges(ranges))
        return [
            self._stored(shard, member, *(b"" if span is None else next(read) for span in spans))
            for (shard, member), spans in zip(places, told, strict=True)
        ]

    def examples(self) -> Iterator[Example]:
        """Every clip of every shard, in the order of the tars; of a folder here."""
        assert isinstance(self.place, Local), "tasks read folders"
        for number, shard in enumerate(self.shards):
            for member, (key, fields) in enumerate(self.descriptions(number, range(shard.samples))):
                if fields is None:
                    raise self.corrupt(number, f"number {member}", "json", "its JSON is broken")
                audio_at, _, audio_bytes, _, samples, *_ = self.offsets(number)[member].item()
                path = self.place.folder / shard.name
                yield Example(key, fields, path, (audio_at, audio_bytes), samples)

    def descriptions(
        self, shard: int, members: Sequence[int]
    ) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """Key and JSON of some clips of a shard, read without their sound; None: it is broken."""
        for start in range(0, len(members), _DESCRIBED_TOGETHER):
            few = members[start : start + _DESCRIBED_TOGETHER]
            spans = [self._description(shard, member) for member in few]
            read = iter(self.place.read_ranges([one for pair in spans for one in pair]))
            for pair in spans:
                header, *text = [next(read) for _ in pair] or [b"", b""]
                yield _key(header), _fields(text[0]) if text else {}

    def split_counts(self, splits: tuple[str, ...]) -> Int64[np.ndarray, "shards"]:
        """Clips of the given splits in each shard, from the index alone."""
        counts = [sum(shard.splits.get(split, 0) for split in splits) for shard in self.shards]
        return np.array(counts, np.int64)

    def corrupt(self, shard: int, key: str, kind: str, reason: str) -> CorruptError:
        """The error that says which clip of which shard is corrupt, and what to do."""
        cure = f"{self._verify()}, then build the shards again"
        return CorruptError(f"{self.place}/{self.shards[shard].name}", key, kind, reason, cure)

    def _verify(self) -> str:
        return f"run `sslaudio shards verify {self.place}`"

    def _told(self, shard: int, member: int) -> tuple[Range | None, Range | None]:
        """Where a clip's header and sound lie, and its JSON where that is no neighbour."""
        row = self.offsets(shard)[member].item()
        audio_at, json_after, audio_bytes, json_bytes, _, crc32, _ = row
        name, version = self.shards[shard].name, self.shards[shard].sha256
        size = TAR_BLOCK + audio_bytes
        if json_bytes > LONGEST_JSON:
            return None, None
        apart = None
        if json_bytes and json_after == _next_member(audio_bytes):
            size = TAR_BLOCK + json_after + json_bytes
        elif json_bytes:
            apart = Range(name, audio_at + json_after, json_bytes, version)
        spans = Range(name, audio_at - TAR_BLOCK, size, version, crc32), apart
        return spans if self._inside(shard, *filter(None, spans)) else (None, None)

    def _description(self, shard: int, member: int) -> list[Range]:
        """Where a clip's header lies, and its JSON, if any; nothing where the tar ends before."""
        audio_at, json_after, _, json_bytes, *_ = self.offsets(shard)[member].item()
        name, version = self.shards[shard].name, self.shards[shard].sha256
        spans = [Range(name, audio_at - TAR_BLOCK, TAR_BLOCK, version)]
        if json_bytes:
            spans.append(Range(name, audio_at + json_after, json_bytes, version))
        return spans if json_bytes <= LONGEST_JSON and self._inside(shard, *spans) else []

    def _inside(self, shard: int, *spans: Range) -> bool:
        """Whether all lie within a tar."""
        size = self.shards[shard].bytes
        return all(0 <= one.start <= one.start + one.size <= size for one in spans)

    def _stored(
        self, shard: int, member: int, data: bytes, text: bytes
    ) -> "StoredClip | CorruptError":
        row = self.offsets(shard)[member].item()
        _, json_after, audio_bytes, json_bytes, samples, crc32, _ = row
        if len(data) < TAR_BLOCK + audio_bytes:
            reason = "the tar does not hold it where its offsets say"
            return self.corrupt(shard, f"number {member}", "offsets", reason)
        key = _key(data)
        if zlib.crc32(data) != crc32:
            return self.corrupt(shard, key, "checksum", "its checksum is not its index's")
        if json_bytes and not text:
            text = data[TAR_BLOCK + json_after :]
        fields = _fields(text) if json_bytes else {}
        if fields is None:
            return self.corrupt(shard, key, "json", "its JSON is broken")
        return StoredClip(key, fields, data[TAR_BLOCK : TAR_BLOCK + audio_bytes], samples)


def labelled_examples(folder: Path) -> Iterator[Example]:
    """Every clip of a folder of shards with its labels and where its sound lies."""
    return Index.open(folder).examples()


def _next_member(size: int) -> int:
    """How far behind the beginning of a member's content that of the next one lies."""
    return size + -size % TAR_BLOCK + TAR_BLOCK


def _fields(text: bytes) -> dict[str, Any] | None:
    """What a clip's JSON tells; None where it is none, or no table."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _key(header: bytes) -> str:
    """A clip's key from its tar header: the file name without what follows its first dot.

    What cannot be printed is replaced: a key is shown to people.

    Source: POSIX.1-1988 (USTAR): a name of 100 bytes; a path before it of 155, from byte 345 on.
    """
    name = _printable(header[:100])
    folder = _printable(header[345:500])
    path = PurePosixPath(folder, name) if header[257:263] == b"ustar\0" else PurePosixPath(name)
    return str(path.with_name(path.name.partition(".")[0] or path.name)) if path.name else name


def _printable(field: bytes) -> str:
    text = field.partition(b"\0")[0].decode("utf-8", "replace")
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
