"""Going on with a build that was killed, and refusing to mix two builds in one folder."""

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sslaudio.data.layout import size_problem
from sslaudio.data.pack import WORK_FOLDER, Packing, Record, inputs_digest, write_atomically
from sslaudio.data.places import Local

_SETTINGS_NAME = "settings.json"
_LOCK_NAME = ".lock"


@contextmanager
def locked(out: Path, told: str = "--out") -> Iterator[None]:
    """Make ``out``, given as ``told``, and hold it for one build at a time."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{told} {out} is a file; give a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / _LOCK_NAME).open("w")
    except OSError as error:
        raise ValueError(
            f"{told} {out} cannot be written to ({error.strerror}); give another folder"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another build is writing to {out}; wait for it to end") from None
        yield


def finished(packings: Sequence[Packing], settings: dict[str, Any], out: Path) -> dict[str, Record]:
    """Records of the shards that a build before this left whole, by the shards' names.

    Makes the work folder, and clears it of half-written files.
    """
    work = out / WORK_FOLDER
    settings_path = work / _SETTINGS_NAME
    if settings_path.is_file():
        check_same_build(json.loads(settings_path.read_bytes()), settings, out)
    elif any(out.glob("*.tar")):
        raise ValueError(
            f"{out} holds tars that no build of ours left; give an empty or new folder as --out"
        )
    work.mkdir(exist_ok=True)
    for leftover in work.glob("*.tmp"):
        leftover.unlink()
    write_atomically(settings_path, json.dumps(settings).encode(), work)
    records = {}
    for packing in packings:
        if packing.record_path.is_file():
            record = Record.read(packing.record_path)
            inputs = {packing.name: record.shard.inputs}
            check_same_inputs([packing], inputs, packing.record_path)
            if size_problem(Local(out), record.shard) is None:
                records[packing.name] = record
    return records


def check_same_build(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    """Refuse to go on with a build of another corpus, other settings or other files."""
    for name, value in now.items():
        if before.get(name) == value:
            continue
        change = f"{name} was {before.get(name)!r} and is now {value!r}"
        if name == "listing":
            change = "the source files' names, sizes, labels or splits were others"
        raise ValueError(
            f"{out} already holds shards of another build: {change}; give another --out, or "
            f"remove {out} to build it anew"
        )


def check_same_inputs(packings: Sequence[Packing], inputs: dict[str, str], made: Path) -> None:
    """Refuse to go on where a source file changed its content since a shard was made.

    Args:
        packings: shards that were made, with their source files.
        inputs: digest of the source files' bytes then, by the shard's name.
        made: a file written when they were. Only shards with newer source files are compared.
    """
    made_at = made.stat().st_mtime_ns
    for packing in packings:
        newer = [clip.path for clip in packing.clips if _is_newer(clip.path, made_at)]
        if newer and inputs_digest(packing) != inputs[packing.name]:
            raise ValueError(
                f"source files changed since {packing.out / packing.name} was made from them, "
                f"one of the newer ones is {newer[0]}; give another --out, or remove "
                f"{packing.out} to build it anew"
            )


def _is_newer(path: Path, made_at: int) -> bool:
    return path.is_file() and path.stat().st_mtime_ns > made_at
