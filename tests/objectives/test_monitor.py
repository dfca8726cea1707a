"""Signs of a collapse, each with an answer known by hand."""

import math

import pytest
import torch

from sslaudio.objectives.monitor import (
    alignment,
    centred,
    deviation,
    effective_rank,
    uniformity,
)


def noise(clips: int, dim: int) -> torch.Tensor:
    return torch.randn(clips, dim, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_orthonormal_rows_have_their_number_as_rank(rank: int):
    rows = torch.linalg.qr(noise(8, 8)).Q[:rank]

    assert effective_rank(rows).item() == pytest.approx(rank, rel=1e-5)


def test_equal_rows_have_rank_1_and_rows_of_zeros_too():
    assert effective_rank(torch.full((6, 4), 0.3)).item() == pytest.approx(1, abs=1e-4)
    assert effective_rank(torch.zeros(6, 4)).item() == 1


def test_rank_is_exp_of_the_entropy_of_the_singular_values():
    # By hand: values 3 and 1, shares 3/4 and 1/4.
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))

    assert effective_rank(torch.diag(torch.tensor([3.0, -1.0]))).item() == pytest.approx(expected)


def test_a_shared_mean_is_a_direction_until_it_is_taken_off():
    along = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).repeat(4, 1)

    assert effective_rank(along).item() == pytest.approx(2)
    assert effective_rank(centred(along)).item() == pytest.approx(1, abs=1e-3)
    assert centred(noise(8, 4)).mean(dim=0).abs().max() < 1e-6


def test_alignment_is_0_for_equal_views_2_for_orthogonal_and_4_for_opposite_ones():
    one, other = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.5]])

    assert alignment(one, 7 * one).item() == 0
    assert alignment(one, other).item() == pytest.approx(2)
    assert alignment(one, -one).item() == pytest.approx(4)


def test_uniformity_is_0_at_a_point_and_minus_8_for_two_antipodes():
    assert uniformity(torch.ones(5, 3)).item() == pytest.approx(0, abs=1e-6)
    # By hand: squared distance 4, times -2.
    assert uniformity(torch.tensor([[3.0, 0.0], [-1.0, 0.0]])).item() == pytest.approx(-8)
    assert uniformity(torch.ones(1, 3)).item() == 0


def test_uniformity_of_noise_in_many_dimensions_nears_minus_4():
    assert uniformity(noise(200, 2_000)).item() == pytest.approx(-4, abs=0.05)


def test_deviation_is_the_distance_as_a_share_of_the_students_length():
    student = [torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])]
    teacher = [torch.tensor([3.0]), torch.tensor([[1.0, 4.0]])]

    # By hand: a distance of 1, a length of 5.
    assert deviation(zip(student, teacher, strict=True)).item() == pytest.approx(0.2)
    assert deviation(zip(student, student, strict=True)).item() == 0
