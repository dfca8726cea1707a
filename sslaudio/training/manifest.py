"""What a checkpoint's folder holds, file by file, so that a torn or altered one is known.

``manifest.json`` has the size and the SHA-256 of every file beside it, and the step. It is written
last, and in one form only, so that no byte of it changes unnoticed either.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

NAME = "manifest.json"
FORMAT = 1


def write(folder: Path, step: int) -> None:
    """Write the manifest of a folder's files."""
    files = {path.name: _measured(path) for path in _listed(folder)}
    (folder / NAME).write_text(_spelled({"format": FORMAT, "step": step, "files": files}))


def damage(folder: Path, only: str | None = None) -> str | None:
    """What tells that a checkpoint is not as it was written; None where it is.

    Args:
        folder: the checkpoint, ``step-00000123``.
        only: the one file to look at; all of them otherwise.

    Returns:
        A clause that begins with the file's name.
    """
    try:
        told = _read(folder)
        for name in told["files"] if only is None else [only]:
            if reason := _difference(folder / name, told["files"].get(name)):
                return f"{name} {reason}"
    except OSError as error:
        return f"{Path(error.filename or folder).name} cannot be read: {error.strerror}"
    except ValueError as error:
        return f"{NAME} {error}"
    return None


def _read(folder: Path) -> dict[str, Any]:
    """The manifest.

    Raises:
        ValueError: it is not as it was written; a clause without a subject.
    """
    path = folder / NAME
    if not path.is_file():
        raise ValueError("is missing: torn, or written by an earlier version")
    text = path.read_bytes().decode("utf-8", errors="replace")
    try:
        told = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error}") from error
    if not isinstance(told, dict) or not isinstance(told.get("files"), dict):
        raise ValueError("lists no files")
    if told.get("format") != FORMAT:
        raise ValueError(f"is of format {told.get('format')}, and this version reads {FORMAT}")
    if text != _spelled(told) or folder.resolve().name != f"step-{told.get('step')!s:0>8}":
        raise ValueError("was altered, or is of another step")
    return told


def _difference(path: Path, told: Any) -> str | None:
    if not path.is_file():
        return "is missing"
    if not isinstance(told, dict):
        return "is not in its manifest"
    if path.stat().st_size != told.get("bytes"):
        return f"has {path.stat().st_size} bytes, its manifest says {told.get('bytes')}"
    if _measured(path) != told:
        return "has another SHA-256 than its manifest says"
    return None


def _measured(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def _listed(folder: Path) -> list[Path]:
    """Files of a folder but for the manifest and those that a system hides in it."""
    return sorted(
        path for path in folder.iterdir() if path.name != NAME and not path.name.startswith(".")
    )


def _spelled(told: dict[str, Any]) -> str:
    return json.dumps(told, indent=2) + "\n"
