"""Relative positions: which entry of a table every query and key gets."""

import pytest
import torch

from sslaudio.backbones.axis import Axis
from sslaudio.backbones.relative import RelativeTable


def entries(table: RelativeTable, query: Axis, key: Axis, size: int) -> torch.Tensor:
    """Entries by their number, for axes pooled from one of ``size`` tokens."""
    with torch.no_grad():
        table.table.copy_(torch.arange(float(len(table.table)))[:, None])
        return table(query, key, size, torch.device("cpu"))[..., 0]


def whole(table: RelativeTable, size: int) -> list[list[float]]:
    """Entries of a single clip of ``size`` tokens."""
    axis = Axis(size)
    queries, keys = axis.pooled(table.query_stride), axis.pooled(table.key_stride)
    return entries(table, queries, keys, size)[0].tolist()


def test_entries_by_hand():
    # Keys of two queries each: distance q - 2k, from -2 to 3, at 2 + distance.
    assert whole(RelativeTable(4, 1, 2, 1), 4) == [[2, 0], [3, 1], [4, 2], [5, 3]]
    # Queries of two keys each: distance 2q - k, from -3 to 2, at 3 + distance.
    assert whole(RelativeTable(4, 2, 1, 1), 4) == [[3, 2, 1, 0], [5, 4, 3, 2]]


def test_a_shorter_clip_has_the_same_distances_and_a_longer_one_has_them_squeezed():
    assert whole(RelativeTable(8, 1, 1, 1), 3) == [[7, 6, 5], [8, 7, 6], [9, 8, 7]]
    # A table for two tokens knows distances -1, 0, 1 at 0, 1, 2; three tokens reach twice as far.
    assert whole(RelativeTable(2, 1, 1, 1), 3) == [[1, 0.5, 0], [1.5, 1, 0.5], [2, 1.5, 1]]


@pytest.mark.parametrize(("there", "key_stride"), [(4, 4), (4, 1), (9, 2)])
def test_clips_of_one_token_to_many_get_in_a_batch_what_they_get_alone(there, key_stride):
    table = RelativeTable(there, 1, key_stride, 1)
    counts = torch.arange(1, 20)
    axis = Axis(19, counts)

    together = entries(table, axis, axis.pooled(key_stride), 19)

    for count, ours in zip(counts.tolist(), together, strict=True):
        alone = torch.tensor(whole(table, count))
        assert torch.allclose(ours[:count, : alone.shape[1]], alone, atol=1e-5)


def test_a_kept_unit_that_the_picture_fills_in_part_stays_inside_the_table():
    table = RelativeTable(25, 1, 4, 1)
    units, seen = torch.tensor([[0, 3]]), torch.ones(1, 2, dtype=torch.bool)
    axis = Axis(25, None, 8, units, seen)  # of unit 3, tokens 24 to 31, only 24 is there

    kept = entries(table, axis, axis.pooled(4), 25)[0]

    plain = torch.tensor(whole(table, 25))
    there = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 24])
    assert torch.equal(kept[:9, [0, 1, 2]], plain[there][:, [0, 1, 6]])
