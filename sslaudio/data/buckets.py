"""Clips of many lengths in batches of few shapes, each within a budget.

In:  lengths, in samples or frames.
Out: batches of clips of like length, padding counted, and the length that each is padded to.
"""

from collections.abc import Iterator, Sequence

_LEADING_BITS = 3


def rounded(length: int) -> int:
    """The next length of three leading bits: at most a quarter more, a tenth on average.

    Four lengths an octave, so that clips of a tenth of a second to a minute have 40 of them, and
    whoever compiles for a shape compiles seldom.
    """
    step = 1 << max(0, length.bit_length() - _LEADING_BITS)
    return -(-length // step) * step


def by_length(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Places of what is of like length, longest first, at most ``most`` in all with padding.

    One that is longer than ``most`` goes alone.
    """
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > most:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
