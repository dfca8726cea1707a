"""Parts through shared memory: as they were, or an error; never another part's sound."""

import numpy as np
import pytest
import torch

from sslaudio.data.slots import Slots


def part(number: int, values: int = 100) -> dict:
    return {
        "sound": torch.full((values,), float(number)),
        "lengths": np.arange(3) + number,
        "keys": ["a", None, f"{number}"],
    }


def same(one: dict, other: dict) -> bool:
    return (
        torch.equal(one["sound"], other["sound"])
        and np.array_equal(one["lengths"], other["lengths"])
        and one["keys"] == other["keys"]
    )


def test_parts_come_out_as_they_went_in_also_when_they_wait():
    slots = Slots(workers=2, ahead=3, part_bytes=1000)

    for first in range(0, 30, 3):
        turns = range(first, first + 3)
        packed = [[slots.pack(w, t, part(100 * w + t)) for t in turns] for w in (0, 1)]
        for worker in (1, 0):
            for turn, one in zip(turns, packed[worker], strict=True):
                assert len(one.pickled) < 500
                assert same(slots.unpack(one), part(100 * worker + turn))


def test_what_was_unpacked_stays_when_its_slot_is_used_again_and_can_be_written_to():
    slots = Slots(workers=1, ahead=0, part_bytes=1000)

    first = slots.unpack(slots.pack(0, 0, part(0)))
    for turn in range(1, 5):
        slots.unpack(slots.pack(0, turn, part(turn)))

    assert same(first, part(0))
    first["sound"] += 1
    first["lengths"] += 1


@pytest.mark.parametrize("part_bytes", [0, 23, 24, 399, 400, 424])
def test_what_finds_no_room_goes_with_the_pickle(part_bytes):
    slots = Slots(workers=1, ahead=1, part_bytes=part_bytes)

    assert same(slots.unpack(slots.pack(0, 7, part(7))), part(7))


def test_a_slot_that_was_written_over_is_never_taken_for_the_part():
    slots = Slots(workers=1, ahead=1, part_bytes=1000)

    packed = [slots.pack(0, turn, part(turn)) for turn in range(4)]

    with pytest.raises(RuntimeError, match="worker 0 wrote over part 0 before it was read"):
        slots.unpack(packed[0])
    assert same(slots.unpack(packed[3]), part(3))


def test_more_memory_than_there_is():
    with pytest.raises(ValueError, match=r"2 workers need .* GiB of shared memory .* data.batch"):
        Slots(workers=2, ahead=4, part_bytes=2**62)
