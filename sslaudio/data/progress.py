"""How far a long job is: a bar with the time left on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[int], None]
"""Called with how many more are done."""
ProgressMaker = Callable[[str, int], AbstractContextManager[Advance]]
"""Given what is done and how many there are, opens a progress display."""

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def shown(title: str, total: int) -> Iterator[Advance]:
    """Show progress on standard error."""
    console = Console(stderr=True, soft_wrap=True)
    display = _bar if console.is_terminal else _lines
    with display(title, total, console) as advance:
        yield advance


@contextmanager
def silent(title: str, total: int) -> Iterator[Advance]:
    """Show nothing."""
    yield lambda done: None


@contextmanager
def in_megabytes(progress: ProgressMaker, title: str, total_bytes: int) -> Iterator[Advance]:
    """Progress that is counted in bytes and shown in megabytes."""
    done = told = 0
    total = max(1, round(total_bytes / 1e6))
    with progress(f"{title}, MB", total) as advance:

        def advance_bytes(more: int) -> None:
            nonlocal done, told
            done += more
            now = total if done >= total_bytes else min(int(done / 1e6), total)
            if now > told:
                advance(now - told)
                told = now

        yield advance_bytes


@contextmanager
def _bar(title: str, total: int, console: Console) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.advance(task, done)


@contextmanager
def _lines(title: str, total: int, console: Console) -> Iterator[Advance]:
    done, started = 0, time.monotonic()
    last_line = started

    def advance(more: int) -> None:
        nonlocal done, last_line
        done += more
        now = time.monotonic()
        if done >= total or now - last_line > _SECONDS_BETWEEN_LINES:
            last_line = now
            left = (now - started) * (total - done) / max(done, 1)
            console.print(f"{title}: {done} of {total}, {left:.0f} s left", highlight=False)

    yield advance
