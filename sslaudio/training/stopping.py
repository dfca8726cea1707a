"""A request to stop, heard as a signal and answered at the end of a step.

SIGTERM and SIGUSR1 come from a scheduler that wants its machine back, or from a launcher that is
gone; SIGINT is Ctrl-C. Any of them may come to one process and not to the others, or twice.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

REQUEUE = 75
"""Exit status of a run that saved itself and wants to be started again: sysexits' EX_TEMPFAIL."""
INTERRUPTED = 130
"""Exit status of a run that saved itself at Ctrl-C."""
ECHO_SECONDS = 2.0
"""A second Ctrl-C ends a run at once; sooner than this it is the launcher's echo of the first."""


@dataclass
class Requests:
    """What was asked of this process so far."""

    status: int = 0
    """Exit status to end with: 0, :data:`REQUEUE` or :data:`INTERRUPTED`."""
    asked_at: float = 0.0

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        now = time.monotonic()
        if number == signal.SIGINT:
            if self.status == INTERRUPTED and now - self.asked_at > ECHO_SECONDS:
                raise KeyboardInterrupt
            self.asked_at = self.asked_at if self.status == INTERRUPTED else now
        self.status = max(self.status, INTERRUPTED if number == signal.SIGINT else REQUEUE)


@contextmanager
def heard() -> Iterator[Requests]:
    """Hear signals as requests instead of dying of them. In the main thread alone."""
    requests = Requests()
    before = {
        number: signal.signal(number, requests.hear)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    }
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
