from sslaudio.data.buckets import by_length, rounded


def test_lengths_are_rounded_to_four_an_octave():
    # By hand: three leading bits are 1.00, 1.25, 1.5 and 1.75 times a power of two.
    assert [rounded(n) for n in (1, 4, 7, 8, 9, 10, 11, 13, 15, 16, 17, 100, 16_000)] == [
        1, 4, 7, 8, 10, 10, 12, 14, 16, 16, 20, 112, 16_384,
    ]  # fmt: skip
    shapes = {rounded(samples) for samples in range(1_600, 960_000)}
    assert len(shapes) <= 40
    assert all(samples <= rounded(samples) <= 1.25 * samples for samples in range(4, 5_000))


def test_clips_go_together_by_length_within_the_room_there_is():
    batches = list(by_length([5, 9, 1, 9, 4], 18))

    assert batches == [[1, 3], [0, 4, 2]]  # 9 + 9; then three times 5
    assert list(by_length([30], 18)) == [[0]]
