"""One voice for a failure: whichever process of a run fails, one line is said and all leave.

A process that fails closes its connections, and every other fails at its next exchange with it. The
store that the processes met at knows whether somebody has spoken already, and who still answers.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import NoReturn

from torch.distributed import DistBackendError, DistNetworkError, DistStoreError, TCPStore

from sslaudio import ranks
from sslaudio.training.checkpoint import checkpoints
from sslaudio.training.report import history

ANSWER_SECONDS = 3.0
"""Time that a process has to answer before it is called lost."""
LEAVE_SECONDS = 10.0
"""Time that a process has to leave by itself once another has failed."""
POLL_SECONDS = 0.5
TERMINATED = 128 + signal.SIGTERM
"""Exit status of a process that SIGTERM ended."""
NO_STORE = (DistBackendError, DistNetworkError, DistStoreError)


@contextmanager
def one_voice(run: Path) -> Iterator[None]:
    """Say once what ends a run of several processes, and end all of them.

    A process alone raises what it raises. One of several ends here: with status 2 for bad input,
    143 for a SIGTERM that nobody hears as a request, 1 otherwise. The line goes to standard error.
    """
    if not ranks.several():
        yield
        return
    peers = Peers()
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    except (Exception, SystemExit) as error:
        # A launcher that sees one process fail terminates the others, which have yet to speak.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        peers.leave(_ended(peers, run, error))
    finally:
        peers.part()
        signal.signal(signal.SIGTERM, before)


def _ended(peers: "Peers", run: Path, error: BaseException) -> int:
    """Say what ended this process, if it is this process's to say; gives its exit status."""
    if isinstance(error, SystemExit):
        if error.code == TERMINATED and (gone := peers.lost()):
            peers.say(_parting(run, gone, peers.count))
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, RuntimeError) and _is_parting(error):
        peers.say(_parting(run, peers.lost(), peers.count))
        return 1
    told = isinstance(error, (ValueError, OSError))
    if not told or os.environ.get("SSLAUDIO_TRACEBACK"):
        if peers.is_first():
            sys.excepthook(type(error), error, error.__traceback__)
        return 1
    peers.say(" ".join(str(error).split()))
    return 2


class Peers:
    """The processes of this run, as the store that they met at knows them."""

    def __init__(self) -> None:
        """Meet them; from now on this process answers when another fails."""
        self.rank = ranks.rank()
        self.count = ranks.count()
        self.spoken = False
        """Whether another process is known to have spoken."""
        self.over = threading.Event()
        # A connection of its own: torch's may be held by an exchange that never ends.
        self.store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=30),
        )
        self.store.set(_key("machine", self.rank), socket.gethostname())
        threading.Thread(target=self._answer, daemon=True).start()

    def part(self) -> None:
        """Answer no more: all went well."""
        self.over.set()

    def is_first(self) -> bool:
        """Whether nobody has spoken yet; from now on somebody has."""
        if self.spoken:
            return False
        try:
            first = self.store.add(_key("told"), 1) == 1
            self.store.set(_key("trouble"), "")
            return bool(first)
        except NO_STORE:  # it was kept by rank 0, which is gone: one of each machine speaks
            return self.rank == 1 or os.environ.get("LOCAL_RANK", "0") == "0"

    def say(self, line: str) -> None:
        """Write a line to standard error, unless another process has spoken."""
        if self.is_first():
            sys.stderr.write(f"sslaudio: {line}\n")

    def lost(self) -> dict[int, str]:
        """Ranks that do not answer, and their machines; the lowest that asks knows first."""
        try:
            self.store.set(_key("trouble"), "")
            deadline = time.monotonic() + ANSWER_SECONDS
            while (gone := self._silent()) and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS / 5)
            lower = self.rank - sum(rank < self.rank for rank in gone)
            time.sleep(POLL_SECONDS * min(lower, 8))
            return {rank: self._machine(rank) for rank in gone}
        except NO_STORE:
            return {0: os.environ["MASTER_ADDR"]}

    def leave(self, status: int) -> NoReturn:
        """End at once: at a normal end torch would wait for those that are gone."""
        sys.stdout.flush()
        sys.stderr.flush()
        if self.rank == 0:  # perhaps the keeper of the store: the others have yet to look
            time.sleep(2 * POLL_SECONDS)
        os._exit(status)

    def _silent(self) -> list[int]:
        """Ranks that have not answered so far."""
        others = (rank for rank in range(self.count) if rank != self.rank)
        return [rank for rank in others if not self.store.check([_key("answer", rank)])]

    def _machine(self, rank: int) -> str:
        key = _key("machine", rank)
        return self.store.get(key).decode() if self.store.check([key]) else "an unknown machine"

    def _answer(self) -> None:
        """Wait for trouble, answer, and end this process if it does not end by itself."""
        try:
            while not self.store.check([_key("trouble")]):
                if self.over.wait(POLL_SECONDS):
                    return
            self.store.set(_key("answer", self.rank), "")
            deadline = time.monotonic() + LEAVE_SECONDS
            while time.monotonic() < deadline and not self.over.wait(POLL_SECONDS):
                self.spoken = self.spoken or self.store.check([_key("told")])
        except NO_STORE:
            return  # its keeper is gone; who exchanges with it hears of that
        if not self.over.is_set():
            os._exit(1)


def _key(name: str, rank: int | None = None) -> str:
    """A key of this attempt: a launcher that starts its processes again keeps its store."""
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return f"sslaudio/{attempt}/{name}" + ("" if rank is None else f"/{rank}")


def _parting(run: Path, gone: dict[int, str], count: int) -> str:
    """Who was lost, when, and how to go on."""
    metrics = run / "metrics.jsonl"
    lines = history(metrics).get("objective/loss", []) if metrics.is_file() else []
    when = f"after step {lines[-1][0]}" if lines else "before the first step"
    kept = checkpoints(run)
    on = f"go on from {kept[-1]} with --resume" if kept else "start again: nothing is saved yet"
    if not gone:
        return f"the {count} processes lost touch with one another {when}; {on}"
    names = ", ".join(f"{rank} of 0 to {count - 1} on {name}" for rank, name in gone.items())
    return (
        f"lost process {names} {when}: it was killed, perhaps for want of memory, or its machine "
        f"went away; {on}"
    )


def _is_parting(error: RuntimeError) -> bool:
    """Whether an exchange failed because another process is gone."""
    return isinstance(error, NO_STORE) or "gloo" in str(error) or "Connection" in str(error)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(TERMINATED)
