"""Fader, noise and low-pass: what they add to a picture or take off it."""

import numpy as np
import pytest
import torch

from sslaudio.augments import fader, low_pass, noise


def test_a_fader_is_a_straight_line_from_end_to_end_of_the_clip(draws, pictures):
    mel, frames = pictures(200), torch.full((200,), 30)
    ends = 1.5 * (2 * draws(200).uniform(2, 1) - 1)

    faded = fader.build(fader.Config(1.5))(mel, frames, draws(200))

    line = (faded - mel)[:, :, :30]
    expected = np.stack([np.linspace(*pair, 30) for pair in ends[:, :, 0].numpy()])
    np.testing.assert_allclose(line[:, 3].numpy(), expected, atol=1e-5)
    assert (line - line[:, :1]).abs().max() < 1e-5  # the same in all rows
    assert ends.min() < -1.4 and ends.max() > 1.4
    assert not faded[:, :, 30:].any()


def added_noise(draws, clips: int, frames: int, bins: int = 16, deviations: float = 1.0):
    """The noise of each clip, and its deviation."""
    mel, lengths = torch.zeros(clips, bins, frames), torch.full((clips,), frames)
    added = noise.build(noise.Config(deviations))(mel, lengths, draws(clips))
    return added, deviations * draws(clips).uniform(1, 1)


def test_noise_is_gaussian_and_of_each_clips_own_strength(draws):
    added, strength = added_noise(draws, 50, 1000, deviations=0.3)

    unit = (added / strength).double()
    # 16,000 numbers a clip: 4 standard errors.
    assert unit.mean(dim=(1, 2)).abs().max() < 4 / 16_000**0.5
    assert (unit.std(dim=(1, 2)) - 1).abs().max() < 4 / 32_000**0.5
    assert unit.pow(4).mean().item() == pytest.approx(3, abs=0.05)
    assert strength.min() < 0.03 and strength.max() > 0.27


def test_noise_of_clips_rows_and_frames_does_not_hang_together(draws):
    added, strength = added_noise(draws, 40, 500)
    unit = added / strength

    rows = torch.corrcoef(unit.flatten(0, 1))  # 640 rows of all clips, each with each
    rows.fill_diagonal_(0)
    clips = torch.corrcoef(unit.flatten(1)).fill_diagonal_(0)
    frames = torch.corrcoef(unit.permute(2, 0, 1).flatten(1)).fill_diagonal_(0)

    for correlation, numbers in ((rows, 500), (clips, 8_000), (frames, 640)):
        assert correlation.square().mean().sqrt() == pytest.approx(numbers**-0.5, rel=0.2)
        assert correlation.abs().max() < 6 * numbers**-0.5


def test_noise_differs_from_step_to_step(draws):
    mel, frames = torch.zeros(4, 16, 500), torch.full((4,), 500)
    augment = noise.build(noise.Config(1.0))

    one, two = (augment(mel, frames, draws(4, seed=seed)) for seed in (0, 1))

    assert torch.corrcoef(torch.stack([one.flatten(), two.flatten()]))[0, 1].abs() < 0.05


def test_low_pass_slopes_down_from_the_cutoff_to_the_floor_and_raises_nothing(draws, pictures):
    mel, frames = pictures(300), torch.full((300,), 30)
    mel[:, 15] = -3.0  # below the floor already
    cutoff = 16 * (0.25 + 0.75 * draws(300).uniform(2, 1, 1)[:, 0])
    augment = low_pass.build(low_pass.Config(lowest=0.25, slope=0.5, floor=-2.0))

    lowered = augment(mel, frames, draws(300))

    row = np.arange(16)[:, None]
    fall = 0.5 * np.maximum(row - cutoff.numpy(), 0)
    expected = np.minimum(mel.numpy(), np.maximum(mel.numpy() - fall, -2.0))
    np.testing.assert_allclose(lowered[:, :, :30].numpy(), expected[:, :, :30], atol=1e-5)
    assert (lowered <= mel)[:, :, :30].all()
    assert torch.equal(lowered[:, :4, :30], mel[:, :4, :30])
    assert (lowered[:, 15, :30] == -3).all()
    assert lowered[:, 14, :30].mean() < -0.7
    assert not lowered[:, :, 30:].any()


def test_low_pass_leaves_the_share_of_clips_that_it_is_told_to(draws, pictures):
    mel, frames = pictures(2_000, 5), torch.full((2_000,), 5)

    lowered = low_pass.build(low_pass.Config(lowest=0.0, probability=0.3))(
        mel, frames, draws(2_000)
    )

    assert (lowered != mel).any(dim=(1, 2)).float().mean() == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize(
    ("config", "wrong", "told"),
    [
        (fader.Config, {"gain": 0.0}, r"augments\.fader\.gain is 0;"),
        (noise.Config, {"deviations": -1.0}, r"augments\.noise\.deviations is -1;"),
        (low_pass.Config, {"lowest": 1.0}, r"augments\.low_pass\.lowest is 1;"),
        (low_pass.Config, {"slope": 0.0}, r"augments\.low_pass\.slope is 0;"),
        (low_pass.Config, {"probability": 1.5}, r"augments\.low_pass\.probability is 1\.5;"),
    ],
)
def test_a_wrong_setting_is_told(config, wrong, told):
    with pytest.raises(ValueError, match=told):
        config(**wrong)
