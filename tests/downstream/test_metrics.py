"""Accuracy, recall and confusion: known by hand, and equal to scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics as peer

from sslaudio.downstream.metrics import accuracy, confusion, recalls


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
