"""The no-network baseline's six numbers a mel bin, by hand."""

import pytest
import torch

from sslaudio.downstream.statistics import logmel_statistics


def test_two_bins_of_eight_frames_by_hand():
    mel = torch.tensor([[0.0, 2, 4, 6, 8, 10, 12, 14], [1.0, 1, 1, 1, 1, 1, 1, 1]])

    values = logmel_statistics(mel)

    # Means; deviations: mean of squares 70 less 7 squared is 21; slice means, both bins each.
    assert values.tolist() == pytest.approx([7, 1, 21**0.5, 0, 1, 1, 5, 1, 9, 1, 13, 1])


def test_a_slice_that_ends_inside_a_frame_shares_it():
    # Six frames in four slices: 0-1, 1-2, 3-4, 4-5.
    values = logmel_statistics(torch.tensor([[0.0, 2, 4, 6, 8, 10]]))

    assert values[2:].tolist() == [1, 3, 7, 9]


def test_one_frame_is_its_own_mean():
    assert logmel_statistics(torch.tensor([[3.0]])).tolist() == [3, 0, 3, 3, 3, 3]


def test_a_batch_equals_clip_by_clip():
    mels = torch.randn(3, 5, 17, generator=torch.Generator().manual_seed(0))

    batched = logmel_statistics(mels)

    assert torch.allclose(batched, torch.stack([logmel_statistics(mel) for mel in mels]))


def test_no_frames_says_so():
    with pytest.raises(ValueError, match=r"without frames.*window_samples"):
        logmel_statistics(torch.zeros(64, 0))
