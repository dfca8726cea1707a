"""Where files lie: in a folder here, or below an address that fsspec can read.

In:  ``DIR``, or an address such as ``https://…``, ``s3://…``, ``gs://…``, ``hf://…``.
Out: whole files, and ranges of files, by name.

An address is read with time limits, and again after a pause that doubles where a read fails; a
read is a range, so what had failed is read anew and nothing is lost. What was read may be kept in a
folder here, of bounded size.
"""

import hashlib
import os
import time
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from sslaudio.data.range_cache import RangeCache

TRIES = 6
"""Reads of a range before it is given up."""
REREADS = 2
"""Reads of a range that gives other bytes than were to come, before they are the file's own."""
PAUSE_SECONDS = 0.5
"""After the first failed read; twice as long after each other one: 15 s in all."""
CONNECT_SECONDS, READ_SECONDS = 10, 30
"""Time limits for a connection, and for its next bytes."""

_OPEN_FILES = 64
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
_NEVER_THERE = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)


class Range(NamedTuple):
    """A part of a file."""

    name: str
    """Of the file, below its place."""
    start: int
    size: int
    version: str = ""
    """Of the file: what was cached of another version is not taken for it."""
    crc32: int | None = None
    """Of its bytes, where that is known."""

    def fits(self, data: bytes) -> bool:
        """Whether these are its bytes, as far as can be told."""
        return len(data) == self.size and self.crc32 in (None, zlib.crc32(data))


class Place(Protocol):
    """A folder of files; it pickles."""

    def __str__(self) -> str: ...

    def read(self, name: str) -> bytes:
        """A whole file.

        Raises:
            FileNotFoundError: it is not there.
            OSError: it cannot be read.
        """
        ...

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """Parts of files, several at a time; one that goes beyond a file's end gives less.

        Raises:
            FileNotFoundError: a file is not there.
            OSError: one cannot be read; the message names it.
        """
        ...

    def mapped(self, files: Sequence[Range]) -> list[Any]:
        """Whole files that are not empty, as buffers; mapped into memory where they can be.

        Raises:
            FileNotFoundError: one is not there.
            OSError: one cannot be read.
        """
        ...


def place_of(address: str | Path, cache: "RangeCache | None" = None) -> Place:
    """The place that a path or an address names.

    Args:
        address: a folder, or an address with its protocol.
        cache: keeps what was read from an address; a folder needs none.

    Raises:
        ValueError: the protocol is not known, or the package that reads it is not installed.
    """
    return Remote(str(address), cache) if is_remote(address) else Local(Path(address))


def is_remote(address: str | Path) -> bool:
    """Whether it is an address and no path."""
    return "://" in str(address)


@dataclass
class Local:
    """A folder of this machine."""

    folder: Path
    _open: OrderedDict[str, int] = field(default_factory=OrderedDict, compare=False, repr=False)

    def __str__(self) -> str:
        return str(self.folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return Local, (self.folder,)

    def read(self, name: str) -> bytes:
        """A whole file."""
        return (self.folder / name).read_bytes()

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """Parts of files.

        By pread and not by mmap: a file cut short while it is read must not kill the process.
        """
        return [os.pread(self._descriptor(one.name), one.size, one.start) for one in ranges]

    def mapped(self, files: Sequence[Range]) -> list[Any]:
        """Whole files, memory-mapped."""
        # As plain arrays: a memmap takes ten times as long to give one row.
        maps = [np.memmap(self.folder / one.name, np.uint8, "r") for one in files]
        return [one.view(np.ndarray) for one in maps]

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where it is not there."""
        path = self.folder / name
        return path.stat().st_size if path.is_file() else None

    def _descriptor(self, name: str) -> int:
        if name not in self._open:
            if len(self._open) >= _OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            self._open[name] = os.open(self.folder / name, os.O_RDONLY)
        self._open.move_to_end(name)
        return self._open[name]

    def __del__(self) -> None:
        for descriptor in getattr(self, "_open", {}).values():
            os.close(descriptor)


@dataclass
class Remote:
    """A folder below an address."""

    address: str
    cache: RangeCache | None = None
    _system: Any = field(default=None, compare=False, repr=False)
    _root: str = field(default="", compare=False, repr=False)
    _sends_parts: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        self.address = self.address.rstrip("/")
        self._open()

    def __str__(self) -> str:
        return self.address

    def __reduce__(self) -> tuple[Any, ...]:
        return Remote, (self.address, self.cache)

    def read(self, name: str) -> bytes:
        """A whole file."""
        return self._patiently(name, lambda: self._system.cat_file(self._path(name)))

    def mapped(self, files: Sequence[Range]) -> list[Any]:
        """Whole files, in memory."""
        return self.read_ranges(files)

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """Parts of files, all asked for at once; those that fail again, one by one."""
        found = [self.cache.get(self._name_of(one)) if self.cache else None for one in ranges]
        absent = [row for row, data in enumerate(found) if data is None]
        for row, data in zip(absent, self._fetched([ranges[r] for r in absent]), strict=True):
            found[row] = data
            if self.cache and ranges[row].fits(data):
                self.cache.put(self._name_of(ranges[row]), data)
        return [data for data in found if data is not None]

    def _open(self) -> None:
        from fsspec.core import url_to_fs

        protocol = self.address.partition("://")[0]
        try:
            self._system, self._root = url_to_fs(self.address, **_options(protocol))
        except ImportError as error:
            extra = _EXTRAS.get(protocol)
            cure = f"pip install 'sslaudio[{extra}]'" if extra else f"install it ({error})"
            raise ValueError(
                f"{self.address} needs a package that is not installed: {cure}"
            ) from error
        except ValueError as error:
            raise ValueError(
                f"{self.address} cannot be read: {error}; give a folder, or an address that begins "
                f"with http://, https://, s3://, gs:// or hf://"
            ) from error

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _name_of(self, one: Range) -> str:
        text = f"{self.address}/{one.name} {one.version} {one.start} {one.size}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _fetched(self, ranges: Sequence[Range]) -> list[bytes]:
        paths = [self._path(one.name) for one in ranges]
        ends = [one.start + one.size for one in ranges]
        if not ranges:
            return []
        if not self._sends_parts:  # else a whole tar would come for each of them, all at once
            self._again(Range(ranges[0].name, 0, 1))
            self._sends_parts = True
        told = self._system.cat_ranges(
            paths, [one.start for one in ranges], ends, on_error="return"
        )
        return [self._sure(one, data) for one, data in zip(ranges, told, strict=True)]

    def _sure(self, one: Range, told: bytes | Exception) -> bytes:
        """A range's bytes, read again where that failed or gave others than were to come."""
        data = self._checked(one, told) if isinstance(told, bytes) else self._again(one, told)
        for _ in range(REREADS):
            if one.fits(data):
                break
            data = self._again(one)
        return data

    def _again(self, one: Range, error: Exception | None = None) -> bytes:
        def read() -> bytes:
            path, end = self._path(one.name), one.start + one.size
            return self._system.cat_file(path, start=one.start, end=end)

        return self._checked(one, self._patiently(one.name, read, error))

    def _checked(self, one: Range, data: bytes) -> bytes:
        if len(data) > one.size:
            raise OSError(
                f"{self.address}/{one.name}: {one.size} bytes from {one.start} on were asked for "
                f"and {len(data)} came: the server does not serve parts of files (HTTP ranges); "
                f"copy the shards to another server, or into a folder here"
            )
        return data

    def _patiently(self, name: str, read: Any, failed: Exception | None = None) -> Any:
        """What ``read`` gives, by the last of several tries.

        Every service has its own errors; all but those that say that nothing is there pass.
        """
        for attempt in range(TRIES):
            error = failed
            if error is None:
                try:
                    return read()
                except _NEVER_THERE as absent:
                    raise type(absent)(f"{self.address}/{name} is not there") from absent
                except Exception as raised:
                    error = raised
            if isinstance(error, _NEVER_THERE):
                raise type(error)(f"{self.address}/{name} is not there") from error
            failed = None
            if attempt + 1 < TRIES:
                time.sleep(PAUSE_SECONDS * 2**attempt)
        words = " ".join(str(error).split()) or type(error).__name__
        raise OSError(
            f"{self.address}/{name} could not be read, {TRIES} times: {words}; see whether the "
            f"server is up, then go on with --resume"
        ) from error


def _options(protocol: str) -> dict[str, Any]:
    """Time limits in the words of the package that reads a protocol."""
    if protocol in ("http", "https"):
        from aiohttp import ClientTimeout

        timeout = ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        return {"client_kwargs": {"timeout": timeout}}
    if protocol in ("s3", "s3a"):
        limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
        return {"config_kwargs": {**limits, "retries": {"max_attempts": 1}}}
    return {}
