"""Files that are there whole or not at all: text, JSON, tensors, folders, lines of a growing file.

Everything is written beside its place, flushed and renamed; what does not fit on the disk leaves
nothing behind. Nothing is pickled.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def write_text(path: Path, text: str) -> None:
    """Replace a file's text in one step."""
    content = text.encode()
    with replacing(path, len(content)) as draft:
        draft.write_bytes(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a file's JSON in one step."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up"}
"""Errors of the system that are those of a full disk."""


class DiskFullError(OSError):
    """A disk is full: what could not be written, and how much room there is."""


@contextmanager
def room_for(path: Path, takes: int | None = None) -> Iterator[None]:
    """Tell of a full disk what could not be written to it.

    Args:
        path: what is being written.
        takes: its bytes, where they are known.

    Raises:
        DiskFullError: the disk, or the quota, is used up.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        there = next(place for place in path.absolute().parents if place.exists())
        free = f"{_size(shutil.disk_usage(there).free)} are free"
        needed = free if takes is None else f"it takes {_size(takes)}, and {free}"
        raise DiskFullError(
            f"{path} could not be written, {FULL[error.errno]}: {needed}"
        ) from error


def is_full(error: OSError) -> bool:
    """Whether an error is that of a full disk."""
    return isinstance(error, DiskFullError) or error.errno in FULL


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


@contextmanager
def replacing(path: Path, takes: int | None = None) -> Iterator[Path]:
    """A file beside ``path`` to write to; it is flushed and takes its place when all went well.

    Raises:
        DiskFullError: ``takes`` bytes, where they are known, do not fit.
    """
    draft = path.with_name(f".{path.name}.partial")
    with room_for(path, takes):
        try:
            yield draft
            flush(draft)
            draft.rename(path)
        finally:
            draft.unlink(missing_ok=True)
        flush(path.parent)


@contextmanager
def replacing_folder(place: Path, takes: int) -> Iterator[Path]:
    """A folder beside ``place`` to write files to; it takes its place when all went well.

    Raises:
        DiskFullError: ``takes`` bytes do not fit.
    """
    draft = place.with_name(f".{place.name}.partial")
    with room_for(place, takes):
        shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed at this
        draft.mkdir(parents=True)
        try:
            yield draft
            for path in (*draft.iterdir(), draft):
                flush(path)
            if place.exists():
                shutil.rmtree(place)
            draft.rename(place)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        for path in (place.parent, place.parent.parent):
            flush(path)


class Growing:
    """A file that grows by whole pieces: one that does not fit leaves none of it behind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with room_for(path):
            self.file = path.open("ab", buffering=0)

    def write(self, piece: bytes) -> None:
        """Add a piece; a kill of the process no longer takes it back.

        Raises:
            DiskFullError: it does not fit.
        """
        end = os.fstat(self.file.fileno()).st_size
        with room_for(self.path, len(piece)):
            try:
                left = memoryview(piece)
                while left:
                    left = left[self.file.write(left) :]
            except OSError:
                self.file.truncate(end)
                raise

    def flush(self) -> None:
        """Have the system write it to the disk: a loss of power no longer takes it back."""
        with room_for(self.path):
            os.fsync(self.file.fileno())

    def close(self) -> None:
        """Nothing is left to be written."""
        self.file.close()


def flush(path: Path) -> None:
    """Have the system write a file, or a folder's list of files, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write one file of safetensors in one step, its folder made if absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, bytes_of(tensors)) as draft:
        write_tensors(tensors, draft, metadata)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of safetensors.

    Raises:
        ValueError: it is absent or damaged.
    """
    if not path.is_file():
        raise ValueError(f"there is no {path}; the run has written no weights, or they were moved")
    try:
        return load_file(path)
    except SafetensorError as error:
        in_checkpoint = path.parent.parent.name == "checkpoints"
        cure = (
            f"delete {path.parent} to use the one before"
            if in_checkpoint
            else f"copy it again, or give one of {path.parent / 'checkpoints'}"
        )
        raise ValueError(f"{path} is damaged ({error}); {cure}") from error


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a file that nobody looks for yet.

    Raises:
        OSError: the system would not.
    """
    try:
        save_file(
            {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
            path,
            dict(metadata) if metadata else None,
        )
    except SafetensorError as error:
        told = re.search(r"os error (\d+)", str(error))
        if told is None:
            raise
        number = int(told[1])
        raise OSError(number, os.strerror(number), str(path)) from error
    path.chmod(0o666 & ~_umask())  # safetensors writes for the owner alone


def bytes_of(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that the values of tensors take."""
    return sum(value.nbytes for value in tensors.values())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
