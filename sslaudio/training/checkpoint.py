"""A step on disk: all that it takes to go on from it, bit for bit.

A checkpoint is ``RUN/checkpoints/step-00000123/``, written beside its place and renamed, so that a
kill leaves the old or the new, never a half. Tensors are safetensors, the rest is JSON.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslaudio.training.runs import WEIGHTS, fill
from sslaudio.training.storage import flush, load_tensors, write_tensors, write_text

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
) -> Path:
    """Write ``checkpoints/step-…`` whole or not at all, and let go of the oldest.

    Args:
        run: the RUN.
        step: optimiser steps taken.
        module: the objective with its backbone, unwrapped.
        optimiser: AdamW over ``module``'s parameters.
        state: plain values that resume needs besides (position in the stream, seed …).
        keep: how many checkpoints stay.
        augments: what they remember, in buffers.
    """
    place = run / "checkpoints" / f"step-{step:08d}"
    draft = place.with_name(f".{place.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    write_tensors(module.state_dict(), draft / WEIGHTS)
    write_tensors(_optimiser_tensors(module, optimiser), draft / OPTIMISER)
    if augments.state_dict():
        write_tensors(augments.state_dict(), draft / AUGMENTS)
    write_text(draft / STATE, json.dumps({"step": step, **state}, indent=2) + "\n")
    for file in draft.iterdir():
        flush(file)
    if place.exists():
        shutil.rmtree(place)
    draft.rename(place)
    flush(place.parent)
    for old in checkpoints(run)[:-keep]:
        gone = old.rename(old.with_name(f".{old.name}.old"))
        shutil.rmtree(gone)
    return place


def checkpoints(run: Path) -> list[Path]:
    """Checkpoints of a run, oldest first; half-written ones are not among them."""
    return sorted(path for path in (run / "checkpoints").glob("step-*") if path.is_dir())


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
