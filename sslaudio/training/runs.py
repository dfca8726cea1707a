"""A run's folder: its weights and ``config.json``, and who may write there.

A RUN holds ``recipe.yaml``, ``config.json``, ``model.safetensors``, ``metrics.jsonl``, TensorBoard
events and ``checkpoints/step-00000123/``.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from sslaudio.training import manifest
from sslaudio.training.report import is_first_process
from sslaudio.training.storage import (
    load_tensors,
    room_for,
    save_tensors,
    write_json,
)

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
HEARD = "heard.safetensors"
"""Recordings that the run hears, so that a score on them can be told from others."""
LOCK = ".lock"
LOCKLESS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
"""What file systems say that know no locks, as some that many machines share."""
LOG = logging.getLogger("sslaudio")
FORMAT = 1
"""Of ``config.json``."""


def save_weights(folder: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write weights and the ``config.json`` that tells how to build and feed the model."""
    save_tensors(folder / WEIGHTS, weights)
    write_json(folder / CONFIG, config)


def save_heard(run: Path, marks: Mapping[str, Tensor]) -> None:
    """Write which recordings a run hears, by kind, as :mod:`sslaudio.data.overlap` marks them."""
    save_tensors(run / HEARD, marks)


def read_heard(run: Path) -> dict[str, Tensor]:
    """Which recordings a RUN heard, by kind; none where it does not tell."""
    path = run_folder(run) / HEARD
    return load_tensors(path) if path.is_file() else {}


def read_config(run: Path) -> dict[str, Any]:
    """Read the ``config.json`` of a RUN, or of the run that one of its checkpoints belongs to.

    Raises:
        ValueError: there is no such run, or its ``config.json`` is none.
    """
    path = run_folder(run) / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}); copy the run again") from error
    kinds = {"features": dict, "backbone": dict, "clip_frames": int}
    for key, kind in kinds.items():
        if not isinstance(config, dict) or not isinstance(config.get(key), kind):
            raise ValueError(
                f"{path} is no config of a run: its {key} is no {kind.__name__}; copy the run again"
            )
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{path} is of format {config.get('format')}, and this version reads {FORMAT}; use the "
            f"version of sslaudio that wrote it"
        )
    return config


def read_weights(run: Path) -> dict[str, Tensor]:
    """Weights of a RUN, or of one of its checkpoints.

    Raises:
        ValueError: there are none, or they are damaged.
    """
    whole = run_folder(run)
    if run.resolve() != whole and (reason := manifest.damage(run, only=WEIGHTS)):
        raise ValueError(
            f"{run} is damaged ({reason}); give {whole}, or another of its checkpoints"
        )
    return load_tensors(run / WEIGHTS)


def weights_digest(run: Path) -> str:
    """SHA-256 of the file that holds the weights of a RUN or of one of its checkpoints."""
    with (run / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_imported(run: Path) -> bool:
    """Whether ``run`` holds weights that no recipe made."""
    return (run / CONFIG).is_file() and not (run / "recipe.yaml").is_file()


def is_run(path: Path) -> bool:
    """Whether ``path`` is a RUN, one of its checkpoints, or a folder with a RUN a fold."""
    place = path.resolve()
    of_checkpoint = place.parent.name == "checkpoints" and place.parent.parent / CONFIG
    return (
        (place / CONFIG).is_file()
        or (of_checkpoint and of_checkpoint.is_file())
        or any(place.glob(f"fold-*/{CONFIG}"))
    )


def run_folder(run: Path) -> Path:
    """The RUN that ``run`` is, or is a checkpoint of.

    Raises:
        ValueError: it is neither.
    """
    place = run.resolve()
    if (place / CONFIG).is_file():
        return place
    holder = place.parent.parent
    if place.is_dir() and place.parent.name == "checkpoints" and (holder / CONFIG).is_file():
        return holder
    folds = sorted(path.parent.name for path in run.glob(f"fold-*/{CONFIG}"))
    if folds:
        raise ValueError(f"{run} holds a model a fold: give one of {', '.join(folds)} in it")
    what = "is no run" if run.exists() else "does not exist"
    raise ValueError(
        f"{run} {what}: give a folder that `sslaudio pretrain`, `sslaudio finetune` or `sslaudio "
        f"weights import` wrote (there is a {CONFIG} in it), or one of its checkpoints"
    )


def digest(module: nn.Module) -> str:
    """SHA-256 of a module's weights: their names, kinds, shapes and bytes."""
    told = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        told.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        told.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return told.hexdigest()


def fill(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load ``weights`` into ``module``, every one of them and nothing else.

    Raises:
        ValueError: names or shapes differ; the first difference is told.
    """
    wanted = module.state_dict()
    for name in sorted(set(wanted) ^ set(weights)):
        what = "lacks" if name in wanted else "has an unknown weight"
        raise ValueError(
            f"{source} does not fit this model: it {what} {name!r}; leave out what the recipe or "
            f"flags say of backbone and objective (backbone.size, backbone.patch …) to take its own"
        )
    for name, value in weights.items():
        if value.shape != wanted[name].shape:
            raise ValueError(
                f"{source} does not fit this model: {name} is {tuple(value.shape)} there and "
                f"{tuple(wanted[name].shape)} here; use its own backbone.size, backbone.patch "
                f"and features"
            )
    module.load_state_dict(dict(weights))


def check_out(run: Path) -> None:
    """Check that a run can be written to a folder, made later if absent.

    Raises:
        ValueError: something else has that name, or it may not be written.
    """
    there = next(place for place in (run, *run.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"cannot make the folder --out {run}: {there} is no folder")
    if not os.access(there, os.W_OK):
        raise ValueError(f"--out {run} may not be written to; give a folder of your own")


def is_held(run: Path) -> bool:
    """Whether another process is writing into a run's folder at this moment."""
    try:
        with (run / LOCK).open(encoding="utf-8") as lock:
            fcntl.lockf(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except (BlockingIOError, PermissionError):
        return True
    except OSError as error:
        if error.errno not in LOCKLESS:
            raise
    return False


@contextmanager
def held(run: Path, patience_seconds: float = 0.0) -> Iterator[None]:
    """Hold a run's folder, so that no second process writes into it.

    A process that was killed holds nothing any more, whatever it left: the system forgets its lock.

    Args:
        run: the RUN, made if absent.
        patience_seconds: how long to wait for a process that holds it and may be about to end.

    Raises:
        ValueError: another process holds it.
    """
    made = [place for place in (run, *run.absolute().parents) if not place.exists()]
    run.mkdir(parents=True, exist_ok=True)
    path = run / LOCK
    with _awaited(path, patience_seconds):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            for place in made:  # what was refused leaves nothing behind
                with suppress(OSError):
                    place.rmdir()


def held_by_first(run: Path) -> AbstractContextManager[None]:
    """:func:`held` by the first of several processes, which alone writes into the folder."""
    return held(run) if is_first_process() else nullcontext()


def _awaited(path: Path, patience_seconds: float) -> IO[str]:
    """:func:`_locked`, tried again for a while."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return _locked(path)
        except ValueError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.1)


def _locked(path: Path) -> IO[str]:
    """The open file that holds a lock, with this process's number and host in it."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            # Not flock, which children inherit: a killed run's workers would hold on for a while.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in LOCKLESS:
                LOG.warning(
                    f"warning: no file can be locked in {path.parent}: nothing keeps a second "
                    f"run out of it"
                )
                return file
            if not isinstance(error, BlockingIOError | PermissionError):
                raise
            with file:
                file.seek(0)
                holder = file.read().strip() or "another process"
            raise ValueError(
                f"{holder} is writing into {path.parent}; wait for it or end it, or give another "
                f"--out"
            ) from error
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            with room_for(path):
                file.truncate(0)
                os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
            return file
        file.close()  # of a holder that has just ended and taken its file away
