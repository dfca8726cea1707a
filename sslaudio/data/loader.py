"""Worker processes that read ahead, in an order that does not depend on how many there are."""

import atexit
import itertools
import multiprocessing
import signal
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import Any, TypeVar, cast

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from sslaudio.data.processes import die_with, die_with_parent, reuse_freed_memory
from sslaudio.data.slots import Packed, Slots

Part = TypeVar("Part")

_PREFETCHED_PARTS = 4


def read_ahead(read: Callable[[int], Part], workers: int, part_bytes: int) -> Iterator[Part]:
    """``read(0)``, ``read(1)``, … without end.

    Args:
        read: makes the n-th part; it must pickle.
        workers: processes that do so ahead of time; worker ``w`` makes the parts ``w``,
            ``w + workers``, …. 0 reads here, when a part is asked for.
        part_bytes: what a part's arrays take together; what is more goes a slower way.

    Raises:
        ValueError: ``read`` raised it, or an OSError, in a worker: the same words. Or a worker was
            killed, or there is not enough shared memory.
    """
    if not workers:
        return map(read, itertools.count())
    slots = Slots(workers, _PREFETCHED_PARTS, part_bytes)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.utils.data", __name__])  # imported once, not per worker
    _start_server()
    there, here = multiprocessing.Pipe(duplex=False)
    loader = DataLoader(
        _Parts(read, slots, there),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=_PREFETCHED_PARTS,
        worker_init_fn=_start_worker,
        multiprocessing_context=context,
    )
    parts = _unpacked(iter(loader), slots, here)
    atexit.register(_close, weakref.ref(parts))
    return parts


def _unpacked(packed: Iterator[Any], slots: Slots, here: Connection) -> Iterator[Any]:
    with here:  # by its end the workers end too, also one that a server keeps waiting
        for part in _alive(packed):
            if isinstance(part, _Failure):
                raise ValueError(part.message)
            yield slots.unpack(part)


def _alive(packed: Iterator[Any]) -> Iterator[Any]:
    """What comes from the workers, as long as all are there.

    Raises:
        ValueError: one was killed.
    """
    try:
        yield from packed
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):  # raised in one, not by its end
            raise
        raise ValueError(
            f"a worker that reads ahead was killed, perhaps for want of memory ({error}); go on "
            f"with --resume, with fewer data.workers or a smaller data.kept_megabytes"
        ) from error


def _close(parts: "weakref.ref[Any]") -> None:
    """End the workers of an iterator that the program leaves open at its end.

    Python would ask them by SIGTERM, to which they are deaf, and wait for ever.
    """
    open_ = parts()
    if open_ is not None:
        open_.close()


def _start_server() -> None:
    """Start the process that forks the workers, deaf to signals as they will be.

    A scheduler, or Ctrl-C, signals every process of a run; training may have a step to finish and a
    state to save first, and takes its workers along when it ends.
    """
    signals = {signal.SIGTERM, signal.SIGUSR1, signal.SIGINT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        resource_tracker.ensure_running()  # which unblocks what it is deaf to by itself
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True)
class _Failure:
    """An error on its way from a worker: one line, and not a traceback within another."""

    message: str


class _Parts(IterableDataset[Any]):
    """Every ``workers``-th part, which the loader then takes in turn."""

    def __init__(self, read: Callable[[int], Any], slots: Slots, there: Connection) -> None:
        self.read = read
        self.slots = slots
        self.there = there
        """Closed at its other end once no more parts are wanted."""

    def __iter__(self) -> Iterator[Packed | _Failure]:
        worker = get_worker_info()
        assert worker is not None, "without workers the parts are read in the training process"
        try:
            for number in itertools.count(worker.id, worker.num_workers):
                yield self.slots.pack(worker.id, number // worker.num_workers, self.read(number))
        except (ValueError, OSError) as error:
            yield _Failure(str(error))


def _start_worker(worker: int) -> None:
    """torch has given this process one thread already."""
    info = get_worker_info()
    assert info is not None, "a worker starts itself"
    die_with_parent()
    die_with(cast(_Parts, info.dataset).there)
    reuse_freed_memory()
