import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sslaudio.data.progress import silent
from sslaudio.data.shards import build

REPO = Path(__file__).parents[2]

SLOW_BUILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {repo!r})
from sslaudio.data import pack
from sslaudio.data.corpora import folder
from sslaudio.data.shards import build

add = pack._Writer.add
def slow_add(*parts):
    time.sleep(0.01)
    add(*parts)
pack._Writer.add = slow_add
root = Path({root!r})
clips = folder.build(folder.Config(), root)
build(clips, Path({out!r}), corpus="toy", clips_per_shard=10, jobs=1)
"""


def make(clips, out, **settings):
    settings = {"corpus": "toy", "clips_per_shard": 10, "jobs": 1, **settings}
    return build(clips, out, progress=silent, **settings)


def tree(folder):
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")
    }


def folder_clips(root):
    from sslaudio.data.corpora import folder

    return folder.build(folder.Config(), root)


def test_a_killed_build_goes_on_to_the_same_bytes(tmp_path, make_clips):
    make_clips(tmp_path / "in", 60)
    clips = folder_clips(tmp_path / "in")
    script = SLOW_BUILD.format(repo=str(REPO), root=str(tmp_path / "in"), out=str(tmp_path / "out"))
    victim = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("out/.build/toy-*.json"))) < 2:
            assert victim.poll() is None, "the build ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    finished = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("out/toy-*.tar")}
    records = [path.stem for path in tmp_path.glob("out/.build/toy-*.json")]
    assert 2 <= len(records) < 6
    assert not (tmp_path / "out" / "index.json").exists()

    _, was_made = make(clips, tmp_path / "out")
    make(clips, tmp_path / "whole")

    assert was_made
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    for name in records:
        assert (tmp_path / "out" / f"{name}.tar").stat().st_mtime_ns == finished[f"{name}.tar"]


def test_a_finished_build_run_again_touches_nothing(tmp_path, make_clips):
    clips = make_clips(tmp_path / "in", 20)
    make(clips, tmp_path / "out")
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("toy*")}

    _, was_made = make(clips, tmp_path / "out", max_rejected=0.5, jobs=2)

    assert not was_made
    assert times == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("toy*")}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"corpus": "other"}, "corpus was 'toy' and is now 'other'"),
        ({"codec": "ogg"}, "codec was 'flac' and is now 'ogg'"),
        ({"sample_rate": 8_000}, "sample_rate was 16000 and is now 8000"),
        ({"clips_per_shard": 7}, "clips_per_shard was 10 and is now 7"),
    ],
)
def test_another_build_in_the_same_folder_is_refused(tmp_path, make_clips, settings, words):
    clips = make_clips(tmp_path / "in", 20)
    make(clips, tmp_path / "out")

    with pytest.raises(ValueError, match=f"{words}.*another --out, or remove"):
        make(clips, tmp_path / "out", **settings)


def test_a_file_more_or_another_split_is_refused(tmp_path, make_clips):
    clips = make_clips(tmp_path / "in", 20)
    make(clips[:-1], tmp_path / "out")

    with pytest.raises(ValueError, match="files was 19 and is now 20"):
        make(clips, tmp_path / "out")
    with pytest.raises(ValueError, match="names, sizes, labels or splits"):
        make(clips[1:], tmp_path / "out")


def test_changed_content_is_refused_and_a_new_date_alone_is_not(tmp_path, make_clips):
    clips = make_clips(tmp_path / "in", 20)
    make(clips, tmp_path / "out")
    later = time.time() + 10
    os.utime(clips[4].path, (later, later))

    assert not make(clips, tmp_path / "out")[1]
    data = bytearray(clips[4].path.read_bytes())
    data[-1] ^= 1
    clips[4].path.write_bytes(data)
    os.utime(clips[4].path, (later, later))

    with pytest.raises(ValueError, match=r"source files changed.*clip 004\.wav"):
        make(clips, tmp_path / "out")


def test_someone_elses_tars_are_not_overwritten(tmp_path, make_clips):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "theirs.tar").write_bytes(b"")

    with pytest.raises(ValueError, match="no build of ours"):
        make(make_clips(tmp_path / "in", 2), tmp_path / "out")


def test_two_builds_at_once_are_refused(tmp_path, make_clips):
    from sslaudio.data.resume import locked

    clips = make_clips(tmp_path / "in", 2)
    with locked(tmp_path / "out"), pytest.raises(ValueError, match="another build is writing"):
        make(clips, tmp_path / "out")


def test_a_file_as_out_is_refused(tmp_path, make_clips):
    clips = make_clips(tmp_path / "in", 2)

    with pytest.raises(ValueError, match="is a file; give a folder"):
        make(clips, clips[0].path)
