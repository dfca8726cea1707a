"""Clips of one recording in different batches: by hand, and over whole plans."""

from collections import Counter

import numpy as np
import pytest

from sslaudio.data.apart import deal, swap_repeated
from sslaudio.data.plan import Plan


def test_neighbours_are_dealt_to_different_batches():
    batches = np.array([0, 1, 1, 1, 2, 2, 2])  # the first batch was begun before

    dealt = deal(np.array([10, 11, 12, 13, 14, 15, 16]), batches)

    # By hand: a round gives one to each batch that has room: 10 11 12, then 13 14, then 15 16.
    assert dealt.tolist() == [10, 11, 13, 15, 12, 14, 16]


def test_what_a_batch_has_heard_is_swapped_with_a_clip_of_a_middle_batch():
    recordings = np.array([7, 8, 9, 7, 5, 6, 4, 3], np.uint64)
    batches = np.array([0, 0, 1, 1, 1, 1, 2, 2])

    order = swap_repeated(recordings, batches, heard=np.array([7], np.uint64))

    # By hand: place 0 repeats recording 7. Batch 1 has a 7 already, so nothing may be swapped.
    assert order.tolist() == list(range(8))
    order = swap_repeated(recordings, batches, heard=np.array([8], np.uint64))
    # Place 1 repeats 8; place 2 is the first of a middle batch, its 9 is new to batch 0.
    assert order.tolist() == [0, 2, 1, 3, 4, 5, 6, 7]


def plan_and_recordings(counts, weights, batch, recordings):
    random = np.random.default_rng(0)
    told = [
        [random.integers(1, recordings + 1, c).astype(np.uint64) for c in one] for one in counts
    ]
    arrays = tuple(np.array(one) for one in counts)
    return Plan(arrays, weights, 0, 4, batch, lambda source, shard: told[source][shard]), told


def repeats(plan, told, positions) -> int:
    places = plan.locate(positions)
    rows = zip(places.source, places.shard, places.nth, strict=True)
    heard = [(int(source), int(told[source][shard][nth])) for source, shard, nth in rows]
    starts = range(0, len(heard), plan.batch)
    return sum(plan.batch - len(set(heard[start : start + plan.batch])) for start in starts)


@pytest.mark.parametrize(
    ("counts", "weights"), [([[60] * 16], (1.0,)), ([[60] * 17, [30] * 5], (1.0, 0.4))]
)
def test_no_batch_hears_a_recording_twice_across_windows_and_epochs(counts, weights):
    plan, told = plan_and_recordings(counts, weights, 32, recordings=300)
    positions = np.arange(3 * plan.epoch_clips // 32 * 32)

    assert repeats(plan, told, positions) == 0
    plain = Plan(plan.counts, plan.weights, 0, 4, 32)
    assert repeats(plain, told, positions) > 100  # what it would be by chance


def test_every_clip_still_comes_once_an_epoch_and_any_start_gives_the_tail():
    plan, _ = plan_and_recordings([[60] * 9 + [3]], (1.0,), 32, recordings=100)
    clips = plan.clips

    whole = plan.locate(np.arange(3 * clips))

    for epoch in range(3):
        part = slice(epoch * clips, (epoch + 1) * clips)
        seen = Counter(zip(whole.shard[part].tolist(), whole.nth[part].tolist(), strict=True))
        assert len(seen) == clips
    for start in (1, 500, clips - 1, clips, 2 * clips + 77):
        fresh = Plan(plan.counts, plan.weights, 0, 4, 32, plan.recordings)
        found = fresh.locate(np.arange(start, start + 5))
        assert found.shard.tolist() == whole.shard[start : start + 5].tolist()
        assert found.nth.tolist() == whole.nth[start : start + 5].tolist()


def test_clips_of_unknown_recordings_come_in_any_order():
    plan = Plan((np.array([4]),), (1.0,), 0, 1, 2, lambda source, shard: np.zeros(4, np.uint64))

    orders = Counter(
        tuple(plan.locate(np.arange(4 * epoch, 4 * epoch + 4)).nth.tolist())
        for epoch in range(2_400)
    )

    assert len(orders) == 24
    # 100 each; four standard deviations are 40.
    assert all(abs(count - 100) < 40 for count in orders.values())


def test_where_a_folder_has_too_few_recordings_all_clips_are_heard_all_the_same():
    plan, told = plan_and_recordings([[10, 10]], (1.0,), 8, recordings=2)

    places = plan.locate(np.arange(20))

    assert len(set(zip(places.shard.tolist(), places.nth.tolist(), strict=True))) == 20
    assert repeats(plan, told, np.arange(16)) > 0
