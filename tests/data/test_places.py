"""Shards below an address: the same sound as in a folder, whatever the server does."""

import errno
import importlib.util
import itertools
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from data import servers

from sslaudio.data import places
from sslaudio.data.index import Index
from sslaudio.data.indexed import ShardStream
from sslaudio.data.places import Range, place_of
from sslaudio.data.range_cache import RangeCache
from sslaudio.data.stream import Config


@pytest.fixture
def server(shards_folder):
    running = servers.FileServer(shards_folder)
    yield running
    running.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(places, "PAUSE_SECONDS", 0.01)


def stream_of(address, **settings) -> ShardStream:
    config = Config(shards=(str(address),), batch=6, clip_seconds=0.06, **settings)
    return ShardStream(config, sample_rate=16_000, seed=0)


def epochs(stream: ShardStream, count: int = 1) -> list:
    return list(itertools.islice(stream.batches(), 5 * count))  # 30 training clips


def assert_same(one: list, other: list) -> None:
    assert [batch.keys for batch in one] == [batch.keys for batch in other]
    assert all(torch.equal(a.waveforms, b.waveforms) for a, b in zip(one, other, strict=True))
    assert not any(told for batch in one for told in batch.corrupt)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This DataLoader will create 2")
def test_an_address_gives_what_the_folder_gives(server, shards_folder, workers):
    found = epochs(stream_of(server.address, workers=workers, kept_megabytes=0))

    assert_same(found, epochs(stream_of(shards_folder)))


@pytest.mark.skipif(
    not shutil.which("nginx", path="/usr/sbin:/usr/bin"), reason="nginx is not installed"
)
def test_nginx_serves_shards(shards_folder, tmp_path):
    with servers.nginx(shards_folder, tmp_path) as address:
        found = epochs(stream_of(address, kept_megabytes=0), 2)

    assert_same(found, epochs(stream_of(shards_folder), 2))


@pytest.mark.skipif(
    not (importlib.util.find_spec("s3fs") and importlib.util.find_spec("moto")),
    reason="s3fs and moto are not installed",
)
def test_s3_serves_shards(shards_folder, monkeypatch):
    import s3fs
    from moto.server import ThreadedMotoServer

    port = servers.free_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    running.start()
    try:
        s3fs.S3FileSystem.clear_instance_cache()
        bucket = s3fs.S3FileSystem()
        bucket.mkdir("corpora")
        bucket.put(f"{shards_folder}/", "corpora/toy/", recursive=True)

        found = epochs(stream_of("s3://corpora/toy", kept_megabytes=0))
        lost: list[str] = []

        def lose(paths: list[str], *_: object, **__: object) -> list[OSError]:
            lost.extend(paths)
            return [OSError("lost")] * len(paths)

        stream = stream_of("s3://corpora/toy", kept_megabytes=0)
        monkeypatch.setattr(stream.selections[0].index.place._system, "cat_ranges", lose)
        again = epochs(stream)
    finally:
        running.stop()

    assert_same(found, epochs(stream_of(shards_folder)))
    assert len(lost) == 35
    assert_same(again, found)  # each read again, by itself


def test_whole_clips_and_their_offsets_are_asked_for_together(server, monkeypatch):
    stream = stream_of(server.address)
    asked: list[int] = []
    read = places.Remote.read_ranges

    def counted(place: places.Remote, ranges: list[Range]) -> list[bytes]:
        asked.append(len(ranges))
        return read(place, ranges)

    monkeypatch.setattr(places.Remote, "read_ranges", counted)

    assert len(list(stream.whole_clips())) == 30
    assert asked == [5, 30]


def test_answers_that_break_off_lose_no_clip(server, shards_folder):
    server.breaks = 12

    found = epochs(stream_of(server.address, kept_megabytes=0), 2)

    assert server.breaks == 0
    assert_same(found, epochs(stream_of(shards_folder), 2))


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(
    "spoils",
    [
        lambda body: body[: len(body) // 2],
        lambda body: body[1:] + b"x",
        lambda body: bytes([body[0] ^ 1]) + body[1:],
    ],
    ids=["short", "shifted", "a bit"],
)
def test_answers_that_are_spoilt_on_their_way_lose_no_clip(
    server, shards_folder, tmp_path, cached, spoils
):
    settings = {"kept_megabytes": 0, "cache": str(tmp_path / "cache") if cached else ""}
    server.spoils = spoils

    found = epochs(stream_of(server.address, **settings))
    again = epochs(stream_of(server.address, **settings))

    assert_same(found, epochs(stream_of(shards_folder)))
    assert_same(again, found)


def test_a_server_that_comes_back_loses_no_clip(server, shards_folder, monkeypatch):
    slept: list[float] = []

    def back_after_three(seconds: float) -> None:
        slept.append(seconds)
        server.refuses_tars = len(slept) < 3

    stream = stream_of(server.address, kept_megabytes=0)
    server.refuses_tars = True
    monkeypatch.setattr(time, "sleep", back_after_three)

    found = epochs(stream)

    assert slept[:3] == pytest.approx([0.01, 0.02, 0.04])  # twice as long after each
    assert_same(found, epochs(stream_of(shards_folder)))


def test_a_server_that_stays_dead_is_one_error_with_shard_and_step(server):
    stream = stream_of(server.address, kept_megabytes=0)
    batches = stream.batches(position=12)
    next(batches)
    server.refuses_tars = True

    words = r"at step 4: http://127.*toy-00000\d\.tar could not be read, \d times: .*--resume"
    with pytest.raises(ValueError, match=words) as caught:
        next(batches)

    assert "\n" not in str(caught.value)


def test_a_missing_tar_is_told_at_once(server, shards_folder, tmp_path, monkeypatch):
    server.folder = shutil.copytree(shards_folder, tmp_path / "copy")
    stream = stream_of(server.address, kept_megabytes=0)
    for tar in server.folder.glob("*.tar"):
        tar.unlink()
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waits for what is not there"))

    with pytest.raises(ValueError, match=r"at step 1: .*\.tar is not there"):
        epochs(stream)


def test_a_server_without_ranges_says_what_to_do(server):
    stream = stream_of(server.address, kept_megabytes=0)
    server.ignores_ranges = True

    with pytest.raises(ValueError, match=r"does not serve parts of files.*copy the shards"):
        epochs(stream)
    assert not [name for name in server.requests if name.endswith(".tar")]  # whole ones would come


def test_an_address_without_shards_says_so(server):
    with pytest.raises(ValueError, match=r"http://.*/nothing has no index\.json"):
        Index.open(f"{server.address}/nothing")


@pytest.mark.parametrize(
    ("address", "words"),
    [("nonsense://x/y", "cannot be read: .*nonsense.*s3://"), ("gs://b/x", r"sslaudio\[gs\]")],
)
def test_an_unknown_protocol_or_a_missing_package_is_told(address, words):
    if "gs" in words and importlib.util.find_spec("gcsfs"):
        pytest.skip("gcsfs is installed")
    with pytest.raises(ValueError, match=words):
        place_of(address)


def test_what_is_cached_is_not_asked_for_again(server, shards_folder, tmp_path):
    settings = {"kept_megabytes": 0, "cache": str(tmp_path / "cache"), "cache_megabytes": 10}
    first = epochs(stream_of(server.address, **settings))
    server.requests.clear()

    again = epochs(stream_of(server.address, **settings))

    assert not [name for name in server.requests if name.endswith(".tar")]
    assert_same(again, first)
    assert_same(again, epochs(stream_of(shards_folder)))


def test_a_cache_of_other_shards_at_the_same_address_is_not_taken_for_them(
    server, second_folder, tmp_path
):
    settings = {"kept_megabytes": 0, "cache": str(tmp_path / "cache"), "cache_megabytes": 10}
    config = Config(shards=(server.address,), batch=5, clip_seconds=0.06, **settings)
    list(itertools.islice(ShardStream(config, sample_rate=16_000, seed=0).batches(), 4))
    server.folder = second_folder

    batches = itertools.islice(ShardStream(config, sample_rate=16_000, seed=0).batches(), 4)

    assert {one for batch in batches for one in batch.corrupt} == {None}


def test_the_cache_keeps_to_its_size_and_drops_the_oldest(tmp_path):
    cache = RangeCache(tmp_path, megabytes=0.1)
    names = [f"{number:064x}" for number in range(40)]

    for name in names:
        cache.put(name, name.encode() * 150)  # 9,600 bytes: ten fit

    held = sum(file.stat().st_size for file in tmp_path.glob("??/*"))
    assert held <= 0.11e6
    assert cache.get(names[-1]) == names[-1].encode() * 150
    assert cache.get(names[0]) is None


def test_many_processes_that_begin_together_do_not_overfill_the_cache(tmp_path):
    caches = [RangeCache(tmp_path, megabytes=0.1) for _ in range(12)]
    most = 0

    for number in range(600):
        caches[number % 12].put(f"{number:064x}"[::-1], bytes(500))
        most = max(most, sum(file.stat().st_size for file in tmp_path.glob("??/*")))

    assert most < 0.15e6  # a twentieth each would be 0.16


def test_a_cache_that_cannot_be_written_to_serves_all_the_same(tmp_path, monkeypatch):
    cache = RangeCache(tmp_path, megabytes=1)
    cache.put("ab" * 32, b"sound" * 100)

    def refuses(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuses)
    for name in ("write_bytes", "mkdir", "unlink", "rename"):
        monkeypatch.setattr(Path, name, refuses)
    cache.put("cd" * 32, b"more")

    assert cache.get("ab" * 32) == b"sound" * 100
    assert cache.get("cd" * 32) is None


def test_a_cache_that_is_a_file_is_named(tmp_path):
    (tmp_path / "cache").write_text("")

    with pytest.raises(ValueError, match=r"data\.cache is .*cache, which is no folder"):
        RangeCache(tmp_path / "cache", megabytes=1)


def test_a_torn_file_in_the_cache_counts_as_none(tmp_path):
    cache = RangeCache(tmp_path, megabytes=1)
    cache.put("ab" * 32, b"sound" * 100)
    [file] = tmp_path.glob("??/*")
    file.write_bytes(file.read_bytes()[:-3])

    assert cache.get("ab" * 32) is None


def test_a_local_place_reads_ranges_and_gives_less_at_the_end(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"0123456789")
    place = place_of(tmp_path)

    assert place.read_ranges([Range("a.bin", 2, 3), Range("a.bin", 8, 5)]) == [b"234", b"89"]
    assert (place.size("a.bin"), place.size("b.bin")) == (10, None)
