"""Time shift against numpy's roll."""

import numpy as np
import pytest
import torch

from sslaudio.augments import time_shift


def test_clips_are_rolled_along_their_own_length(draws, pictures):
    frames = torch.tensor([40, 20, 33, 1] * 50)
    mel = pictures(200).masked_fill(torch.arange(40) >= frames[:, None, None], 0.0)
    shift = np.round((2 * draws(200).uniform(1)[:, 0] - 1).numpy() * 0.5 * frames.numpy())

    rolled = time_shift.build(time_shift.Config(0.5))(mel, frames, draws(200))

    for clip, own in enumerate(frames.tolist()):
        expected = np.roll(mel[clip, :, :own].numpy(), int(shift[clip]), axis=1)
        np.testing.assert_array_equal(rolled[clip, :, :own].numpy(), expected)
        assert not rolled[clip, :, own:].any()
    assert shift.min() <= -18 and shift.max() >= 18


def test_a_click_really_moves_and_every_column_is_kept(draws, pictures):
    mel, frames = pictures(500), torch.full((500,), 40)
    mel[:, :, 20] = 50.0

    rolled = time_shift.build(time_shift.Config(0.1))(mel, frames, draws(500))

    place = rolled[:, 0].argmax(dim=1)
    assert set(place.tolist()) == set(range(16, 25))  # a tenth of 40 either way
    assert (place != 20).float().mean() > 0.8
    for before, after in zip(mel, rolled, strict=True):
        assert sorted(before.T.tolist()) == sorted(after.T.tolist())


@pytest.mark.parametrize("ratio", [0.0, 0.6])
def test_a_wrong_setting_is_told(ratio):
    with pytest.raises(ValueError, match=rf"augments\.time_shift\.frames_ratio is {ratio:g};"):
        time_shift.Config(ratio)
