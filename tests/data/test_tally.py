import numpy as np
import pytest

from sslaudio.data.tally import Corrupt, Tally

BAD = Corrupt("shards/a-000000.tar", "dog", "decode", "flac decoder lost sync")


def add(tally: Tally, *corrupt, epoch: int = 0, source: int = 0) -> None:
    count = len(corrupt)
    tally.add(np.full(count, epoch), np.full(count, source), corrupt)


def test_clips_are_counted_by_epoch_folder_and_kind():
    tally = Tally(2, share=1.0, in_a_row=10)

    add(tally, None, None, BAD)
    add(tally, None, source=1)
    add(tally, None, BAD, epoch=1, source=1)

    # Heard, then corrupt; a column a folder.
    assert tally.epoch(0).tolist() == [[2, 1], [1, 0]]
    assert tally.epoch(1).tolist() == [[0, 1], [0, 1]]
    assert tally.counts() == [0, 0, 0, 2, 0, 0]


def test_the_share_counts_from_a_thousand_clips_on():
    tally = Tally(1, share=0.01, in_a_row=10)
    add(tally, *[BAD, None] * 5, *[None] * 989)  # 5 of 999 are half a percent, yet 1 of 2 was half

    add(tally, *[None] * 50, *[BAD, None] * 5)  # 10 of 1059
    with pytest.raises(ValueError, match=r"11 of 10\d\d clips.*11 decode.*corrupt_share 0\.01"):
        add(tally, BAD)


def test_so_many_in_a_row_are_too_many_and_one_good_clip_ends_the_row():
    tally = Tally(1, share=1.0, in_a_row=3)
    add(tally, BAD, BAD, None, BAD, BAD)

    with pytest.raises(ValueError, match=r"3 clips in a row are corrupt.*dog of .*lost sync"):
        add(tally, BAD)


def test_a_resumed_tally_tells_of_the_whole_epoch():
    before, after = (Tally(1, share=1.0, in_a_row=9) for _ in range(2))
    add(before, None, BAD, epoch=3)

    after.restore(before.state(3))
    add(after, None, epoch=3)

    assert after.epoch(3).tolist() == [[2], [1]]
    assert after.counts() == before.counts()
