"""Mixed clips and soft targets: by hand, and as torch has the same losses."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from sslaudio.downstream.mixing import Mix, laid, loss


def mix(partner: list[int], kept: list[float]) -> Mix:
    """A mix of known partners and shares."""
    made = Mix(len(partner), 1.0, 10.0, np.random.default_rng(0))
    made.partner, made.kept = torch.tensor(partner), torch.tensor(kept)
    return made


def test_targets_stand_in_columns():
    assert laid(torch.tensor([2, 0]), "single", 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    several = torch.tensor([[True, False], [True, True]])
    assert laid(several, "multi", 2).tolist() == [[1, 0], [1, 1]]
    assert laid(torch.tensor([0.5, -2.0]), "number", 0).tolist() == [[0.5], [-2.0]]


def test_targets_are_mixed_by_the_clips_shares():
    targets = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])

    mixed = mix([1, 0, 2], [0.75, 1.0, 0.5]).targets(targets)

    assert mixed.tolist() == [[0.75, 0.25, 0.25], [0, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("which", ["auto", "ce"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_mixed_targets_is_torchs(which, smoothing):
    torch.manual_seed(0)
    scores, known = torch.randn(4, 5), torch.tensor([3, 0, 0, 4])
    targets = mix([1, 0, 3, 2], [0.7, 1.0, 0.4, 0.5]).targets(laid(known, "single", 5))

    own = loss(scores, targets, "single", which, smoothing)

    peer = functional.cross_entropy(scores, targets, reduction="none", label_smoothing=smoothing)
    assert torch.allclose(own, peer, atol=1e-6)
    # Mixed by hand: the losses of both labels by their shares. AST's code has class 0 for all.
    each = functional.cross_entropy(scores, known, reduction="none", label_smoothing=smoothing)
    others = functional.cross_entropy(
        scores, known[[1, 0, 3, 2]], reduction="none", label_smoothing=smoothing
    )
    kept = torch.tensor([0.7, 1.0, 0.4, 0.5])
    assert torch.allclose(own, kept * each + (1 - kept) * others, atol=1e-6)


def test_cross_entropy_by_hand():
    scores, targets = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[0.25, 0.75]])

    told = loss(scores, targets, "single", "ce", 0.0)

    # The shares are 1/4 and 3/4: the loss is the targets' own entropy.
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert told.tolist() == pytest.approx([entropy])
    # Smoothed by 0.2: the targets are 0.3 and 0.7.
    smoothed = loss(scores, targets, "single", "ce", 0.2)
    expected = -(0.3 * math.log(0.25) + 0.7 * math.log(0.75))
    assert smoothed.tolist() == pytest.approx([expected])


@pytest.mark.parametrize(
    ("kind", "which"), [("multi", "auto"), ("multi", "bce"), ("single", "bce")]
)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_cross_entropy_of_mixed_targets_is_torchs(kind, which, smoothing):
    torch.manual_seed(0)
    scores, targets = torch.randn(3, 4), mix([2, 0, 1], [0.6, 0.5, 1.0]).targets(torch.eye(4)[:3])

    own = loss(scores, targets, kind, which, smoothing)

    soft = targets * (1 - smoothing) + smoothing / 2
    peer = functional.binary_cross_entropy_with_logits(scores, soft, reduction="none").mean(dim=1)
    assert torch.allclose(own, peer, atol=1e-6)


def test_binary_cross_entropy_by_hand():
    scores, targets = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[0.3, 1.0]])

    told = loss(scores, targets, "multi", "auto", 0.0)

    # At a half any target costs log 2; at three quarters a yes costs -log 3/4.
    assert told.tolist() == pytest.approx([(math.log(2) - math.log(0.75)) / 2])


def test_several_classes_may_be_told_by_cross_entropy_too():
    scores, targets = torch.zeros(1, 4), torch.tensor([[1.0, 1.0, 0.0, 0.0]])

    assert loss(scores, targets, "multi", "ce", 0.0).tolist() == pytest.approx([2 * math.log(4)])


def test_a_number_is_told_by_its_squared_error_whatever_is_smoothed():
    scores, targets = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [2.5]])

    assert loss(scores, targets, "number", "auto", 0.1).tolist() == [4.0, 0.25]


def test_waves_add_up_and_a_partner_is_cut_or_ends():
    long, short = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([10.0, 20.0])

    both = mix([1, 0], [0.75, 0.5]).waveforms([long, short])

    assert both[0].tolist() == [0.75 + 2.5, 1.5 + 5.0, 2.25, 3.0]
    assert both[1].tolist() == [5.5, 11.0]
    assert long.tolist() == [1, 2, 3, 4]  # what is kept in memory stays as it is


def test_what_is_not_mixed_is_the_same_sound():
    wave = torch.randn(5)

    (kept, _) = mix([1, 0], [1.0, 0.5]).waveforms([wave, torch.randn(5)])

    assert kept is wave


@pytest.mark.parametrize("std", [1.0, 4.0])
def test_log_mels_are_mixed_as_energies_where_both_sound(std):
    pictures = torch.tensor([[[0.5, -0.25, 1.0]], [[-1.0, 0.75, 0.0]]])
    frames = torch.tensor([3, 2])

    mixed = mix([1, 0], [0.75, 0.5]).pictures(pictures, frames, std)

    def energies(own: float, other: float, kept: float) -> float:
        return math.log(kept * math.exp(std * own) + (1 - kept) * math.exp(std * other)) / std

    expected = [energies(0.5, -1.0, 0.75), energies(-0.25, 0.75, 0.75), 1.0]  # the partner ended
    assert mixed[0, 0].tolist() == pytest.approx(expected, abs=1e-6)
    expected = [energies(-1.0, 0.5, 0.5), energies(0.75, -0.25, 0.5), 0.0]  # padding stays 0
    assert mixed[1, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_so_many_are_mixed_and_each_keeps_what_beta_draws():
    drawn = [Mix(100, 0.3, 10.0, np.random.default_rng(seed)) for seed in range(50)]

    assert all(sorted(one.partner.tolist()) == list(range(100)) for one in drawn)
    kept = torch.cat([one.kept for one in drawn])
    assert (kept < 1).float().mean().item() == pytest.approx(0.3, abs=0.03)
    mixed = kept[kept < 1]
    # Beta(10, 10): mean 1/2, variance 100 / (400 * 21).
    assert mixed.mean().item() == pytest.approx(0.5, abs=0.015)
    assert mixed.var().item() == pytest.approx(1 / 84, rel=0.15)
    assert (Mix(50, 0.0, 10.0, np.random.default_rng(0)).kept == 1).all()
