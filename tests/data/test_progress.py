import io
from contextlib import contextmanager

import pytest
from rich.console import Console

from sslaudio.data import progress


@pytest.fixture
def screen(monkeypatch):
    def replace(is_terminal: bool) -> io.StringIO:
        file = io.StringIO()
        console = Console(file=file, force_terminal=is_terminal, width=80)
        monkeypatch.setattr(progress, "Console", lambda **_: console)
        return file

    return replace


def test_a_terminal_gets_a_bar(screen):
    output = screen(is_terminal=True)

    with progress.shown("packing", 3) as advance:
        for _ in range(3):
            advance(1)

    assert "packing" in output.getvalue()
    assert "3/3" in output.getvalue()
    assert "\x1b[" in output.getvalue()


def test_elsewhere_there_are_plain_lines_and_few_of_them(screen):
    output = screen(is_terminal=False)

    with progress.shown("packing", 1_000) as advance:
        for _ in range(1_000):
            advance(1)

    assert output.getvalue() == "packing: 1000 of 1000, 0 s left\n"


def test_bytes_are_told_in_megabytes(screen):
    output = screen(is_terminal=False)

    with progress.in_megabytes(progress.shown, "fetching a.tar", 2_400_000) as advance:
        for _ in range(24):
            advance(100_000)

    assert output.getvalue() == "fetching a.tar, MB: 2 of 2, 0 s left\n"


def test_less_than_a_megabyte_is_one():
    told = []

    @contextmanager
    def display(title, total):
        told.append(total)
        yield told.append

    with progress.in_megabytes(display, "fetching a.tar", 10) as advance:
        advance(4)
        advance(6)

    assert told == [1, 1]
