"""Print the environment in plain text, ready to be pasted into a report of a bug.

Nothing secret is in it: of the environment's variables only those are told that change a run.
Troubles come at the end, each with a cure; the exit status is 0 all the same.
"""

import argparse
import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement

import sslaudio
from sslaudio.training import environment, storage

SHARED_MEMORY = Path("/dev/shm")
LEAST_SHARED_GB = 1.0
"""Of shared memory, that processes which load data pass clips through."""
LEAST_DISK_GB = 5.0
"""That checkpoints of a small model and its shards take."""
VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTORCH_ALLOC_CONF"),
    *("PYTORCH_CUDA_ALLOC_CONF", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT", "NCCL_DEBUG", "GLOO_SOCKET_IFNAME", "ACCELERATE_USE_CPU"),
    *("ACCELERATE_MIXED_PRECISION", "HF_HUB_OFFLINE", "PYTHONHASHSEED", "WANDB_MODE"),
)
"""That change what a run does; those that begin with ``SSLAUDIO_`` are told too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's flags."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write it for machines too")


def main(args: argparse.Namespace) -> int:
    """Look, print, and say what is amiss."""
    told = sections()
    troubles = list(troubles_of(told))
    if args.json:
        storage.write_json(args.json, {**told, "troubles": troubles})
    for name, items in told.items():
        sys.stdout.write(f"{name}\n{_indented(environment.listed(items))}\n")
    lines = [f"  {trouble}" for trouble in troubles] or ["  none"]
    sys.stdout.write("\n".join(["troubles", *lines]) + "\n")
    return 0


def sections() -> dict[str, dict[str, Any]]:
    """All that is looked at, by heading."""
    return {
        "sslaudio": {
            "version": environment.version("sslaudio"),
            "commit": environment.commit(),
            "folder": str(Path(sslaudio.__file__).parent),
        },
        "system": {
            "python": platform.python_version(),
            "system": platform.platform(),
            **environment.processor(),
            **{f"memory {name}, GB": size for name, size in environment.memory().items()},
            "disk free here, GB": _free(Path.cwd()),
            "shared memory free, GB": _free(SHARED_MEMORY),
        },
        "gpu": _gpus(),
        "packages": dict(packages()),
        "variables": _variables(),
        "trials": {name: _tried(trial) for name, trial in TRIALS.items()},
    }


def troubles_of(told: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What is amiss in :func:`sections`, and what to do."""
    for name, outcome in told["trials"].items():
        if outcome.startswith("fails"):
            yield f"{name} {outcome}; {CURES[name]}"
    for name, version in told["packages"].items():
        if version is None and name in _required():
            yield f"{name} is not installed; pip install {name}"
    shared = told["system"]["shared memory free, GB"]
    if shared is not None and shared < LEAST_SHARED_GB:
        yield (
            f"{shared:g} GB of {SHARED_MEMORY} are free, and data.workers pass clips through it; "
            f"give the container more (docker run --shm-size 8g), or set data.workers to 0"
        )
    if told["system"]["disk free here, GB"] < LEAST_DISK_GB:
        yield (
            f"{told['system']['disk free here, GB']:g} GB of disk are free here; give --out a "
            f"folder elsewhere, or set training.checkpoints_kept to 1"
        )
    if told["gpu"].get("driver") and not torch.cuda.is_available():
        yield (
            "there is an NVIDIA driver, but torch sees no GPU; install a torch that is built for "
            "its CUDA (torch.version.cuda above), or unset CUDA_VISIBLE_DEVICES"
        )


def packages() -> Iterator[tuple[str, str | None]]:
    """Version of what sslaudio needs and of its extras; None is absent."""
    for name in _requirements():
        yield name, environment.version(name)


def _requirements() -> dict[str, bool]:
    """Packages that sslaudio names, and whether it works without."""
    try:
        lines = importlib.metadata.requires("sslaudio") or []
    except importlib.metadata.PackageNotFoundError:  # a checkout that is run as it lies
        return {}
    asked = [Requirement(line) for line in lines]
    return {one.name: "extra" in str(one.marker or "") for one in asked}


def _required() -> set[str]:
    return {name for name, is_extra in _requirements().items() if not is_extra}


def _gpus() -> dict[str, Any]:
    found = {
        f"gpu {place}": f"{one['name']}, {one['memory']:g} GB, capability {one['capability']}"
        for place, one in enumerate(environment.gpus())
    }
    return {
        "torch built for CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
        "driver": _driver(),
        **(found or {"gpu": None}),
    }


def _driver() -> str | None:
    """Version of NVIDIA's driver; None where there is none."""
    try:
        words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().partition("\n")[0] or None if done.returncode == 0 else None


def _variables() -> dict[str, str | None]:
    own = sorted(name for name in os.environ if name.startswith("SSLAUDIO_"))
    return {name: os.environ[name] for name in (*VARIABLES, *own) if name in os.environ} or {
        "none of those that change a run": None
    }


def _free(folder: Path) -> float | None:
    return round(shutil.disk_usage(folder).free / 1e9, 1) if folder.is_dir() else None


def _step() -> None:
    """Forward, backward and update of a small layer, where a run would be."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layer = torch.nn.Linear(256, 256, device=device)
    optimiser = torch.optim.AdamW(layer.parameters())
    with torch.autocast(device, torch.bfloat16):
        loss = layer(torch.randn(64, 256, device=device)).square().mean()
    loss.backward()
    optimiser.step()
    if not torch.isfinite(loss.cpu()):
        raise ValueError(f"the loss is {loss.item()}")


def _gloo() -> None:
    """A group of one process, as `accelerate launch` makes them of more."""
    distributed = torch.distributed
    if not distributed.is_available():
        raise ValueError("torch is built without torch.distributed")
    group = distributed.HashStore()
    distributed.init_process_group("gloo", store=group, rank=0, world_size=1)
    try:
        distributed.all_reduce(torch.ones(1))
    finally:
        distributed.destroy_process_group()


def _decode() -> None:
    """FLAC written and read in memory."""
    import io

    import numpy as np
    import soundfile

    told = io.BytesIO()
    soundfile.write(told, np.zeros(1600, "int16"), 16_000, format="FLAC")
    soundfile.read(io.BytesIO(told.getvalue()))


TRIALS = {
    "a training step in bf16": _step,
    "processes that talk (gloo)": _gloo,
    "FLAC": _decode,
    "import torchaudio": lambda: importlib.import_module("torchaudio"),
}
CURES = {
    "a training step in bf16": "set training.precision fp32, or install torch again",
    "processes that talk (gloo)": "train in one process (sslaudio pretrain)",
    "FLAC": "pip install --force-reinstall soundfile",
    "import torchaudio": "only tests need it; torchaudio 2.11 pairs with torch 2.11 to 2.14",
}


def _tried(trial: Any) -> str:
    """``works, 0.01 s``, or how it fails."""
    began = time.perf_counter()
    try:
        trial()
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        return f"fails: {type(error).__name__}: {' '.join(str(error).split())}"
    return f"works, {time.perf_counter() - began:.2f} s"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
