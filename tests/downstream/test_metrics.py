"""Accuracy, recall and confusion: known by hand, and equal to scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics as peer

from sslaudio.downstream.metrics import (
    accuracy,
    areas_under_curve,
    average_precisions,
    confusion,
    d_prime,
    measured,
    recalls,
    weighed,
)


def test_three_of_four_right_is_three_quarters():
    assert accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0])) == 0.75


def test_confusion_has_true_classes_in_rows():
    counts = confusion(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0]), classes=3)

    assert counts.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert recalls(counts).tolist() == [1.0, 1.0, 0.5]


def test_a_class_without_clips_has_no_recall():
    shares = recalls(confusion(np.array([0, 0]), np.array([0, 2]), classes=3))

    assert shares[0] == 0.5
    assert np.isnan(shares[1:]).all()


def test_metrics_equal_sklearns():
    generator = np.random.default_rng(0)
    targets, predictions = generator.integers(0, 7, 200), generator.integers(0, 7, 200)

    counts = confusion(targets, predictions, classes=7)

    assert accuracy(targets, predictions) == pytest.approx(
        peer.accuracy_score(targets, predictions)
    )
    assert (counts == peer.confusion_matrix(targets, predictions)).all()
    assert recalls(counts) == pytest.approx(peer.recall_score(targets, predictions, average=None))


def test_no_clip_cannot_be_scored():
    with pytest.raises(ValueError, match="one clip at least"):
        accuracy(np.array([], int), np.array([], int))


def test_figures_of_several_classes_equal_sklearns_with_absent_ones_left_out():
    generator = np.random.default_rng(0)
    targets, scores = generator.random((50, 4)) < 0.3, generator.normal(size=(50, 4))
    targets[:, 2], targets[:, 3] = False, True  # nobody's, everybody's

    told = measured(targets, scores)

    kept = [0, 1, 3]
    expected = peer.average_precision_score(targets[:, kept], scores[:, kept], average="macro")
    assert told["mAP"] == pytest.approx(expected)
    area = peer.roc_auc_score(targets[:, :2], scores[:, :2], average="macro")
    assert told["AUC"] == pytest.approx(area)
    assert np.isnan(average_precisions(targets, scores)[2])
    assert np.isnan(areas_under_curve(targets, scores)[2:]).all()


def test_one_clip_can_be_scored_where_its_score_is_defined():
    assert measured(np.array([1]), np.array([[0.0, 2.0]])) == {"accuracy": 1.0}
    assert measured(np.array([[True, False]]), np.array([[0.1, 0.9]])) == {"mAP": 1.0}
    with pytest.raises(ValueError, match="two clips or more"):
        measured(np.array([1.0]), np.array([[1.0]]))
    with pytest.raises(ValueError, match="no clip has any of the classes"):
        measured(np.zeros((1, 2), bool), np.zeros((1, 2)))


def test_d_prime_of_an_area_known_by_hand():
    # Two unit normals one apart: the area is Phi(1 / sqrt 2) = 0.7602.
    assert d_prime(0.760250) == pytest.approx(1.0, abs=1e-5)
    assert d_prime(0.5) == 0.0


@pytest.mark.parametrize("area", [0.0, 1.0])
def test_an_area_at_either_end_has_no_d_prime(area):
    targets = np.array([[True, False], [False, True]])

    told = measured(targets, targets * (2 * area - 1))

    assert told["AUC"] == area and set(told) == {"mAP", "AUC"}  # an infinite one is no JSON


def test_a_number_is_scored_by_the_share_of_variance_told():
    told = measured(np.array([1.0, 2.0, 3.0]), np.array([[1.0], [2.0], [4.0]]))

    # By hand: squared errors 0, 0, 1 against a variance sum of 2.
    assert told == {"R2": pytest.approx(0.5), "MAE": pytest.approx(1 / 3)}


@pytest.mark.parametrize("digits", [0, 1, 9])
def test_weighed_precision_is_scikit_learns_of_the_replicated_sample(digits: int):
    random = np.random.default_rng(digits)
    scores = random.normal(size=(80, 7)).round(digits)  # many equal ones, few, none
    targets = random.random((80, 7)) < [0.02, 0.1, 0.3, 0.5, 0.9, 1.0, 0.0]
    figure = weighed(targets, scores)

    for _ in range(30):
        times = random.integers(0, 4, 80) * (random.random(80) < 0.5)
        rows = np.repeat(np.arange(80), times)
        expected = np.nanmean(average_precisions(targets[rows], scores[rows]))
        assert figure(times) == pytest.approx(expected, abs=1e-9)
    assert np.isnan(weighed(targets[:, 6:], scores[:, 6:])(np.ones(80, int)))


@pytest.mark.parametrize("said", [0.0, 3.0])
def test_weighed_share_of_variance_of_one_number_is_scikit_learns(said: float):
    targets, scores = np.array([3.0, 3.0, 5.0]), np.full((3, 1), said)
    figure = weighed(targets, scores)

    assert figure(np.array([2, 1, 0])) == measured(targets[:2], scores[:2])["R2"]
    assert np.isnan(figure(np.array([1, 0, 0])))
