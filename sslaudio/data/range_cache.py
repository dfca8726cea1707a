"""Bytes from far away, kept in a folder of bounded size.

In:  bytes under a name.
Out: the same bytes, until others needed the room: what was asked for longest ago goes first.

Several processes may share a folder. A file is written aside and renamed, and carries a checksum,
so that a torn one counts as none.
"""

import contextlib
import os
import random
import zlib
from dataclasses import dataclass, field
from pathlib import Path

_CHECKSUM_BYTES = 4
_LOOK_AGAIN_SHARE = 0.05


@dataclass
class RangeCache:
    """A folder of cached bytes."""

    folder: Path
    megabytes: float
    """Most that the folder may hold, with a twentieth more for a moment."""
    _written: float | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"data.cache is {self.folder}, which is no folder; name another")

    def get(self, name: str) -> bytes | None:
        """The bytes under a name, or None."""
        path = self._path(name)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        with contextlib.suppress(OSError):  # what may only be read serves all the same
            os.utime(path)
        checksum, held = data[:_CHECKSUM_BYTES], data[_CHECKSUM_BYTES:]
        return held if zlib.crc32(held).to_bytes(_CHECKSUM_BYTES, "little") == checksum else None

    def put(self, name: str, data: bytes) -> None:
        """Keep bytes, and make room; a full or unwritable disk keeps none, without an error."""
        path = self._path(name)
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "little") + data)
            draft.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            return
        room = self.megabytes * 1e6
        step = _LOOK_AGAIN_SHARE * room
        if self._written is None:  # of many processes that begin together, each looks in its turn
            self._make_room(room)
            self._written = random.Random().uniform(0, step)
        self._written += len(data)
        if self._written > step:
            self._make_room(room)
            self._written = 0

    def _make_room(self, room: float) -> None:
        """Remove what was asked for longest ago until the rest fits; others may be removing too."""
        files = []
        for path in self.folder.glob("??/*"):
            try:
                told = path.stat()
            except OSError:
                continue
            files.append((told.st_mtime_ns, told.st_size, path))
        held = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if held <= room:
                break
            with contextlib.suppress(OSError):
                path.unlink()
            held -= size

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / name
