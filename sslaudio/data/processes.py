"""Processes: cores, freed memory, and work spread over ones that do not outlive their parent."""

import contextlib
import ctypes
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def cores() -> int:
    """Processor cores that this process may use; where the system does not tell, all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def die_with_parent() -> None:
    """End this process as soon as the one that started it is gone, even if it was killed.

    A daemon thread waits for the parent's end; without it a killed build or training run
    leaves workers behind that hold memory and files.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        die_with(parent.sentinel)


def die_with(other: int | Connection) -> None:
    """End this process, whatever it does, as soon as a pipe's other end is closed."""
    threading.Thread(target=_exit_after, args=(other,), daemon=True).start()


def reuse_freed_memory() -> None:
    """Keep freed memory for the next tensor instead of handing it back to the system.

    A training step, and a worker that decodes, allocates and frees the same few megabytes again and
    again; by default glibc asks the kernel for each of them, which has to find and clear the pages
    every time: thousands of page faults a step of AST micro, a fifth of a worker's time. What is
    larger than 32 MB it would ask for alone each time, whatever the threshold; so it asks for
    nothing alone. Other C libraries are left as they are.

    Source: mallopt(3).
    """
    with contextlib.suppress(OSError, TypeError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 64 << 20)


def check_jobs(jobs: int | None) -> None:
    """Refuse a number of processes that is none.

    Raises:
        ValueError: it is below 1.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(
            f"--jobs is {jobs}; set it to 1 or more, or leave it out for one process a core"
        )


def run_parallel(
    function: Callable[[Item], Result], items: Sequence[Item], jobs: int | None
) -> Iterator[Result]:
    """Results of ``function`` over ``items``, in the order they get done.

    Args:
        function: defined at the top of a module, so that a process can find it.
        items: what to work on.
        jobs: processes; None takes every core this process may use, 1 stays in this process.
    """
    jobs = min(jobs or cores(), len(items))
    if jobs <= 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=die_with_parent) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise OSError(
                "a worker process was killed, perhaps for want of memory; run the command again "
                "with a smaller --jobs: what was finished is kept"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _exit_after(other: int | Connection) -> None:
    wait([other])
    os._exit(1)
