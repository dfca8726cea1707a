"""Procedural sound: sound, seeded, of every kind, and heard in the share that was asked for."""

import itertools

import numpy as np
import pytest
import torch

from sslaudio.data.blended import BlendedStream
from sslaudio.data.procedural import filters
from sslaudio.data.procedural.notes import _instrument, _tone
from sslaudio.data.procedural.rooms import in_a_room
from sslaudio.data.procedural.scenes import KINDS, rhythm, scene
from sslaudio.data.stream import Config
from sslaudio.data.streams import stream_for

RATE = 16_000


def spectrum(sound):
    return np.abs(np.fft.rfft(sound)), np.fft.rfftfreq(len(sound), 1 / RATE)


@pytest.mark.parametrize("samples", [1600, 15_600, 48_001])
def test_a_filter_that_lets_all_through_changes_nothing(samples):
    sound = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    flat = np.ones((filters.columns(samples), filters.HOP + 1))

    assert np.allclose(filters.filtered(sound, flat), sound, atol=1e-5)


def test_a_filter_moves_with_its_columns():
    samples = 16_000
    sound = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    gains = np.zeros((filters.columns(samples), filters.HOP + 1))
    low = filters.hertz(RATE) < 1000
    gains[: len(gains) // 2, low] = 1
    gains[len(gains) // 2 :, ~low] = 1

    found = filters.filtered(sound, gains)

    for half, is_low in ((found[:7000], True), (found[9000:], False)):
        power, at = spectrum(half)
        share = (power[at < 1000] ** 2).sum() / (power**2).sum()
        assert share > 0.99 if is_low else share < 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [480, 8000, 16_000])
def test_every_kind_is_sound_that_its_seed_alone_tells(kind, samples):
    heard = []
    for seed in range(20):
        one, again = (KINDS[kind](np.random.default_rng(seed), samples, RATE) for _ in range(2))
        assert one.shape == (samples,)
        assert one.dtype == np.float32
        assert np.isfinite(one).all()
        assert np.array_equal(one, again)
        heard.append(one)
    assert len({one.tobytes() for one in heard}) == 20
    assert np.mean([np.abs(one).max() > 0 for one in heard]) > 0.9


def test_a_note_has_its_pitch_and_no_partial_above_half_the_rate():
    table = _instrument(np.random.default_rng(3), 8)
    sound = _tone(np.full(RATE, 440.0), table, 0.01, 10.0, RATE)

    power, at = spectrum(sound)

    near = np.abs(at / 440 - np.round(at / 440)) * 440 < 8
    assert (power[near & (at > 400)] ** 2).sum() / (power**2).sum() > 0.99


def test_a_room_answers_after_the_sound():
    click = np.zeros(RATE, np.float32)
    click[4000] = 1

    wet = in_a_room(np.random.default_rng(0), click, RATE)

    assert np.abs(wet[:3990]).max() < 1e-6
    early, late = np.abs(wet[4001:6000]).sum(), np.abs(wet[14_000:]).sum()
    assert early > 10 * late


def test_a_rhythm_comes_again():
    events = rhythm(np.random.default_rng(1), "impact", RATE, RATE)

    onsets = np.convolve(np.abs(events), np.ones(80), "same")
    assert (onsets > 0.2 * onsets.max()).any()


def test_scenes_are_loud_and_soft_but_never_silent_nor_clipped():
    clips = np.stack([scene(7, number, RATE, RATE) for number in range(100)])

    peaks = np.abs(clips).max(axis=1)
    assert peaks.max() <= 1
    assert peaks.min() > 0.03
    assert peaks.max() / peaks.min() > 5
    assert (np.abs(clips).mean(axis=1) > 0).all()
    assert len({clip.tobytes() for clip in clips}) == 100
    assert not np.array_equal(clips[0], scene(8, 0, RATE, RATE))


def stream_of(shards=(), rank=0, ranks=1, accumulation=1, **settings):
    config = Config(
        shards=tuple(map(str, shards)), **{"batch": 8, "clip_seconds": 0.06, **settings}
    )
    return stream_for(config)(
        config, sample_rate=RATE, seed=5, rank=rank, ranks=ranks, accumulation=accumulation
    )


def keys(batches, count):
    return [key for batch in itertools.islice(batches, count) for key in batch.keys]


def test_alone_it_needs_no_shards_and_no_clip_comes_twice():
    stream = stream_of(procedural=1)

    assert isinstance(stream, BlendedStream)
    assert stream.told == "procedural sound alone"
    found = keys(stream.batches(), 50)
    assert found == [f"procedural-{number}" for number in range(400)]
    assert stream.epoch(10**9) == 0
    assert stream_of(["x"], procedural=1).told == "procedural sound alone; nothing of x"


@pytest.mark.parametrize(("ranks", "accumulation"), [(1, 1), (2, 2), (4, 1)])
def test_shares_of_a_batch_are_whole_and_the_shards_are_heard_once(
    shards_folder, ranks, accumulation
):
    streams = [
        stream_of([shards_folder], rank, ranks, accumulation, procedural=0.375)
        for rank in range(ranks)
    ]
    clips = streams[0].real.clips
    steps = -(-clips // 5)

    each = [list(itertools.islice(s.batches(), steps * accumulation)) for s in streams]

    in_order = [
        key
        for step in range(steps)
        for turn in range(accumulation)
        for rank in range(ranks)
        for key in each[rank][step * accumulation + turn].keys
    ]
    for first in range(0, len(in_order), 8):
        assert sum(key.startswith("procedural") for key in in_order[first : first + 8]) == 3
    real = [key for key in in_order if not key.startswith("procedural")]
    assert len(set(real[:clips])) == clips
    alone = stream_of([shards_folder], batch=5)
    assert real == keys(alone.batches(), steps)
    assert sum(s.tally.epoch(0).sum() for s in streams) == clips
    # Five of eight clips are the shards': 30 of them are six batches, 6 * 8 positions.
    assert (clips, [streams[0].epoch(place) for place in (0, 40, 47, 48, 95, 96)]) == (
        30,
        [0, 0, 0, 1, 1, 2],
    )


def test_it_goes_on_from_any_position(shards_folder):
    whole = list(itertools.islice(stream_of([shards_folder], procedural=0.5).batches(), 6))
    rest = list(itertools.islice(stream_of([shards_folder], procedural=0.5).batches(24), 3))

    for one, other in zip(whole[3:], rest, strict=True):
        assert one.keys == other.keys
        assert torch.equal(one.waveforms, other.waveforms)


def test_statistics_hear_both_in_their_shares(shards_folder):
    stream = stream_of([shards_folder], procedural=0.75)

    clips = list(stream.whole_clips(20))

    assert len(clips) == stream.whole_count(20) == 20
    assert len(list(stream_of(procedural=1).whole_clips(7))) == 7


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"procedural": 1.5}, r"data\.procedural is 1\.5; it is a share, 0 to 1"),
        ({"procedural": 0.01, "shards": ["x"]}, r"of a batch of 8 clips is 0; raise data\.batch"),
        ({"procedural": 0.99, "shards": ["x"]}, r"of a batch of 8 clips is 8; raise data\.batch"),
        ({"procedural": 0.5, "shards": ["x.tar"]}, "sslaudio shards index DIR"),
    ],
)
def test_what_cannot_be(settings, words):
    with pytest.raises(ValueError, match=words):
        stream_of(**settings)
