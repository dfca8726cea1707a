"""A run on disk: weights, what it takes to use them, and what it takes to go on.

A RUN holds ``recipe.yaml``, ``config.json``, ``model.safetensors``, ``metrics.jsonl``, TensorBoard
events and ``checkpoints/step-00000123/``. Everything is written beside its place, flushed and
renamed, so that a kill leaves the old or the new, never a half. Nothing is pickled: tensors are
safetensors, the rest is JSON.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
STATE = "state.json"
OPTIMISER = "optimiser.safetensors"
AUGMENTS = "augments.safetensors"
FORMAT = 1
"""Of ``config.json``."""


def save_weights(folder: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write weights and the ``config.json`` that tells how to build and feed the model."""
    save_tensors(folder / WEIGHTS, weights)
    write_json(folder / CONFIG, config)


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write one file of safetensors in one step, its folder made if absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        _save(tensors, draft, metadata)


def copy_weights(source: Path, run: Path) -> None:
    """Make the weights and ``config.json`` of ``source`` those of ``run``."""
    for name in (WEIGHTS, CONFIG):
        with replacing(run / name) as draft:
            shutil.copyfile(source / name, draft)


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
    run_folder(run)
    return _load(run / WEIGHTS)


def is_imported(run: Path) -> bool:
    """Whether ``run`` holds weights that no recipe made."""
    return (run / CONFIG).is_file() and not (run / "recipe.yaml").is_file()


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
    _save(module.state_dict(), draft / WEIGHTS)
    _save(_optimiser_tensors(module, optimiser), draft / OPTIMISER)
    if augments.state_dict():
        _save(augments.state_dict(), draft / AUGMENTS)
    write_text(draft / STATE, json.dumps({"step": step, **state}, indent=2) + "\n")
    for file in draft.iterdir():
        _flush(file)
    if place.exists():
        shutil.rmtree(place)
    draft.rename(place)
    _flush(place.parent)
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
    fill(module, _load(checkpoint / WEIGHTS), str(checkpoint))
    stored = _load(checkpoint / OPTIMISER)
    for name, parameter in module.named_parameters():
        found = {key: stored.get(f"{name}/{key}") for key in ("step", "exp_avg", "exp_avg_sq")}
        if any(value is not None for value in found.values()):  # a weight may never be used
            optimiser.state[parameter] = {
                key: _moment(value, key, name, parameter, checkpoint)
                for key, value in found.items()
            }
    remembered = _load(checkpoint / AUGMENTS) if augments.state_dict() else {}
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


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Hold a run's folder, so that no second process writes into it.

    Raises:
        ValueError: another process holds it.
    """
    fresh = not run.exists()
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another process is writing into {run}; wait for it, or give another --out"
            ) from error
        try:
            yield
        except ValueError:
            if fresh and [path.name for path in run.iterdir()] == [".lock"]:
                shutil.rmtree(run)  # what was refused leaves nothing behind
            raise


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
    _flush(draft)
    draft.rename(path)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _load(path: Path) -> dict[str, Tensor]:
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


def _save(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
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


def _optimiser_tensors(module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": value
        for name, parameter in module.named_parameters()
        for key, value in optimiser.state.get(parameter, {}).items()
    }
