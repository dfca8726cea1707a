import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslaudio.data.plan import Plan, key_of, permute, uniform

few = settings(max_examples=60, deadline=None)
shard_counts = st.lists(st.integers(0, 12), min_size=1, max_size=40).filter(any)


def plan_of(*counts, weights=None, seed=0, window_shards=4) -> Plan:
    arrays = tuple(np.array(c, np.int64) for c in counts)
    return Plan(arrays, tuple(weights or [1.0] * len(counts)), seed, window_shards)


def located(plan: Plan, first: int, end: int) -> list[tuple[int, int, int]]:
    places = plan.locate(np.arange(first, end))
    return list(
        zip(places.source.tolist(), places.shard.tolist(), places.nth.tolist(), strict=True)
    )


def every_clip(plan: Plan) -> set[tuple[int, int, int]]:
    return {
        (source, shard, nth)
        for source, counts in enumerate(plan.counts)
        for shard, count in enumerate(counts)
        for nth in range(count)
    }


@few
@given(st.integers(1, 3_000), st.integers(0, 2**64 - 1))
def test_a_permutation_sends_every_number_to_its_own_place(size, key):
    assert sorted(permute(np.arange(size), size, key)) == list(range(size))


def test_permutations_of_three_come_equally_often():
    seen = Counter(tuple(permute(np.arange(3), 3, key_of(seed)).tolist()) for seed in range(3_000))

    assert len(seen) == 6
    # 500 each; four standard deviations are 82.
    assert all(abs(count - 500) < 82 for count in seen.values())


def test_the_order_is_the_same_in_every_release():
    # Golden: a run must resume to the same clips with a later sslaudio.
    assert permute(np.arange(10), 10, key_of(7, 3)).tolist() == GOLDEN_PERMUTATION
    assert located(plan_of([3, 2], [2]), 0, 7) == GOLDEN_ORDER


def test_keys_tell_order_and_sign_apart():
    keys = {key_of(), key_of(0), key_of(0, 0), key_of(1, 2), key_of(2, 1), key_of(-1), key_of(1)}

    assert len(keys) == 7
    assert all(0 <= key < 2**64 for key in keys)


def test_chances_are_uniform_and_depend_on_the_counter_alone():
    chances = uniform(np.arange(20_000), key_of(1))

    assert abs(chances.mean() - 0.5) < 0.01  # five standard deviations
    assert abs(chances.std() - 12**-0.5) < 0.01
    assert abs(np.corrcoef(chances[:-1], chances[1:])[0, 1]) < 0.03
    assert uniform(np.array([777]), key_of(1))[0] == chances[777]
    assert uniform(np.array([777]), key_of(2))[0] != chances[777]


@few
@given(st.lists(shard_counts, min_size=1, max_size=3), st.integers(0, 9), st.integers(1, 20))
def test_every_epoch_holds_every_clip_once(counts, seed, window_shards):
    plan = plan_of(*counts, seed=seed, window_shards=window_shards)
    clips = plan.clips

    assert plan.epoch_clips == clips
    for epoch in range(3):
        order = located(plan, epoch * clips, (epoch + 1) * clips)
        assert len(order) == clips
        assert set(order) == every_clip(plan)


@few
@given(shard_counts, st.integers(0, 500), st.integers(1, 200))
def test_any_start_gives_the_tail_of_the_whole(counts, first, length):
    plan = plan_of(counts, [3, 1], weights=(1.0, 0.5))

    whole = located(plan, 0, first + length)

    assert (
        located(plan_of(counts, [3, 1], weights=(1.0, 0.5)), first, first + length)
        == (whole[first:])
    )


def test_each_epoch_and_each_seed_has_another_order_of_shards_and_clips():
    plan = plan_of([10] * 40)
    epochs = [tuple(located(plan, 400 * epoch, 400 * (epoch + 1))) for epoch in range(5)]
    first_windows = [frozenset(shard for _, shard, _ in epoch[:40]) for epoch in epochs]

    assert len(set(epochs)) == 5
    assert len(set(first_windows)) == 5
    assert located(plan_of([10] * 40, seed=1), 0, 400) != list(epochs[0])


def test_clips_of_a_window_are_mixed_and_windows_are_read_in_sequence():
    order = located(plan_of([100] * 40), 0, 4_000)

    for window in range(10):
        shards = [shard for _, shard, _ in order[400 * window : 400 * (window + 1)]]
        assert len(set(shards)) == 4
        # All four shards turn up at once: 40 draws miss one with a chance of 4 * 0.75 ** 40.
        assert len(set(shards[:40])) == 4


def test_a_weight_says_how_often_a_clip_is_drawn():
    plan = plan_of([10] * 3, [20] * 2, [5], weights=(1.0, 0.5, 4.0))

    drawn = Counter(located(plan, 0, 10 * plan.epoch_clips))

    assert plan.epoch_clips == 30 + 20 + 20
    assert {drawn[0, shard, nth] for shard in range(3) for nth in range(10)} == {10}
    assert {drawn[1, shard, nth] for shard in range(2) for nth in range(20)} == {5}
    assert {drawn[2, 0, nth] for nth in range(5)} == {40}


def test_no_clip_comes_again_before_every_clip_of_its_folder_came():
    plan = plan_of([7, 3], [4], weights=(0.3, 2.0))

    order = located(plan, 0, 500)

    for source, clips in ((0, 10), (1, 4)):
        mine = [place for place in order if place[0] == source]
        rounds = [mine[start : start + clips] for start in range(0, len(mine) - clips + 1, clips)]
        assert len(rounds) > 5
        assert all(len(set(turn)) == clips for turn in rounds)


def test_folders_are_mixed_evenly_all_along():
    plan = plan_of([1_000], [300], [50])
    sources = plan.locate(np.arange(1_350)).source

    for start in range(0, 1_300, 50):
        shares = np.bincount(sources[start : start + 50], minlength=3)
        # By hand: 50 * (1000, 300, 50) / 1350 = 37.04, 11.1, 1.85; whole numbers, so within two.
        assert np.abs(shares - np.array([37.04, 11.1, 1.85])).max() < 2


def test_twenty_million_clips_are_reached_at_once():
    plan = plan_of([1_000] * 20_000, window_shards=16)
    plan.locate(np.arange(4))
    started = time.perf_counter()

    places = plan.locate(np.arange(19_999_990, 20_000_118))

    assert time.perf_counter() - started < 0.5  # 10 ms on an idle core, of which 4 are an epoch
    assert len(set(zip(places.shard, places.nth, strict=True))) == 128
    assert plan.epoch(19_999_999) == 0
    assert plan.epoch(20_000_000) == 1


@pytest.mark.parametrize("clips", [1, 2, 3])
def test_the_smallest_corpora_work(clips):
    plan = plan_of([0, clips, 0])

    assert {nth for _, _, nth in located(plan, 5 * clips, 6 * clips)} == set(range(clips))


GOLDEN_PERMUTATION = [3, 7, 0, 5, 4, 6, 8, 2, 1, 9]
GOLDEN_ORDER = [(1, 0, 1), (0, 1, 0), (0, 0, 2), (1, 0, 0), (0, 0, 1), (0, 1, 1), (0, 0, 0)]
