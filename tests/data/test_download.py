"""One file over HTTP from servers that fail in their several ways."""

import base64
import hashlib
import multiprocessing
import os
import random
import signal
import time

import loopback
import pytest

from sslaudio.data import download
from sslaudio.data.corpora.base import Source
from sslaudio.data.download import bytes_here, retrieve
from sslaudio.data.progress import shown, silent

BYTES = random.Random(0).randbytes(400_000)
HALF = 3 * 65_536  # of a block less than that the whole block comes again
SHA256 = f"sha256:{hashlib.sha256(BYTES).hexdigest()}"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.001)
    with loopback.serving() as server:
        server.files["a.tar"] = BYTES
        yield server


def source(server, checksum=SHA256, name="a.tar") -> Source:
    return Source(server.url(f"{name}?download=1"), len(BYTES), checksum)


def ranges(server) -> list[str | None]:
    return [wanted for _, wanted in server.asked]


def test_a_download_that_broke_off_half_way_goes_on_there(server, tmp_path):
    server.break_offs = [HALF]

    path, was_checked = retrieve(source(server), tmp_path, silent)

    assert path == tmp_path / "a.tar"
    assert path.read_bytes() == BYTES
    assert was_checked
    assert ranges(server) == [None, f"bytes={HALF}-"]
    assert server.sent == len(BYTES)  # not a byte came twice
    assert sorted(tmp_path.iterdir()) == [path]


def test_of_a_block_that_broke_off_no_more_than_the_block_comes_again(server, tmp_path):
    server.break_offs = [200_000, 70_001]

    path, _ = retrieve(source(server), tmp_path, silent)

    assert path.read_bytes() == BYTES
    assert ranges(server) == [None, f"bytes={HALF}-", f"bytes={HALF + 65_536}-"]
    assert server.sent == len(BYTES) + 200_000 - HALF + 70_001 - 65_536


def test_a_connection_that_is_reset_goes_on_too(server, tmp_path):
    server.break_offs, server.resets = [131_072, 1_000], True

    path, _ = retrieve(source(server), tmp_path, silent)

    assert path.read_bytes() == BYTES
    assert len(server.asked) == 3
    assert all(wanted and wanted != "bytes=0-" for wanted in ranges(server)[2:])


def test_a_server_that_knows_no_ranges_sends_all_again(server, tmp_path):
    server.break_offs, server.knows_ranges = [HALF], False

    path, _ = retrieve(source(server), tmp_path, silent)

    assert path.read_bytes() == BYTES
    assert ranges(server) == [None, f"bytes={HALF}-"]
    assert server.sent == HALF + len(BYTES)


def test_a_server_that_dies_for_good_is_given_up_and_what_came_is_kept(server, tmp_path):
    server.break_offs = [65_536, 65_536] + [0] * 20

    with pytest.raises(OSError, match=r"5 times in a row; 131072 bytes are kept, run the command"):
        retrieve(source(server), tmp_path, silent)
    assert len(server.asked) == 2 + download.TRIES
    assert bytes_here(source(server), tmp_path) == 2 * 65_536

    server.break_offs = []
    path, _ = retrieve(source(server), tmp_path, silent)

    assert path.read_bytes() == BYTES
    assert ranges(server)[-1] == f"bytes={2 * 65_536}-"
    assert server.sent == len(BYTES)


def test_without_ranges_a_server_that_always_dies_is_given_up_too(server, tmp_path):
    server.break_offs, server.knows_ranges = [HALF] * 50, False

    with pytest.raises(OSError, match=r"broke off, 5 times in a row; 196608 bytes are kept"):
        retrieve(source(server), tmp_path, silent)


def test_no_server_is_one_line(server, tmp_path):
    gone = Source("http://127.0.0.1:9/a.tar", 10, SHA256)

    with pytest.raises(OSError, match=r"cannot be reached.*is there a network\?, 5 times in a row"):
        retrieve(gone, tmp_path, silent)


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_file_that_is_not_there_is_not_asked_for_again(server, tmp_path, status):
    server.refusals = [status]

    with pytest.raises(ValueError, match=rf"a.tar.* is not given out \(HTTP {status}\)"):
        retrieve(source(server), tmp_path, silent)
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.refusals = [503, 429]

    path, _ = retrieve(source(server), tmp_path, silent)

    assert path.read_bytes() == BYTES
    assert len(server.asked) == 3


def test_other_bytes_are_told_with_both_checksums_and_removed(server, tmp_path):
    server.files["a.tar"] = other = BYTES[:-1] + b"\0"
    expected, found = SHA256.partition(":")[2], hashlib.sha256(other).hexdigest()

    with pytest.raises(
        ValueError, match=rf"^a.tar is not .* {found}, expected {expected}; .*again"
    ):
        retrieve(source(server), tmp_path, silent)
    assert list(tmp_path.iterdir()) == []

    server.files["a.tar"] = BYTES
    path, _ = retrieve(source(server), tmp_path, silent)
    assert path.read_bytes() == BYTES


def test_without_a_published_checksum_the_one_that_the_server_tells_serves(server, tmp_path):
    told = base64.b64encode(hashlib.md5(BYTES).digest()).decode()
    server.headers = {"x-goog-hash": f"crc32c=n03x6A==,md5={told}"}

    _, was_checked = retrieve(source(server, checksum=""), tmp_path, silent)

    assert was_checked

    server.files["b.tar"] = BYTES[1:] + b"\0"
    with pytest.raises(ValueError, match=rf"expected {hashlib.md5(BYTES).hexdigest()}; it was rem"):
        retrieve(source(server, checksum="", name="b.tar"), tmp_path, silent)
    assert not (tmp_path / "b.tar").exists()


def test_nothing_to_compare_with_is_admitted(server, tmp_path):
    assert retrieve(source(server, checksum=""), tmp_path, silent)[1] is False


def test_a_file_that_changed_on_the_server_is_begun_anew(server, tmp_path):
    server.headers = {"ETag": '"first"'}
    server.break_offs = [65_536] + [0] * download.TRIES
    with pytest.raises(OSError, match="65536 bytes are kept"):
        retrieve(source(server, checksum=""), tmp_path, silent)
    server.headers, server.break_offs = {"ETag": '"second"'}, []
    server.files["a.tar"] = BYTES[::-1]

    path, _ = retrieve(source(server, checksum=""), tmp_path, silent)

    assert path.read_bytes() == BYTES[::-1]


def test_a_file_whose_length_changed_is_begun_anew(server, tmp_path):
    server.break_offs = [65_536] + [0] * download.TRIES
    longer = BYTES[::-1] + b"more"
    checksum = f"sha256:{hashlib.sha256(longer).hexdigest()}"
    with pytest.raises(OSError, match="65536 bytes are kept"):
        retrieve(source(server, checksum), tmp_path, silent)
    server.break_offs, server.files["a.tar"] = [], longer

    path, _ = retrieve(source(server, checksum), tmp_path, silent)

    assert path.read_bytes() == longer


def test_a_length_that_nobody_tells_is_no_hindrance(server, tmp_path):
    server.tells_length = False

    path, _ = retrieve(source(server), tmp_path, silent)

    assert path.read_bytes() == BYTES


def test_a_part_of_an_untold_whole_goes_on_too(server, tmp_path):
    server.tells_total, server.break_offs = False, [len(BYTES) // 2, 100]

    path, _ = retrieve(source(server), tmp_path, silent)

    assert path.read_bytes() == BYTES
    assert len(server.asked) == 3


def test_a_whole_file_is_not_asked_for_again(server, tmp_path):
    retrieve(source(server), tmp_path, silent)
    server.asked.clear()

    retrieve(source(server), tmp_path, silent)

    assert server.asked == []


def test_more_than_the_disk_holds_is_refused_before_a_byte_is_written(
    server, tmp_path, monkeypatch
):
    usage = download.shutil.disk_usage(tmp_path)._replace(free=399_999)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)

    with pytest.raises(ValueError, match=r"400000 bytes are still to come and .* 399999 free"):
        retrieve(source(server), tmp_path, silent)
    assert bytes_here(source(server), tmp_path) == 0


def test_progress_is_shown(server, tmp_path, capsys):
    server.break_offs = [HALF]

    retrieve(source(server), tmp_path, shown)

    told = capsys.readouterr().err
    assert "going on with a.tar, MB: 1 of 1" in told


def _retrieve_slowly(url: str, folder) -> None:
    retrieve(Source(url, len(BYTES), SHA256), folder, silent)


def test_a_killed_process_goes_on(server, tmp_path, monkeypatch):
    server.break_offs = [HALF]
    server.refusals = [200, *[503] * 3]  # after the first half it waits, and is killed there
    monkeypatch.setattr(download, "PAUSE_SECONDS", 30.0)
    spawn = multiprocessing.get_context("fork")
    process = spawn.Process(target=_retrieve_slowly, args=(server.url("a.tar"), tmp_path))
    process.start()
    deadline = time.monotonic() + 20
    while bytes_here(source(server), tmp_path) < HALF and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    server.refusals = []

    path, _ = retrieve(source(server), tmp_path, silent)

    assert path.read_bytes() == BYTES
    assert ranges(server)[-1] == f"bytes={HALF}-"
    assert server.sent == len(BYTES)
