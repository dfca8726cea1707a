"""Memory: how what is freed is used again, how much was taken, and what to say when it is out."""

import contextlib
import ctypes
import os
import re
import resource

import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def reuse_freed_memory() -> None:
    """Keep freed memory for the next tensor instead of handing it back to the system.

    A training step allocates and frees the same few megabytes again and again; by default glibc
    asks the kernel for each of them, which has to find and clear the pages every time: thousands of
    page faults a step of AST micro. What is larger than 32 MB it would ask for alone each time,
    whatever the threshold; so it asks for nothing alone. Other C libraries are left as they are.

    Source: mallopt(3).
    """
    with contextlib.suppress(OSError, TypeError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 64 << 20)


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
    return "can't allocate memory" in str(error)  # what torch raises on a CPU is a RuntimeError


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
