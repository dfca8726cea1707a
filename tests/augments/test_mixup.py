"""Mixup by its formula in plain numpy, and the bank: who is in it, and who is never a partner."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sslaudio.augments import mixup, pairs
from sslaudio.training.checkpoint import load_step, save_step

REPO = Path(__file__).parents[2]


def test_mixup_is_the_papers_formula_with_the_neighbour(draws, pictures):
    mel, frames = pictures(4), torch.full((4,), 40)
    share = 0.4 * draws(4).uniform(1, 1).numpy()

    mixed = mixup.build(mixup.Config(0.4))(mel, frames, draws(4))

    partner = mel[[1, 0, 3, 2]].numpy()
    expected = np.log((1 - share) * np.exp(mel.numpy()) + share * np.exp(partner))
    np.testing.assert_allclose(mixed.numpy(), expected, atol=1e-5)


def test_mixup_never_pairs_a_clip_with_itself(draws):
    for clips in range(2, 12):
        assert (pairs.neighbours(draws(clips), "mixup") != torch.arange(clips)).all()


def test_mixed_views_stay_nearer_to_their_own_clip(draws, pictures):
    # BYOL-A's reason for the unit picture: in true energies a quarter turn to the partner.
    mel, frames = pictures(400), torch.full((400,), 40)

    mixed = mixup.build(mixup.Config(0.4))(mel, frames, draws(400))

    partner = mel[pairs.neighbours(draws(400), "mixup")]
    nearer = (mixed - mel).square().mean((1, 2)) < (mixed - partner).square().mean((1, 2))
    assert nearer.float().mean() > 0.98


def test_mixup_leaves_padding_and_what_the_partner_has_no_sound_for(draws, pictures):
    mel, frames = pictures(2), torch.tensor([40, 10])
    mel[1, :, 10:] = 0

    mixed = mixup.build(mixup.Config(0.4))(mel, frames, draws(2))

    assert torch.equal(mixed[0, :, 10:], mel[0, :, 10:])
    assert not mixed[1, :, 10:].any()
    assert not torch.equal(mixed[0, :, :10], mel[0, :, :10])


def test_a_neighbour_of_the_same_recording_leaves_the_clip_as_it_is(draws, pictures):
    mel, frames = pictures(4), torch.full((4,), 40)
    numbers = draws(4, recordings=torch.tensor([5, 5, 6, 7]))

    mixed = mixup.build(mixup.Config())(mel, frames, numbers)

    assert torch.equal(mixed[:2], mel[:2])
    assert (mixed[2:] != mel[2:]).any(dim=(1, 2)).all()


def banked(clips: int, share: float = 0.4) -> mixup.Mixup:
    return mixup.Mixup(mixup.Config(share, "bank", clips))


def constant(values: list[float], frames: int = 40) -> torch.Tensor:
    """A picture of one value for each clip."""
    return torch.tensor(values)[:, None, None].expand(-1, 16, frames).clone()


def test_the_bank_is_empty_at_first_and_draws_the_same_numbers(draws, pictures):
    augment, mel, frames = banked(8), pictures(4), torch.full((4,), 40)
    first, later = draws(4), draws(4)

    unmixed = augment(mel, frames, first)
    augment.after_step()
    mixed = augment(mel, frames, later)

    assert torch.equal(unmixed, mel)
    assert (mixed != mel).any(dim=(1, 2)).all()
    assert torch.equal(first.generator.get_state(), later.generator.get_state())


def test_a_bank_mixes_in_the_papers_formula_a_past_clip_as_it_came(draws, pictures):
    augment, frames = banked(2), torch.full((2,), 40)
    past, mel = pictures(2, seed=1), pictures(2, seed=2)
    augment(past, frames, draws(2))
    augment.after_step()
    numbers = draws(2, seed=3)
    share, chance = 0.4 * numbers.uniform(1, 1).numpy(), numbers.uniform().numpy()

    mixed = augment(mel, frames, draws(2, seed=3))

    partner = past.half().float().numpy()[(2 * chance).astype(int)]
    expected = np.log((1 - share) * np.exp(mel.numpy()) + share * np.exp(partner))
    np.testing.assert_allclose(mixed.numpy(), expected, atol=1e-5)


def test_partners_are_uniform_over_the_entries_of_other_recordings():
    bank = pairs.Bank(6)
    bank.frames = torch.tensor([9, 8, 7, 6, 5, 0])  # the last is not filled yet
    bank.recordings = torch.tensor([1, 2, 1, 3, 4, 0])
    numbers = torch.rand(9_000, generator=torch.Generator().manual_seed(0))

    entries, frames = bank.chosen(numbers, torch.full((9_000,), 1))

    shares = torch.bincount(entries, minlength=6) / 9_000
    assert shares[[0, 2, 5]].tolist() == [0, 0, 0]
    assert (shares[[1, 3, 4]] - 1 / 3).abs().max() < 0.02
    assert torch.equal(frames, bank.frames[entries])


def test_where_only_the_own_recording_is_left_the_clip_stays_as_it_is(draws, pictures):
    augment, mel, frames = banked(8), pictures(3), torch.full((3,), 40)
    augment(pictures(2, seed=1), frames[:2], draws(2, recordings=torch.tensor([7, 7])))
    augment.after_step()

    mixed = augment(mel, frames, draws(3, recordings=torch.tensor([7, 8, 7])))

    assert torch.equal(mixed[[0, 2]], mel[[0, 2]])
    assert not torch.equal(mixed[1], mel[1])


def test_a_clip_never_meets_itself_over_many_epochs(draws):
    # Every clip is a picture of its own value; a bank of three epochs of four clips.
    augment, mel, frames = (
        banked(12, share=0.9),
        constant([0.0, 2.0, 4.0, 6.0]),
        torch.full((4,), 40),
    )
    recordings = torch.tensor([1, 2, 3, 4])
    for seed in range(30):
        mixed = augment(mel, frames, draws(4, seed=seed, recordings=recordings))
        augment.after_step()

        # With itself a constant would come back as it is.
        assert seed == 0 or ((mixed - mel).abs() > 1e-5).all()


def test_the_oldest_leave_first(draws):
    augment, frames = banked(5), torch.full((2,), 40)
    for value in (1.0, 3.0, 5.0):
        augment(constant([value, value + 1]), frames, draws(2))
        augment.after_step()

    # By hand: 1 to 5 fill the five places, 6 takes the first.
    assert augment.bank.pictures[:, 0, 0].tolist() == [6, 2, 3, 4, 5]
    assert augment.bank.place == 1


def test_of_a_batch_larger_than_the_bank_the_last_clips_stay(draws):
    augment = banked(3)
    augment(constant([1.0, 2, 3, 4, 5]), torch.full((5,), 40), draws(5))
    augment.after_step()

    assert sorted(augment.bank.pictures[:, 0, 0].tolist()) == [3, 4, 5]
    assert augment.bank.place == 2  # the oldest, 3, goes next
    assert augment.bank.pictures[2, 0, 0] == 3


def test_a_bank_takes_a_clip_once_however_often_the_step_shows_it(draws, pictures):
    augment, mel, frames = banked(8), pictures(2), torch.full((2,), 40)
    numbers = draws(2)

    augment(mel, frames, numbers)
    augment(mel, frames, numbers)  # the other view
    augment(mel, frames, draws(2))  # worked through again
    before = augment.bank.frames.sum()
    augment.after_step()
    augment.after_step()

    assert before == 0
    assert augment.bank.frames.tolist() == [40, 40, 0, 0, 0, 0, 0, 0]
    assert torch.equal(augment.bank.pictures[:2], mel.half())


def test_each_view_has_a_partner_of_its_own(draws, pictures):
    augment, frames = banked(64, share=0.4), torch.full((64,), 40)
    augment(constant([0.1 * entry for entry in range(64)]), frames, draws(64))
    augment.after_step()
    numbers = draws(64, seed=1)
    mel = constant([0.0] * 64)

    one, two = augment(mel, frames, numbers), augment(mel, frames, numbers)

    assert (one != two).any(dim=(1, 2)).float().mean() > 0.9


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_bank_does_not_depend_on_how_the_batch_is_cut(draws, pictures, size):
    mel = pictures(8)
    frames, recordings = torch.arange(33, 41), torch.arange(1, 9)
    whole, cut = banked(12), banked(12)
    for step in range(3):
        rows = (mel + step).masked_fill(torch.arange(40) >= frames[:, None, None], 0.0)
        expected = whole(rows, frames, draws(8, seed=step, recordings=recordings))
        whole.after_step()
        parts = []
        for start in reversed(range(0, 8, size)):  # in whatever order they come
            part = slice(start, start + size)
            numbers = draws(size, start, 8, step, recordings[part])
            width = int(frames[part].max())  # each part padded to its own longest clip
            mixed = cut(rows[part, :, :width], frames[part], numbers)
            parts.insert(0, torch.nn.functional.pad(mixed, (0, 40 - width)))
        cut.after_step()

        assert torch.allclose(torch.cat(parts), expected, atol=1e-6)
        for name, buffer in whole.state_dict().items():
            assert torch.equal(buffer, cut.state_dict()[name]), name


def test_banks_of_wider_clips_grow_and_narrower_batches_see_what_fits(draws, pictures):
    augment = banked(4)
    narrow, wide = pictures(2, 20), pictures(2, 30, seed=1)
    augment(narrow, torch.tensor([20, 15]), draws(2))
    augment.after_step()
    augment(wide, torch.tensor([30, 25]), draws(2))
    augment.after_step()

    assert augment.bank.pictures.shape == (4, 16, 30)
    assert augment.bank.frames.tolist() == [20, 15, 30, 25]
    assert torch.equal(augment.bank.pictures[:2, :, :20], narrow.half())
    assert not augment.bank.pictures[:2, :, 20:].any()
    for width in (10, 50):
        mel = pictures(2, width, seed=2)
        mixed = augment(mel, torch.full((2,), width), draws(2, seed=3))
        # Behind the partner's end the clip is as it was.
        assert torch.equal(mixed[:, :, 30:], mel[:, :, 30:])
        assert (mixed[:, :, :10] != mel[:, :, :10]).any(dim=(1, 2)).all()


def test_a_checkpoint_holds_the_bank_and_a_resumed_run_goes_on_alike(draws, pictures, tmp_path):
    frames = torch.full((4,), 40)
    module = torch.nn.Linear(1, 1)
    optimiser = torch.optim.AdamW(module.parameters())
    one, other = banked(6), banked(6)
    one(pictures(4), frames, draws(4, recordings=torch.arange(1, 5)))
    one.after_step()
    memories = torch.nn.ModuleDict({"0": one})

    place = save_step(tmp_path, 1, module, optimiser, {"position": 4}, 2, memories)
    load_step(place, module, optimiser, torch.nn.ModuleDict({"0": other}))

    for augment in (one, other):
        augment(pictures(4, seed=1), frames, draws(4, seed=1, recordings=torch.arange(5, 9)))
        augment.after_step()
    for name, buffer in one.state_dict().items():
        assert torch.equal(buffer, other.state_dict()[name]), name


RANK = """
import sys
sys.path.insert(0, {repo!r})
import torch
import torch.distributed as dist
from sslaudio.augments import mixup
from sslaudio.augments.base import Draws

def main():
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    augment = mixup.Mixup(mixup.Config(partner="bank", bank_clips=12))
    clips = 8 // ranks // 2
    for step in range(3):
        mel = torch.randn(8, 4, 20, generator=torch.Generator().manual_seed(step))
        mixed = torch.zeros(8, 4, 20)
        for part in range(2):
            start = (part * ranks + rank) * clips
            rows = slice(start, start + clips)
            width = 20 - 2 * rank  # each pads to its own longest clip
            generator = torch.Generator().manual_seed(step)
            numbers = Draws(generator, start, clips, 8, recordings=torch.arange(1, 9)[rows])
            frames = torch.full((clips,), 18)
            picture = mel[rows, :, :width].clone()
            picture[:, :, 18:] = 0
            mixed[rows, :, :width] = augment(picture, frames, numbers)
        augment.after_step()
    dist.all_reduce(mixed)
    torch.save({{"mixed": mixed, **augment.state_dict()}}, {out!r} + f"-{{ranks}}-{{rank}}.pt")
    dist.destroy_process_group()

if __name__ == "__main__":
    main()
"""


def test_two_gloo_processes_have_the_bank_that_one_has(tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(RANK.format(repo=str(REPO), out=str(tmp_path / "bank")))
    for ranks in (1, 2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
        started = [
            subprocess.Popen(
                [sys.executable, script], env={**os.environ, **world, "RANK": str(rank)}
            )
            for rank in range(ranks)
        ]
        assert [process.wait(timeout=120) for process in started] == [0] * ranks

    one, first, second = (
        torch.load(tmp_path / f"bank-{ranks}-{rank}.pt") for ranks, rank in ((1, 0), (2, 0), (2, 1))
    )

    for name, value in one.items():
        assert torch.equal(value, first[name]), name
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"share": 1.0}, r"augments\.mixup\.share is 1;"),
        ({"bank_clips": 0}, r"augments\.mixup\.bank_clips is 0; .*at least 1"),
    ],
)
def test_a_wrong_setting_is_told(wrong, told):
    with pytest.raises(ValueError, match=told):
        mixup.Config(**wrong)
