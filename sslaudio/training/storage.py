"""Files that are there whole or not at all: text, JSON, tensors.

Everything is written beside its place, flushed and renamed. Nothing is pickled.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def write_text(path: Path, text: str) -> None:
    """Replace a file's text in one step."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a file's JSON in one step."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to; it is flushed and takes its place when all went well."""
    draft = path.with_name(f".{path.name}.partial")
    yield draft
    flush(draft)
    draft.rename(path)


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
    with replacing(path) as draft:
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
    """Write tensors to a file that nobody looks for yet."""
    save_file(
        {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
        path,
        dict(metadata) if metadata else None,
    )
    path.chmod(0o666 & ~_umask())  # safetensors writes for the owner alone


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
