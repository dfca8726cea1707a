"""How a run's processes are started, told apart, and ended together."""

import os
import signal
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list, gather_object

from sslaudio.data.processes import cores

GRACE_SECONDS = 300.0
"""Time that a process whose launcher is gone has to finish its step and save."""


def accelerator_for(precision: str) -> Accelerator:
    """An accelerator on the GPUs there are, or on the CPU with its cores shared by the ranks.

    Raises:
        ValueError: fp16 without a GPU, a launch of several processes that yields one, or a launcher
            that is gone.
    """
    gpu = torch.cuda.is_available()
    if precision == "fp16" and not gpu:
        raise ValueError("training.precision is fp16, which needs a GPU; set bf16 or fp32")
    launcher = _launcher()
    asked = launched_processes()
    if launcher is not None:
        threading.Thread(target=_leave_with, args=(launcher,), daemon=True).start()
    there = os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1"))
    threads = max(1, cores() // int(there))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # unset, accelerate chooses and warns
    # Buffers are changed alike on all ranks; sending a queue of keys at each step would cost more
    # than the step. Gradients that lie where they are exchanged are not copied there: same bits,
    # less memory. Torch 2.14 calls the first setting otherwise, which accelerate does not know.
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    accelerator = Accelerator(
        cpu=not gpu,
        mixed_precision="no" if precision == "fp32" else precision,
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
        ],
    )
    if asked is not None and accelerator.num_processes != asked:
        raise ValueError(
            f"{asked} processes were asked for and {accelerator.num_processes} answered; on CPUs "
            f"launch with `accelerate launch --multi_gpu --num_processes {asked}`"
        )
    torch.set_num_threads(threads)
    return accelerator


def join() -> None:
    """Join the processes of a launch, if there is one, and share the cores among them."""
    if launched_processes() is not None or "LOCAL_RANK" in os.environ:
        accelerator_for("fp32")
    else:
        torch.set_num_threads(cores())


def from_first(accelerator: Accelerator, value: Any) -> Any:
    """The first process's ``value``, on all of them."""
    if accelerator.num_processes == 1:
        return value
    shared = [value]
    broadcast_object_list(shared)
    return shared[0]


def from_all(accelerator: Accelerator, values: list[Any]) -> list[Any]:
    """The values of all processes, those of the first one first, on all of them."""
    return values if accelerator.num_processes == 1 else gather_object(values)


def launched_processes() -> int | None:
    """Processes that ``accelerate launch --num_processes`` asked for; None where it did not say.

    ``--cpu --num_processes 2`` starts one process and tells it nothing, so the launcher's own
    words are read.
    """
    words = _parents_words() or [""]
    for word, value in zip(words, [*words[1:], ""], strict=True):
        name, equals, joined = word.partition("=")
        if name in ("--num_processes", "--num-processes", "--nproc_per_node"):
            number = joined if equals else value
            return int(number) if number.isdigit() else None
    return None


def _parents_words() -> list[str] | None:
    """The command line of the process that started this one; None where the system is silent."""
    try:
        line = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:
        return None
    return line.decode(errors="replace").split("\0")


def _launcher() -> int | None:
    """The process whose end is to end this one; None where this one was started by itself.

    Raises:
        ValueError: it was gone before this process looked, and will end nobody.
    """
    parent, words = os.getppid(), _parents_words()
    in_python = words is None or "python" in words[0]
    if "TORCHELASTIC_RUN_ID" in os.environ and not in_python:
        raise ValueError("the launcher of this process was killed while it started; launch again")
    by_accelerate = "ACCELERATE_MIXED_PRECISION" in os.environ and in_python
    return parent if by_accelerate or "LOCAL_RANK" in os.environ else None


def _leave_with(parent: int) -> None:
    """End this process when its launcher is gone: a signal to it does not reach its children.

    Where the loop hears it as a request to stop, it has time to save.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(128 + signal.SIGTERM)
