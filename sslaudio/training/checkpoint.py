"""A step on disk: all that it takes to go on from it, bit for bit.

A checkpoint is ``RUN/checkpoints/step-00000123/``, written beside its place and renamed, so that a
kill leaves the old or the new, never a half; its manifest tells what was torn or altered later.
Tensors are safetensors, the rest is JSON.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslaudio.training import manifest
from sslaudio.training.report import say
from sslaudio.training.runs import WEIGHTS, fill
from sslaudio.training.storage import (
    bytes_of,
    is_full,
    load_tensors,
    replacing_folder,
    write_tensors,
    write_text,
)

STATE = "state.json"
OPTIMISER = "optimiser.safetensors"
AUGMENTS = "augments.safetensors"


def save_step(
    run: Path,
    step: int,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    state: Mapping[str, Any],
    keep: int,
    augments: nn.Module,
    forever_every: int = 0,
) -> Path:
    """Write ``checkpoints/step-…`` whole or not at all, and then let go of the oldest.

    A whole one of this step stays as it is: a run's step has the same bits whenever it is taken.

    Args:
        run: the RUN.
        step: optimiser steps taken.
        module: the objective with its backbone, unwrapped.
        optimiser: AdamW over ``module``'s parameters.
        state: plain values that resume needs besides (position in the stream, seed …).
        keep: how many whole checkpoints stay.
        augments: what they remember, in buffers.
        forever_every: steps whose multiples' checkpoints are never let go; 0 for none.

    Raises:
        DiskFullError: it does not fit on the disk; those before it are as they were.
    """
    place = run / "checkpoints" / f"step-{step:08d}"
    for remains in place.parent.glob(".step-*"):  # of a process that was killed at this
        shutil.rmtree(remains)
    if manifest.damage(place) is not None:
        tensors = {
            WEIGHTS: module.state_dict(),
            OPTIMISER: _optimiser_tensors(module, optimiser),
            AUGMENTS: augments.state_dict(),
        }
        with replacing_folder(place, sum(map(bytes_of, tensors.values()))) as draft:
            for name, values in tensors.items():
                if values or name != AUGMENTS:
                    write_tensors(values, draft / name)
            write_text(draft / STATE, json.dumps({"step": step, **state}, indent=2) + "\n")
            manifest.write(draft, step)
    _let_go(run, step, keep, forever_every)
    return place


def checkpoints(run: Path) -> list[Path]:
    """Checkpoints of a run, oldest first; half-written ones are not among them."""
    found = (run / "checkpoints").glob("step-*")
    return sorted(
        (path for path in found if path.is_dir() and path.name.removeprefix("step-").isdigit()),
        key=step_of,
    )


def step_of(checkpoint: Path) -> int:
    """Optimiser steps that a checkpoint was written after, by its name."""
    return int(checkpoint.name.removeprefix("step-"))


def newest_whole(run: Path) -> tuple[Path | None, dict[Path, str]]:
    """The newest checkpoint that is as it was written, and what is wrong with each after it."""
    damaged: dict[Path, str] = {}
    for place in reversed(checkpoints(run)):
        reason = manifest.damage(place)
        if reason is None:
            return place, damaged
        damaged[place] = reason
    return None, damaged


def to_resume(run: Path) -> Path | None:
    """The checkpoint to go on from; None where there is none. Damaged ones are told of.

    Raises:
        ValueError: there are some, and none of them is whole.
    """
    whole, damaged = newest_whole(run)
    if whole is None and damaged:
        told = "; ".join(f"{place}: {reason}" for place, reason in damaged.items())
        raise ValueError(
            f"every checkpoint of {run} is damaged ({told}); put one back from a copy, or start "
            f"anew with another --out (--init {run} takes the weights that the run wrote last), or "
            f"delete {run / 'checkpoints'} and --resume auto starts this run from step 0"
        )
    for place, reason in damaged.items():
        assert whole is not None
        say(
            f"warning: {place} is damaged ({reason}): the one before, step {step_of(whole)}, is "
            f"used, and step {step_of(place)} is written anew when the run comes to it"
        )
    return whole


@contextmanager
def full_disk_told(run: Path) -> Iterator[None]:
    """Add to the error of a full disk what there is of the run, and how to go on.

    Raises:
        OSError: something could not be written.
    """
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        whole, _ = newest_whole(run)
        there = (
            f"the last whole checkpoint is step {step_of(whole)} in {whole}"
            if whole
            else "there is no checkpoint yet"
        )
        raise OSError(
            f"{error}; {there}. Make room, or move {run} to another disk, and go on with --resume"
            + ("" if whole else " auto")
        ) from error


def _let_go(run: Path, step: int, keep: int, forever_every: int) -> None:
    """Delete what is older than the ``keep`` newest whole ones, that of ``step`` among them.

    Those of later steps were found damaged when the run was resumed: they count for nothing.
    """
    older = [place for place in checkpoints(run) if step_of(place) < step]
    whole = (place for place in reversed(older) if manifest.damage(place) is None)
    kept = list(islice(whole, keep - 1))
    if len(kept) < keep - 1:
        return
    oldest = step_of(kept[-1]) if kept else step
    for place in older:
        if step_of(place) < oldest and not (forever_every and step_of(place) % forever_every == 0):
            shutil.rmtree(place.rename(place.with_name(f".{place.name}.old")))


def load_step(
    checkpoint: Path, module: nn.Module, optimiser: torch.optim.Optimizer, augments: nn.Module
) -> dict[str, Any]:
    """Put a checkpoint's weights, optimiser state and augments' memories in place.

    Returns:
        Its plain state.

    Raises:
        ValueError: the checkpoint is damaged or belongs to another model.
    """
    fill(module, load_tensors(checkpoint / WEIGHTS), str(checkpoint))
    stored = load_tensors(checkpoint / OPTIMISER)
    for name, parameter in module.named_parameters():
        found = {key: stored.get(f"{name}/{key}") for key in ("step", "exp_avg", "exp_avg_sq")}
        if any(value is not None for value in found.values()):  # a weight may never be used
            optimiser.state[parameter] = {
                key: _moment(value, key, name, parameter, checkpoint)
                for key, value in found.items()
            }
    remembered = load_tensors(checkpoint / AUGMENTS) if augments.state_dict() else {}
    for name, value in remembered.items():
        holder, _, buffer = name.rpartition(".")
        setattr(augments.get_submodule(holder), buffer, value)  # of whatever size it has grown to
    return read_state(checkpoint)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Plain state of a checkpoint: steps taken, position in the stream, the scaler's.

    Raises:
        ValueError: it is missing or damaged.
    """
    path = checkpoint / STATE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        whole = isinstance(state, dict) and {"step", "position"} <= set(state)
        reason = "it lacks step or position"
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        whole, reason = False, str(error)
    if not whole:
        raise ValueError(
            f"{path} is damaged ({reason}); delete {checkpoint} to resume from the one before"
        )
    return dict(state)


def _moment(
    value: Tensor | None, key: str, name: str, parameter: Tensor, checkpoint: Path
) -> Tensor:
    if value is None or (key != "step" and value.shape != parameter.shape):
        raise ValueError(
            f"{checkpoint / OPTIMISER} does not fit: {name}/{key} is absent or of another shape; "
            f"delete {checkpoint} to resume from the one before"
        )
    return value if key == "step" else value.to(parameter.device)


def _optimiser_tensors(module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": value
        for name, parameter in module.named_parameters()
        for key, value in optimiser.state.get(parameter, {}).items()
    }
