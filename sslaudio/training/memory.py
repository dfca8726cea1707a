"""Memory: how much was taken, and what to say when it is out."""

import os
import re
import resource
from typing import Any

import torch


def peak_bytes(device: torch.device) -> int:
    """The most that tensors on a GPU, or this process on a CPU, have held so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def total_bytes(device: torch.device) -> int:
    """Memory of a GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def is_exhausted(error: BaseException) -> bool:
    """Whether memory could not be had."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    told = ("can't allocate memory", "out of memory", "ALLOC_FAILED")  # torch's, CUDA's, cuBLAS's
    return any(words in str(error) for words in told)


def told(error: BaseException, device: torch.device) -> str:
    """How much was held and asked for when ``error`` came."""
    found = re.search(r"allocate:? ([\d.]+) (\w+)", str(error))
    asked = f"{_sized(*found.groups())} more could not be had" if found else "no more could be had"
    return (
        f"{asked}, where this process had {peak_bytes(device) / 2**30:.1f} GiB at most of the "
        f"{total_bytes(device) / 2**30:.1f} of {device}"
    )


def _sized(number: str, unit: str) -> str:
    return f"{float(number) / 2**30:.2f} GiB" if unit == "bytes" else f"{float(number):g} {unit}"


def levers(
    batch: int, processes: int, accumulation: int, precision: str, seconds: float, objective: Any
) -> str:
    """Which settings need less memory, with the numbers they would have.

    Args:
        batch: ``data.batch``.
        processes: that share it.
        accumulation: parts of each share.
        precision: of matrix products.
        seconds: ``data.clip_seconds``.
        objective: may say what accumulation means to it; its backbone whether it checkpoints.
    """
    share = batch // processes
    more = next((n for n in range(accumulation + 1, share + 1) if share % n == 0), None)
    found = []
    if more is not None:
        lever = f"training.accumulation to {more} for {share // more} at a time"
        told = getattr(objective, "accumulated", lambda parts: None)(more)
        found.append(f"{lever} ({told})" if told else lever)
    if not getattr(objective.backbone, "checkpointing", True):
        found.append("backbone.gradient_checkpointing to true for a third more work")
    if precision == "fp32":
        found.append("training.precision to bf16")
    found.append(f"data.clip_seconds below {seconds:g}")
    return (
        f"a process takes {share // accumulation} clips at a time (data.batch {batch} / "
        f"{processes} processes / training.accumulation {accumulation}); set "
        f"{', or '.join(found)}"
    )
