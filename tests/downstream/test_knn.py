"""Nearest neighbours vote: known by hand, and as scikit-learn has it."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from sslaudio.downstream import classify as heads
from sslaudio.downstream import knn
from sslaudio.downstream.knn import Config, NeighbourHead, fit, told
from sslaudio.downstream.probe import Part

TEMPERATURE = Config.temperature


def classify(train: Part, asked, classes: int, neighbours: int, temperature: float = TEMPERATURE):
    return told(NeighbourHead.of(train, classes, neighbours, temperature), asked).argmax(axis=1)


def blobs(clips: int, seed: int, noise: float = 2.0) -> Part:
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(5, 12))
    targets = np.arange(clips) % 5
    embeddings = 7 + centres[targets] + noise * generator.normal(size=(clips, 12))
    return Part(embeddings.astype(np.float32), targets)


@pytest.mark.parametrize("neighbours", [1, 20, 150])
def test_it_is_sklearns_weighted_vote_on_standardised_features(neighbours: int):
    train, asked = blobs(150, 0), blobs(1_100, 1).embeddings  # more than go at once
    scaler = StandardScaler().fit(train.embeddings.astype(np.float64))
    peer = KNeighborsClassifier(
        neighbours,
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: np.exp((1 - distance) / TEMPERATURE),
    ).fit(scaler.transform(train.embeddings), train.targets)

    predictions = classify(train, asked, 5, neighbours)

    assert (predictions == peer.predict(scaler.transform(asked))).all()
    assert 0.3 < np.mean(predictions == np.arange(1_100) % 5) < 1


def test_a_near_clip_outvotes_two_far_ones_when_it_is_cold():
    # Mean 0 and deviation 1 in both columns: standardised already.
    root = math.sqrt(2)
    train = Part(
        np.array([[root, 0], [0, root], [0, -root], [-root, 0]], np.float32), np.array([0, 1, 1, 2])
    )
    asked = np.array([[1.0, 0.1]], np.float32)

    # By hand: cosines 0.995, 0.0995 and -0.0995. Cold, the nearest wins; hot, two beat one.
    assert classify(train, asked, 3, neighbours=3, temperature=0.07).tolist() == [0]
    assert classify(train, asked, 3, neighbours=3, temperature=100.0).tolist() == [1]


def test_a_shared_mean_a_constant_and_a_loud_feature_do_not_drown_the_rest():
    generator = np.random.default_rng(0)
    targets = np.arange(100) % 2
    telling = np.where(targets, 1.0, -1.0)[:, None] + 0.1 * generator.normal(size=(100, 4))
    loud = 1_000 * generator.normal(size=(100, 1))
    embeddings = np.hstack([telling + 50, loud, np.full((100, 1), 3.0)]).astype(np.float32)

    predictions = classify(Part(embeddings[:60], targets[:60]), embeddings[60:], 2, neighbours=5)

    assert (predictions == targets[60:]).all()


def test_validation_chooses_how_many_vote_and_test_chooses_nothing():
    parts = [blobs(150, seed) for seed in range(3)]
    validated = {}
    for count in (1, 5, 50):
        predictions = classify(parts[0], parts[1].embeddings, 5, count)
        validated[count] = np.mean(predictions == parts[1].targets)

    found = fit(*parts, 5, Config(neighbours=(1, 5, 50), refit=False))

    assert found.validation == max(validated.values()) == validated[found.neighbours]
    expected = classify(parts[0], parts[2].embeddings, 5, found.neighbours)
    assert found.test == np.mean(expected == parts[2].targets)


def test_two_near_neighbours_of_one_class_each_share_several_classes_and_a_number():
    embeddings = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32)
    asked = np.array([[1.0, 1.0]], np.float32)
    several = Part(embeddings, np.array([[1, 0, 1], [0, 0, 1], [0, 1, 0], [0, 1, 0]], bool))
    numbers = Part(embeddings, np.array([2.0, 4.0, 70.0, 90.0]))

    # By hand: both near ones are as near; the second and third classes are neither's and both's.
    assert told(NeighbourHead.of(several, 3, 2, 0.07), asked) == pytest.approx(
        np.array([[0.5, 0.0, 1.0]])
    )
    assert told(NeighbourHead.of(numbers, 1, 2, 0.07), asked) == pytest.approx(np.array([[3.0]]))


def asked(part: Part, form: str) -> Part:
    """The same clips, with one class, several or a number."""
    several = np.eye(5, dtype=bool)[part.targets] | np.eye(5, dtype=bool)[part.targets // 2]
    targets = {"single": part.targets, "multi": several, "number": part.targets * 1.5}
    return Part(part.embeddings, targets[form])


FORMS = pytest.mark.parametrize("form", ["single", "multi", "number"])


@FORMS
def test_training_clips_in_chunks_say_the_same(monkeypatch, form: str):
    train, validation, test = (asked(blobs(150, seed), form) for seed in range(3))
    whole = fit(train, validation, test, 5, Config())

    monkeypatch.setattr(knn, "TRAINED_AT_ONCE", 17)  # fewer than vote, and than 50
    monkeypatch.setattr(knn, "AT_ONCE", 31)
    parts = fit(train, validation, test, 5, Config())

    assert parts.neighbours == whole.neighbours
    assert parts.test_scores == pytest.approx(whole.test_scores, abs=1e-5)
    assert parts.validation_scores == pytest.approx(whole.validation_scores, abs=1e-5)


@FORMS
def test_votes_are_those_of_float64_and_one_hot_rows(form: str):
    train, test = asked(blobs(150, 0), form), blobs(60, 1).embeddings
    rows = np.eye(5)[train.targets] if form == "single" else train.targets.reshape(150, -1)
    mean, deviation = (getattr(train.embeddings.astype(float), f)(0) for f in ("mean", "std"))

    standard = [(part.astype(float) - mean) / deviation for part in (train.embeddings, test)]
    own, their = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in standard)
    near = np.argsort(-(their @ own.T), axis=1)[:, :7]
    votes = np.exp(np.take_along_axis(their @ own.T, near, axis=1) / 0.07)
    shares = (votes[..., None] * rows[near]).sum(1) / votes.sum(1)[:, None]
    expected = np.log(shares.clip(1e-12)) if form == "single" else shares

    assert told(NeighbourHead.of(train, 5, 7, 0.07), test) == pytest.approx(expected, abs=1e-5)


@FORMS
def test_a_head_is_the_same_when_it_is_built_again(form: str):
    train, test = asked(blobs(150, 0), form), blobs(60, 1).embeddings
    head = NeighbourHead.of(train, 5, 7, 0.07)
    columns = 1 if form == "number" else 5

    built = heads.build_head(heads.told(head), SimpleNamespace(dim=12), columns)
    built.load_state_dict(head.state_dict())

    assert (told(built, test) == told(head, test)).all()
    bits = {"single": torch.int64, "multi": torch.bool, "number": torch.float64}
    assert built.truth.dtype == bits[form] and built.directions.dtype == torch.float32


@FORMS
def test_a_head_of_before_with_rows_of_float64_says_the_same(form: str):
    train, test = asked(blobs(150, 0), form), blobs(60, 1).embeddings
    head = NeighbourHead.of(train, 5, 7, 0.07)
    rows = np.eye(5)[train.targets] if form == "single" else train.targets.reshape(150, -1)
    state = {name: value.double() for name, value in head.state_dict().items()}
    config = {name: value for name, value in heads.told(head).items() if name != "form"}

    built = heads.build_head(config, SimpleNamespace(dim=12), rows.shape[1])
    built.load_state_dict(state | {"truth": torch.from_numpy(rows.astype(float))})

    assert told(built, test) == pytest.approx(told(head, test), abs=1e-12)


def test_more_neighbours_than_clips_are_all_of_them():
    parts = [blobs(30, seed) for seed in range(3)]

    found = fit(*parts, 5, Config(neighbours=(50, 200), refit=False))

    assert found.neighbours == found.head.neighbours == 30
    assert (told(found.head, parts[2].embeddings) == found.test_scores).all()
