"""Long files in segments: end to end, found again, resumed, and at the cost of the segments."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sslaudio.data import pieces, segments
from sslaudio.data.corpora.base import Clip
from sslaudio.data.decode import decode
from sslaudio.data.index import Index
from sslaudio.data.pieces import sought
from sslaudio.data.progress import silent
from sslaudio.data.report import read_report
from sslaudio.data.shards import build
from sslaudio.data.verify import verify

RATE = 16_000


def ramp(path: Path, seconds: float, rate: int = RATE, channels: int = 1) -> Clip:
    """A sound whose every sample tells its place: 16-bit steps, round and round."""
    count = round(seconds * rate)
    steps = (np.arange(count) % 65_536 - 32_768).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.stack([steps] * channels, 1), rate)
    return Clip(path, path.name, label="ramp", split="train")


def make(clips, out, seconds, **settings):
    settings = {"corpus": "toy", "clips_per_shard": 4, "jobs": 1, "progress": silent, **settings}
    index, _ = build(clips, out, segment_seconds=seconds, **settings)
    return index


def together(index, source):
    """A source's segments put together in the order of their keys; keys, starts, recordings."""
    found = sorted(
        (one for one in index.examples() if one.fields["source"] == source), key=lambda one: one.key
    )
    sounds = [decode(one.shard, index.sample_rate, byte_range=one.byte_range) for one in found]
    return np.concatenate(sounds), found


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_segments_put_together_are_the_file_to_the_bit(tmp_path, kind):
    clip = ramp(tmp_path / f"in/a b.{kind}", 10.35, channels=2)

    index = make([clip, ramp(tmp_path / "in/short.wav", 1.0)], tmp_path / "out", 2.0)

    sound, found = together(index, f"a b.{kind}")
    np.testing.assert_array_equal(sound, decode(clip.path, RATE))
    assert [one.key for one in found] == [f"a_b-{n:04d}" for n in range(6)]
    assert [one.fields["start"] for one in found] == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert [one.fields["seconds"] for one in found] == [2.0] * 5 + [0.35]
    assert {one.fields["recording"] for one in found} == {f"a b.{kind}"}
    assert {one.fields["label"] for one in found} == {"ramp"}
    (whole,) = [one for one in index.examples() if one.key == "short"]
    assert not {"start", "recording"} & set(whole.fields)
    assert verify(tmp_path / "out", jobs=1, progress=silent) == []


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("kind", ["wav", "ogg", "mp3"])
def test_at_other_rates_they_are_what_resampling_the_whole_gives(tmp_path, rate, kind):
    noise = 0.2 * np.random.default_rng(0).standard_normal(round(5.07 * rate))
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, noise, rate)

    index = make([Clip(path, path.name)], tmp_path / "out", 0.77)

    sound, found = together(index, path.name)
    whole = decode(path, RATE)
    assert len(sound) == len(whole)
    assert {one.samples for one in found[:-1]} == {round(0.77 * RATE)}
    assert np.abs(sound - whole).max() <= 1.01 / 32_768  # a step of 16 bits: seams are not heard


def test_a_piece_hears_what_lies_around_it(tmp_path):
    rate = 44_100
    soundfile.write(tmp_path / "a.wav", np.full(3 * rate, 0.5), rate, "FLOAT")

    alone = decode(tmp_path / "a.wav", RATE, start_seconds=1.0, seconds=1.0)
    piece = sought(tmp_path / "a.wav", RATE, RATE, 2 * RATE)

    assert np.abs(alone - 0.5).max() > 0.01  # cut before it is resampled, its edges ring
    assert np.abs(piece - 0.5).max() < 1e-4


@pytest.mark.parametrize(
    ("seconds", "lengths"),
    [
        (2.0, [2.0]),
        (2.05, [2.05]),  # a rest below a tenth of a second goes with the segment before it
        (2.1, [2.0, 0.1]),
        (4.05, [2.0, 2.05]),
        (3.9, [2.0, 1.9]),
    ],
)
def test_the_rest_is_kept_or_goes_with_the_segment_before(tmp_path, seconds, lengths):
    clip = ramp(tmp_path / "a.wav", seconds)

    cut = segments.cut([clip], 2.0, RATE, 1, silent)

    assert [one.seconds for one in cut] == ([None] if len(lengths) == 1 else lengths)


def test_a_corpuss_own_recording_is_kept_and_a_cut_clip_is_cut_in_its_bounds(tmp_path):
    clip = replace(ramp(tmp_path / "a.wav", 10), start_seconds=1.5, seconds=5.0, recording="r")

    cut = segments.cut([replace(clip, part="0003")], 2.0, RATE, 1, silent)

    assert [(one.start_seconds, one.seconds) for one in cut] == [(1.5, 2.0), (3.5, 2.0), (5.5, 1.0)]
    assert {one.recording for one in cut} == {"r"}
    assert [one.part for one in cut] == ["0003-0000", "0003-0001", "0003-0002"]


def test_keys_are_unique_whatever_the_names(tmp_path):
    names = ["a.wav", "a.flac", "a-0001.wav", "A-0000.wav", "b/c.wav", "b_c.wav", "b_c-0000.wav"]
    clips = [replace(ramp(tmp_path / name, 0.2), source=name) for name in names]
    clips[0], clips[5] = ramp(tmp_path / "a.wav", 5), ramp(tmp_path / "b_c.wav", 3)
    clips[1] = ramp(tmp_path / "a.flac", 4)

    keys = [one.key.lower() for one in make(clips, tmp_path / "out", 1.0).examples()]

    assert len(keys) == len(set(keys)) == 5 + 4 + 3 + 4


def test_what_cannot_be_read_stays_one_clip_and_is_rejected(tmp_path):
    clips = [ramp(tmp_path / f"{name}.wav", 3) for name in ("good", "gone", "empty", "text")]
    clips[1].path.unlink()
    clips[2].path.write_bytes(b"")
    clips[3].path.write_text("no sound " * 100)
    half = ramp(tmp_path / "half.flac", 10)
    half.path.write_bytes(half.path.read_bytes()[: half.path.stat().st_size // 2])

    index = make([*clips, half], tmp_path / "out", 1.0)

    report = read_report(tmp_path / "out")
    assert (report.listed, report.there, report.long_clips, report.segments) == (5, 4, 2, 13)
    assert {"missing": 1, "empty": 1}.items() <= report.rejected.items()
    assert sum(report.rejected.values()) == index.totals.rejected == 13 + 3 - index.totals.clips
    lines = map(json.loads, (tmp_path / "out/rejected.jsonl").read_text().splitlines())
    told = {(line["source"], line.get("start", 0.0)) for line in lines}
    assert {("gone.wav", 0.0), ("empty.wav", 0.0), ("text.wav", 0.0), ("half.flac", 9.0)} <= told
    assert "half.flac" in {one.fields["source"] for one in index.examples()}


def test_a_rejected_file_counts_as_one_however_many_segments_the_others_have(tmp_path):
    clips = [ramp(tmp_path / f"in/{n}.wav", 0.3) for n in range(100)]
    for clip in clips[:2]:
        clip.path.unlink()

    with pytest.raises(ValueError, match=r"2 of 100 files were rejected.*--max-rejected 0\.01"):
        make(clips, tmp_path / "out", 0.1)
    assert make(clips, tmp_path / "out", 0.1, max_rejected=0.02).totals.clips == 98 * 3


def test_another_length_is_another_build_and_two_processes_write_the_same(tmp_path):
    clips = [ramp(tmp_path / f"in/{n}.wav", 3 + n / 7) for n in range(40)]

    make(clips, tmp_path / "one", 1.0)
    make(clips, tmp_path / "two", 1.0, jobs=2)

    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    with pytest.raises(ValueError, match=r"segment_seconds was 1\.0 and is now 2\.0"):
        make(clips, tmp_path / "one", 2.0)
    with pytest.raises(ValueError, match=r"segment_seconds was 1\.0 and is now None"):
        make(clips, tmp_path / "one", None)


def test_a_build_that_was_stopped_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    clips = [ramp(tmp_path / f"in/{n}.wav", 5.5) for n in range(4)]
    make(clips, tmp_path / "whole", 1.0)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sslaudio.data.shards.write_index", stop)
    with pytest.raises(KeyboardInterrupt):
        make(clips, tmp_path / "out", 1.0)
    (tmp_path / "out/toy-000002.tar").unlink()
    kept = (tmp_path / "out/toy-000001.tar").stat().st_mtime_ns
    monkeypatch.undo()
    make(clips, tmp_path / "out", 1.0)

    assert (tmp_path / "out/toy-000001.tar").stat().st_mtime_ns == kept
    for path in (tmp_path / "whole").glob("*.*"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name


def test_a_changed_file_is_noticed_by_its_segments(tmp_path):
    clips = [ramp(tmp_path / "in/a.wav", 5)]
    make(clips, tmp_path / "out", 1.0)
    later = time.time() + 10
    data = bytearray(clips[0].path.read_bytes())
    data[-4] ^= 255
    clips[0].path.write_bytes(data)
    os.utime(clips[0].path, (later, later))

    with pytest.raises(ValueError, match=r"source files changed .*a\.wav"):
        make(clips, tmp_path / "out", 1.0)


def test_a_file_of_some_minutes_is_never_held_nor_read_whole(tmp_path, monkeypatch):
    clips = [ramp(tmp_path / f"long.{kind}", 300) for kind in ("wav", "flac")]
    most, read = 0, 0
    plain = soundfile.SoundFile.read

    def counted(sound, frames, **settings):
        nonlocal most, read
        most, read = max(most, frames), read + frames
        return plain(sound, frames, **settings)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    monkeypatch.setattr("sslaudio.data.pack.read_bytes", None)  # reads files whole

    index = make(clips, tmp_path / "out", 10.0)

    assert index.totals.clips == 60
    assert most == 10 * RATE
    assert read == 600 * RATE  # each sample once
    for clip in clips:
        np.testing.assert_array_equal(together(index, clip.source)[0], decode(clip.path, RATE))


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.05, float("nan"), float("inf")])
def test_a_length_that_is_none_is_refused(tmp_path, seconds):
    with pytest.raises(ValueError, match=r"--segment-seconds is .*; set it to 0\.1 or more"):
        make([ramp(tmp_path / "a.wav", 1)], tmp_path / "out", seconds)


def test_tasks_tell_segments_of_one_file_apart(tmp_path):
    from sslaudio.tasks.base import example_of
    from sslaudio.tasks.sources import read

    make([ramp(tmp_path / "a.wav", 3)], tmp_path / "out", 1.0, corpus="folder")

    clips = read("folder", tmp_path / "out").clips

    assert sorted(example_of(clip, 0).key for clip in clips) == [
        "a.wav#0.0",
        "a.wav#1.0",
        "a.wav#2.0",
    ]
    assert pieces.samples_of(tmp_path / "a.wav", RATE) == 3 * RATE
    assert isinstance(Index.open(tmp_path / "out"), Index)
