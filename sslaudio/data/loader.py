"""Worker processes that read ahead, in an order that does not depend on how many there are."""

import itertools
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from typing import Any, TypeVar

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from sslaudio.data.processes import die_with_parent

Part = TypeVar("Part")

_PREFETCHED_PARTS = 4


def read_ahead(read: Callable[[int], Part], workers: int) -> Iterator[Part]:
    """``read(0)``, ``read(1)``, … without end.

    Args:
        read: makes the n-th part; it must pickle.
        workers: processes that do so ahead of time; worker ``w`` makes the parts ``w``,
            ``w + workers``, …. 0 reads here, when a part is asked for.

    Raises:
        ValueError: ``read`` raised it, or an OSError, in a worker: the same words.
    """
    if not workers:
        yield from map(read, itertools.count())
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.utils.data", __name__])  # imported once, not per worker
    _start_server()
    loader = DataLoader(
        _Parts(read),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=_PREFETCHED_PARTS,
        worker_init_fn=_start_worker,
        multiprocessing_context=context,
    )
    for part in loader:
        if isinstance(part, _Failure):
            raise ValueError(part.message)
        yield part


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

    def __init__(self, read: Callable[[int], Any]) -> None:
        self.read = read

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        assert worker is not None, "without workers the parts are read in the training process"
        try:
            for number in itertools.count(worker.id, worker.num_workers):
                yield self.read(number)
        except (ValueError, OSError) as error:
            yield _Failure(str(error))


def _start_worker(worker: int) -> None:
    """torch has given this process one thread already."""
    die_with_parent()
