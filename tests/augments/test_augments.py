"""Gain, masks and stretch by their effect, and draws."""

import torch

from sslaudio.augments import gain, spec_mask, stretch


def test_draws_are_the_same_however_a_batch_is_cut(draws):
    whole = draws(8).uniform(3)

    parts = [draws(2, start, 8).uniform(3) for start in (0, 2, 4, 6)]

    assert torch.equal(torch.cat(parts), whole)


def test_spec_mask_hides_one_stripe_each_way_no_wider_than_asked(draws):
    mel, frames = torch.ones(500, 16, 40), torch.full((500,), 40)

    masked = spec_mask.build(spec_mask.Config(0.25, 0.2))(mel, frames, draws(500))

    rows = (masked == 0).all(dim=2).sum(dim=1)
    columns = (masked == 0).all(dim=1).sum(dim=1)
    assert rows.max() == 4 and columns.max() == 8
    assert rows.min() == 0 and columns.min() == 0
    # Width uniform on 0..4 and 0..8: means 2 and 4.
    assert abs(rows.float().mean() - 2) < 0.25
    assert abs(columns.float().mean() - 4) < 0.4


def test_spec_mask_stripes_reach_every_place_of_the_clips_own_length(draws):
    mel, frames = torch.ones(3_000, 16, 40), torch.full((3_000,), 20)

    masked = spec_mask.build(spec_mask.Config(0.0, 0.3))(mel, frames, draws(3_000))

    hidden = (masked[:, 0] == 0).float().mean(dim=0)
    assert (hidden[:20] > 0).all()
    assert not hidden[20:].any()


def test_gain_moves_the_level_and_nothing_else(draws, pictures):
    mel, frames = pictures(200), torch.full((200,), 30)

    louder = gain.build(gain.Config(0.5))(mel, frames, draws(200))

    shift = (louder - mel)[:, :, :30]
    assert (shift - shift[:, :1, :1]).abs().max() < 1e-5
    assert shift.min() < -0.4 and shift.max() > 0.4
    assert not louder[:, :, 30:].any()


def test_stretch_moves_a_tone_by_its_scale_and_an_event_within_its_zoom(draws):
    # A ridge at bin 50 and a click at frame 60 of 100.
    mel, frames = torch.zeros(300, 128, 100), torch.full((300,), 100)
    mel[:, 50] = 1
    mel[:, 100:, 60] = 1
    numbers = draws(300).uniform(3)
    scale = torch.exp((2 * numbers[:, 0] - 1) * 0.2)
    kept = 1 - 0.3 * numbers[:, 1]
    start = numbers[:, 2] * (1 - kept) * 99

    out = stretch.build(stretch.Config(0.2, 0.3))(mel, frames, draws(300))

    # Where the ridge lies now, at a frame without the click; half a bin of rounding.
    assert (out[:, :90, 0].argmax(dim=1) - 50 / scale).abs().max() <= 1
    click = out[:, 127].argmax(dim=1)
    expected = (60 - start) / kept
    inside = (expected > 1) & (expected < 98)
    assert inside.float().mean() > 0.9
    assert (click - expected)[inside].abs().max() <= 1
    assert (expected - 60).abs().max() > 15


def test_stretch_keeps_to_each_clips_own_length(draws, pictures):
    mel, frames = pictures(4), torch.tensor([40, 20, 3, 1])
    mel = mel.masked_fill(torch.arange(40) >= frames[:, None, None], 0.0)
    loud = mel + 100 * (torch.arange(40) < frames[:, None, None])

    out = stretch.build(stretch.Config())(loud, frames, draws(4))

    for row, count in enumerate(frames.tolist()):
        assert (out[row, :, :count] > 50).all()
        assert not out[row, :, count:].any()
