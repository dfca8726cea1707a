"""A zip in volumes (``NAME.z01``, ``NAME.z02``, …, ``NAME.zip``) read as one.

In:  the volumes in order.
Out: a file object with the bytes of a plain zip, as ``zip -s 0`` would write it: the volumes' bytes
     one after the other, and a directory whose offsets count from the first. Nothing is copied.

Python's zipfile knows no volumes. Each entry of the directory tells the volume that a file begins
in and the offset there (APPNOTE.TXT 6.3, sections 4.3.12, 4.4.11, 4.4.16 and 4.5.3).
"""

import io
import struct
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, NamedTuple
from zipfile import BadZipFile

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LONGEST_COMMENT = 0xFFFF
_IN_ZIP64_16, _IN_ZIP64_32 = 0xFFFF, 0xFFFFFFFF
_ZIP64_EXTRA = 0x0001
_NEEDS_ZIP64 = 45
_BUFFER_BYTES = 1 << 18


class _Directory(NamedTuple):
    volumes: int
    entries: int
    start: int
    """From the first byte of the first volume."""
    size: int


def open_volumes(volumes: Sequence[Path]) -> IO[bytes]:
    """The plain zip that the volumes make.

    Raises:
        BadZipFile: the last one is no end of a zip, or volumes are missing.
    """
    pieces = [_Piece(path, path.stat().st_size) for path in volumes]
    with io.BufferedReader(_Joined(pieces)) as joined:
        directory = _find(joined, pieces)
        if directory.volumes != len(volumes):
            raise BadZipFile(
                f"{volumes[-1].name} is the last of {directory.volumes} volumes, and there are "
                f"{len(volumes)}"
            )
        joined.seek(directory.start)
        entries = _rewritten(joined.read(directory.size), directory.entries, _starts(pieces))
    tail = entries + _end(directory, len(entries))
    plain = _Joined([*_cut(pieces, directory.start), _Piece(tail, len(tail))])
    return io.BufferedReader(plain, _BUFFER_BYTES)


class _Piece(NamedTuple):
    source: Path | bytes
    size: int


class _Joined(io.RawIOBase):
    """Files and bytes, one after the other."""

    def __init__(self, pieces: Sequence[_Piece]) -> None:
        self._files: list[Any] = [
            io.BytesIO(piece.source) if isinstance(piece.source, bytes) else piece.source.open("rb")
            for piece in pieces
        ]
        self._starts = _starts(pieces)
        self._size = sum(piece.size for piece in pieces)
        self._sizes = [piece.size for piece in pieces]
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._size:
            return 0
        piece = bisect_right(self._starts, self._position) - 1
        inside = self._position - self._starts[piece]
        self._files[piece].seek(inside)
        data = self._files[piece].read(min(len(buffer), self._sizes[piece] - inside))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()


def _starts(pieces: Sequence[_Piece]) -> list[int]:
    return [0, *accumulate(piece.size for piece in pieces[:-1])]


def _cut(pieces: Sequence[_Piece], size: int) -> list[_Piece]:
    """The first ``size`` bytes; none of the pieces is empty."""
    return [
        _Piece(piece.source, min(piece.size, size - start))
        for piece, start in zip(pieces, _starts(pieces), strict=True)
        if start < size
    ]


def _find(joined: IO[bytes], pieces: Sequence[_Piece]) -> _Directory:
    """Where the directory lies, by the end of the last volume."""
    total = sum(piece.size for piece in pieces)
    joined.seek(max(0, total - _END.size - _LONGEST_COMMENT - _LOCATOR_64.size))
    tail = joined.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        raise BadZipFile("its end is missing")
    _, disk, first_disk, _, entries, size, offset, _ = _END.unpack_from(tail, at)
    starts = _starts(pieces)
    before = at - _LOCATOR_64.size
    if before >= 0 and tail[before : before + 4] == b"PK\6\7":
        _, at_disk, at_offset, _ = _LOCATOR_64.unpack_from(tail, before)
        joined.seek(_position(starts, at_disk, at_offset))
        end = joined.read(_END_64.size)
        if len(end) < _END_64.size or end[:4] != b"PK\6\6":
            raise BadZipFile("its 64-bit end is missing")
        _, _, _, _, disk, first_disk, _, entries, size, offset = _END_64.unpack(end)
    if disk + 1 != len(pieces):  # offsets mean nothing then
        return _Directory(disk + 1, entries, 0, 0)
    return _Directory(disk + 1, entries, _position(starts, first_disk, offset), size)


def _position(starts: Sequence[int], volume: int, offset: int) -> int:
    if volume >= len(starts):
        raise BadZipFile(f"its volume {volume + 1} is missing")
    return starts[volume] + offset


def _rewritten(directory: bytes, entries: int, starts: Sequence[int]) -> bytes:
    """The directory with offsets that count from the first volume, all in 64 bits."""
    parts, at = [], 0
    for _ in range(entries):
        if directory[at : at + 4] != b"PK\1\2" or at + _ENTRY.size > len(directory):
            raise BadZipFile("its directory is damaged")
        fields = list(_ENTRY.unpack_from(directory, at))
        name_size, extra_size, comment_size = fields[10:13]
        at += _ENTRY.size
        name = directory[at : at + name_size]
        extra = directory[at + name_size : at + name_size + extra_size]
        at += name_size + extra_size
        comment = directory[at : at + comment_size]
        at += comment_size
        others, zip64 = _extras(extra)
        packed, unpacked, volume, offset = fields[8], fields[9], fields[13], fields[16]
        wide = iter(zip64)
        # In this order, and only those that did not fit.
        unpacked = _wide(wide, 8) if unpacked == _IN_ZIP64_32 else unpacked
        packed = _wide(wide, 8) if packed == _IN_ZIP64_32 else packed
        offset = _wide(wide, 8) if offset == _IN_ZIP64_32 else offset
        volume = _wide(wide, 4) if volume == _IN_ZIP64_16 else volume
        sizes = struct.pack(
            "<2H3Q", _ZIP64_EXTRA, 24, unpacked, packed, _position(starts, volume, offset)
        )
        fields[2] = max(fields[2], _NEEDS_ZIP64)
        fields[8] = fields[9] = fields[16] = _IN_ZIP64_32
        fields[11], fields[13] = len(sizes) + len(others), 0
        parts.append(_ENTRY.pack(*fields) + name + sizes + others + comment)
    return b"".join(parts)


def _extras(extra: bytes) -> tuple[bytes, bytes]:
    """All extra fields but the 64-bit one, and that one's content."""
    others, zip64, at = b"", b"", 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        field = extra[at : at + 4 + size]
        if kind == _ZIP64_EXTRA:
            zip64 = field[4:]
        else:
            others += field
        at += 4 + size
    return others, zip64


def _wide(content: Any, size: int) -> int:
    digits = bytes(byte for _, byte in zip(range(size), content, strict=False))
    if len(digits) < size:
        raise BadZipFile("a 64-bit field of its directory is missing")
    return int.from_bytes(digits, "little")


def _end(directory: _Directory, size: int) -> bytes:
    """What stands behind a directory of one volume."""
    end_64 = _END_64.pack(
        b"PK\6\6", _END_64.size - 12, _NEEDS_ZIP64, _NEEDS_ZIP64, 0, 0,
        directory.entries, directory.entries, size, directory.start,
    )  # fmt: skip
    locator = _LOCATOR_64.pack(b"PK\6\7", 0, directory.start + size, 1)
    narrow = _IN_ZIP64_16, _IN_ZIP64_16, _IN_ZIP64_32, _IN_ZIP64_32, 0
    return end_64 + locator + _END.pack(b"PK\5\6", 0, 0, *narrow)
