"""The machine and the packages that a result was made with."""

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from sslaudio.data.processes import cores

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
"""Instructions of x86 that products of matrices are fast by."""


def environment() -> dict[str, Any]:
    """What a result's reader wants to know of the machine and the packages."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "accelerate": version("accelerate"),
        "threads": torch.get_num_threads(),
        "processor": platform.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def listed(items: Mapping[str, Any]) -> str:
    """One item a line, values in a column."""
    width = max(map(len, items), default=0) + 2
    return "\n".join(
        f"{name:{width}s}{'none' if value is None else value}" for name, value in items.items()
    )


def version(package: str) -> str | None:
    """Of an installed package; None where it is absent."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """Of the checkout that this code is in, short; None where there is none."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:  # no git
        return None
    return found.stdout.strip() or None


def processor() -> dict[str, Any]:
    """Model, instructions and cores; what the system does not tell is None."""
    told = _fields(Path("/proc/cpuinfo"))
    flags = set(told.get("flags", "").split())
    return {
        "model": told.get("model name") or platform.processor() or platform.machine(),
        "instructions": ", ".join(flag for flag in FLAGS if flag in flags) or None,
        "cores": os.cpu_count(),
        "cores usable": cores(),
    }


def memory() -> dict[str, float | None]:
    """Main memory of the machine in GB, and what of it could be had now."""
    told = _fields(Path("/proc/meminfo"))
    sizes = {"whole": told.get("MemTotal"), "free": told.get("MemAvailable")}
    return {
        name: round(int(size.split()[0]) * 1024 / 1e9, 1) if size else None
        for name, size in sizes.items()
    }


def gpus() -> list[dict[str, Any]]:
    """Name, memory in GB and compute capability of each GPU."""
    found = []
    for place in range(torch.cuda.device_count()):
        told = torch.cuda.get_device_properties(place)
        capability = f"{told.major}.{told.minor}"
        size = round(told.total_memory / 1e9, 1)
        found.append({"name": told.name, "memory": size, "capability": capability})
    return found


def _fields(path: Path) -> dict[str, str]:
    """``name: value`` lines of a file of the system, the first of each name."""
    told: dict[str, str] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            told.setdefault(name.strip(), value.strip())
    return told
