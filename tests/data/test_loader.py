"""Processes that read ahead: what they leave behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from sslaudio.data.loader import read_ahead

PROGRAM = """
from sslaudio.data.loader import read_ahead

if __name__ == "__main__":
    parts = read_ahead(str, 2, 100)
    print([next(parts) for _ in range(5)])
"""


def test_a_program_that_leaves_them_open_ends(tmp_path):
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)

    done = subprocess.run(
        [sys.executable, "-W", "ignore", file],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == str(["0", "1", "2", "3", "4"])


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2")
def test_a_worker_that_is_killed_ends_the_run_with_one_line():
    before = set(multiprocessing.active_children())
    parts = read_ahead(str, 2, 100)
    next(parts)
    worker, _ = set(multiprocessing.active_children()) - before

    os.kill(worker.pid, signal.SIGKILL)

    with pytest.raises(ValueError, match=rf"was killed.*{worker.pid}.*--resume.*data\.workers"):
        list(parts)


def stuck(number: int) -> int:
    """As a read from a server that sends nothing."""
    time.sleep(0 if number < 3 else 1000)
    return number


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2")
def test_workers_that_wait_for_a_server_end_when_nothing_more_is_wanted():
    before = set(multiprocessing.active_children())
    parts = read_ahead(stuck, 2, 100)
    assert [next(parts) for _ in range(3)] == [0, 1, 2]
    workers = set(multiprocessing.active_children()) - before

    began = time.monotonic()
    parts.close()
    for worker in workers:
        worker.join(10)

    assert len(workers) == 2
    assert not any(worker.is_alive() for worker in workers)
    assert time.monotonic() - began < 5
