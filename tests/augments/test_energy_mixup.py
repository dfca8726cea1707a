"""Energy mixup against energies added in the open."""

import numpy as np
import pytest
import torch

from sslaudio.augments import energy_mixup, mixup, pairs


def test_energies_add_whatever_the_mean_was(draws, pictures):
    mel, frames = pictures(4), torch.full((4,), 40)
    mean, std = -4.27, 3.0
    share = 0.4 * draws(4).uniform(1, 1).double().numpy()

    mixed = energy_mixup.build(energy_mixup.Config(0.4, std))(mel, frames, draws(4))

    energy = np.exp(mel.double().numpy() * std + mean)
    added = (1 - share) * energy + share * energy[[1, 0, 3, 2]]
    np.testing.assert_allclose(mixed.numpy(), (np.log(added) - mean) / std, atol=1e-5)


def test_views_come_out_nearer_to_the_partner_far_more_often_than_on_unit_pictures(draws, pictures):
    # Half of the variance is that between clips, as where some are loud and some quiet.
    levels = torch.randn(1000, 1, 1, generator=torch.Generator().manual_seed(2))
    mel, frames = (pictures(1000) + levels) / 2**0.5, torch.full((1000,), 40)
    partner = mel[pairs.neighbours(draws(1000), "energy_mixup")]
    shares = []
    for augment in (energy_mixup.build(energy_mixup.Config()), mixup.build(mixup.Config())):
        mixed = augment(mel, frames, draws(1000))
        nearer = (mixed - partner).square().mean((1, 2)) < (mixed - mel).square().mean((1, 2))
        shares.append(nearer.float().mean())

    assert shares[0] > 0.25
    assert shares[0] > 3 * shares[1]


def test_a_neighbour_of_the_same_recording_leaves_the_clip_as_it_is(draws, pictures):
    mel, frames = pictures(2), torch.full((2,), 40)

    mixed = energy_mixup.build(energy_mixup.Config())(
        mel, frames, draws(2, recordings=torch.tensor([5, 5]))
    )

    assert torch.equal(mixed, mel)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"share": 0.0}, r"augments\.energy_mixup\.share is 0;"),
        ({"std": -1.0}, r"augments\.energy_mixup\.std is -1;.*4\.57"),
    ],
)
def test_a_wrong_setting_is_told(wrong, told):
    with pytest.raises(ValueError, match=told):
        energy_mixup.Config(**wrong)
