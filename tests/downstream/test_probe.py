"""The linear probe: finds a line where there is one, chance where there is none."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, r2_score
from torch import nn

from sslaudio.downstream import logistic, probe
from sslaudio.downstream.logistic import Logistic
from sslaudio.downstream.probe import Config, Part, fit


def blobs(clips: int, seed: int, classes: int = 3, dim: int = 8, noise: float = 0.3) -> Part:
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    targets = np.arange(clips) % classes
    embeddings = centres[targets] + noise * generator.normal(size=(clips, dim))
    return Part(embeddings.astype(np.float32), targets)


def test_separated_classes_are_told_apart():
    result = fit(blobs(60, 0), blobs(30, 1), blobs(30, 2), classes=3)

    assert result.validation == result.test == 1.0
    assert (result.test_scores.argmax(1) == blobs(30, 2).targets).all()
    assert result.converged


def test_shuffled_labels_score_chance():
    parts = [blobs(300, seed, classes=4) for seed in range(3)]
    generator = np.random.default_rng(7)
    shuffled = [replace(part, targets=generator.permutation(part.targets)) for part in parts]

    result = fit(*shuffled, classes=4)

    # Chance is 0.25 with a standard error of 0.025.
    assert result.test == pytest.approx(0.25, abs=0.09)


def test_the_line_is_sklearns_on_standardised_features():
    train, validation, test = blobs(90, 0, noise=2), blobs(60, 1, noise=2), blobs(60, 2, noise=2)
    mean, deviation = train.embeddings.mean(axis=0), train.embeddings.std(axis=0)
    peer = LogisticRegression(C=1 / (0.1 * 90), tol=1e-8, max_iter=1000)
    peer.fit((train.embeddings - mean) / deviation, train.targets)

    config = Config(strengths=(0.1,), tolerance=1e-8, refit=False)
    result = fit(train, validation, test, 3, config)

    assert result.weights * deviation == pytest.approx(peer.coef_, abs=1e-4)
    assert result.test == peer.score((test.embeddings - mean) / deviation, test.targets)


def test_cross_entropy_on_validation_chooses_the_penalty():
    train, validation, test = (blobs(90, seed, noise=2) for seed in range(3))
    strengths = (0.001, 1.0, 0.1, 0.01)
    mean, deviation = train.embeddings.mean(0), train.embeddings.std(0)
    losses = []
    for strength in strengths:
        peer = LogisticRegression(C=1 / (strength * 90), max_iter=1_000)
        peer.fit((train.embeddings - mean) / deviation, train.targets)
        told = peer.predict_proba((validation.embeddings - mean) / deviation)
        losses.append(log_loss(validation.targets, told))

    result = fit(train, validation, test, 3, Config(strengths=strengths))

    assert result.strength == strengths[int(np.argmin(losses))] == 0.1


def test_test_clips_choose_nothing():
    train, validation, test = (blobs(60, seed, noise=2) for seed in range(3))
    other = Part(test.embeddings + 100, 2 - test.targets)

    one, two = fit(train, validation, test, 3), fit(train, validation, other, 3)

    assert one.strength == two.strength
    assert (one.weights == two.weights).all()


def test_the_scored_line_is_fitted_on_train_and_validation():
    train, validation, test = (blobs(60, seed, noise=2) for seed in range(3))
    both = Part(
        np.concatenate([train.embeddings, validation.embeddings]),
        np.concatenate([train.targets, validation.targets]),
    )
    config = Config(strengths=(0.1,))

    result = fit(train, validation, test, 3, config)

    assert (result.weights == fit(both, test, test, 3, replace(config, refit=False)).weights).all()
    # The validation score stays that of clips the line has not seen.
    assert result.validation == fit(train, test, validation, 3, replace(config, refit=False)).test


def test_scale_and_shift_of_a_feature_change_nothing():
    parts = [blobs(60, seed, noise=2) for seed in range(3)]
    scales = np.array([1e-3, 1, 1e3, 5, 0.1, 7, 1, 2])
    moved = [
        Part(part.embeddings.astype(np.float64) * scales + scales, part.targets) for part in parts
    ]

    one, two = fit(*parts, classes=3), fit(*moved, classes=3)

    assert (one.test_scores.argmax(1) == two.test_scores.argmax(1)).all()


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6])
def test_a_constant_feature_is_never_weighed(constant):
    parts = []
    for seed in range(3):
        part = blobs(60, seed)
        column = np.full((60, 1), constant, np.float32)
        parts.append(Part(np.hstack([part.embeddings, column]), part.targets))
    parts[2].embeddings[:, -1] += 1_000  # would decide every test clip, had it a weight

    result = fit(*parts, classes=3)

    assert (result.weights[:, -1] == 0).all()
    assert result.test == 1.0


def test_the_layer_predicts_as_the_probe():
    test = blobs(60, 2, noise=2)
    result = fit(blobs(60, 0, noise=2), blobs(60, 1, noise=2), test, classes=3)

    with torch.no_grad():
        logits = result.linear()(torch.from_numpy(test.embeddings))

    assert (logits.argmax(dim=1).numpy() == result.test_scores.argmax(1)).all()


@pytest.mark.parametrize("kept", [(0, 2), (1, 2, 3)])
def test_a_class_without_training_clips_is_never_predicted(kept):
    train = blobs(80, 0, classes=4)
    mask = np.isin(train.targets, kept)
    train = Part(train.embeddings[mask], train.targets[mask])

    config = Config(refit=False)
    result = fit(train, blobs(40, 1, classes=4), blobs(40, 2, classes=4), 4, config)

    assert set(result.test_scores.argmax(1)) == set(kept)
    assert result.test == pytest.approx(len(kept) / 4)


def test_two_fits_agree_to_the_last_digit():
    parts = [blobs(60, seed, noise=2) for seed in range(3)]

    assert (fit(*parts, classes=3).weights == fit(*parts, classes=3).weights).all()


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (Part(np.zeros((0, 8)), np.zeros(0, int)), "train holds no clip"),
        (Part(np.zeros((3, 8)), np.zeros(3, int)), "all of one class"),
        (Part(np.full((3, 8), np.nan), np.arange(3)), "3 of 3 embeddings are not finite"),
        (Part(np.zeros((3, 8)), np.arange(3) + 1), "targets run from 1 to 3"),
        (Part(np.zeros((3, 8)), np.arange(2)), "do not fit 2 targets"),
    ],
)
def test_unusable_training_clips_are_refused(train, words):
    with pytest.raises(ValueError, match=words):
        fit(train, blobs(30, 1), blobs(30, 2), classes=3)


@pytest.mark.parametrize("strengths", [(), (0.0, 1.0), (-1.0,)])
def test_a_penalty_must_be_above_zero(strengths):
    with pytest.raises(ValueError, match="above 0"):
        Config(strengths=strengths)


@pytest.mark.parametrize("tolerance", [0.0, -1e-4, float("nan"), float("inf")])
def test_a_tolerance_must_be_above_zero(tolerance):
    with pytest.raises(ValueError, match=r"probe\.tolerance is .*above 0"):
        Config(tolerance=tolerance)


def told_by_heart(clips: int, seed: int, speakers: str) -> Part:
    """Two classes: a weak feature that holds for everyone, and strong ones that hold for one.

    Each speaker has two features of their own that tell the class without error; a stranger's
    are theirs alone, and pure noise to a line that leans on the others'.
    """
    generator = np.random.default_rng(seed)
    targets = np.arange(clips) % 2
    who = [speakers[index // 2 % len(speakers)] for index in range(clips)]
    sign = 2 * targets - 1
    features = generator.normal(size=(clips, 9))
    features[:, 0] += 0.8 * sign
    for row, name in enumerate(who):
        features[row, 1 + "abcdefgh".index(name)] += 6 * sign[row]
    return Part(features.astype(np.float32), targets, tuple(who))


def test_validation_asks_for_strangers_where_test_does():
    train, validation = told_by_heart(240, 0, "abcd"), told_by_heart(80, 1, "abcd")
    strangers, known = told_by_heart(80, 2, "gh"), told_by_heart(80, 2, "abcd")
    config = Config(strengths=(1e-3,), refit=False)

    for test, heard in ((strangers, False), (known, True)):
        result = fit(train, validation, test, 2, config)
        by_hand = np.zeros(80, dtype=int)
        for name in "abcd":
            theirs = np.array(validation.speakers) == name
            others = train.only(np.array(train.speakers) != name)
            line = fit(train if heard else others, validation.only(theirs), known, 2, config)
            by_hand[theirs] = line.validation_scores.argmax(1)
        assert (result.validation_scores.argmax(1) == by_hand).all()
        assert (result.validation > 0.95) == heard


def test_of_many_speakers_several_are_left_out_together():
    random = np.random.default_rng(0)
    names = [f"speaker {place:02}" for place in range(27)]
    train, validation = (
        replace(blobs(270, seed), speakers=tuple(random.permutation(names * 10).tolist()))
        for seed in range(2)
    )
    test = replace(blobs(30, 2), speakers=("stranger",) * 30)

    rounds = list(probe._rounds(train, validation, test))

    assert len(rounds) == 10
    assert (sum(judged.astype(int) for _, judged in rounds) == 1).all()
    for place, (heard, judged) in enumerate(rounds):
        asked = set(np.array(validation.speakers)[judged])
        assert asked == set(names[place::10])
        assert set(heard.speakers) == set(names) - asked
    few = [replace(part, speakers=tuple(n[:9] for n in part.speakers)) for part in (train, test)]
    assert len(list(probe._rounds(few[0], few[0], few[1]))) == 3  # speakers 0, 1 and 2


def test_without_speakers_one_line_judges_all_of_validation():
    train, validation, test = (told_by_heart(80, seed, "ab") for seed in range(3))
    named = replace(test, speakers=("c",) * 80)
    config = Config(strengths=(1e-3,), refit=False)

    unnamed = [replace(part, speakers=()) for part in (train, validation, test)]
    half = replace(train, speakers=(None, *train.speakers[1:]))

    plain = fit(*unnamed, 2, config).validation
    assert fit(half, validation, named, 2, config).validation == plain
    assert fit(train, validation, test, 2, config).validation == plain
    assert fit(train, validation, named, 2, config).validation < plain


def test_a_speaker_who_alone_has_a_class_is_judged_by_a_line_that_knows_him():
    train = told_by_heart(40, 0, "a")
    test = told_by_heart(40, 2, "c")

    result = fit(train, told_by_heart(40, 1, "a"), test, 2)

    assert result.validation > 0.9


def test_several_classes_are_sklearns_line_for_each_by_itself():
    generator = np.random.default_rng(3)
    parts = []
    for seed in range(3):
        part = blobs(90, seed, noise=2)
        several = np.eye(4, dtype=bool)[part.targets]
        several[:, 2] |= generator.random(90) < 0.5
        parts.append(Part(part.embeddings, several))  # nobody has the fourth
    train, _, test = parts
    mean, deviation = train.embeddings.mean(axis=0), train.embeddings.std(axis=0)

    result = fit(*parts, classes=4, config=Config(strengths=(0.1,), refit=False, tolerance=1e-7))

    for column in range(3):
        peer = LogisticRegression(C=1 / (0.1 * 90), tol=1e-8, max_iter=1_000)
        peer.fit((train.embeddings - mean) / deviation, train.targets[:, column])
        assert result.weights[column] * deviation == pytest.approx(peer.coef_[0], abs=1e-3)
        told = peer.decision_function((test.embeddings - mean) / deviation)
        assert result.test_scores[:, column] == pytest.approx(told, abs=1e-2)
    assert (result.test_scores[:, 3] == -1e4).all()


def several(part: Part, classes: int) -> Part:
    """The same clips with any number of classes; nobody has the last."""
    random = np.random.default_rng(len(part.targets))
    true = np.eye(classes + 1, dtype=bool)[part.targets]
    true[:, 1] |= random.random(len(true)) < 0.3
    return replace(part, targets=true)


@pytest.mark.parametrize("ask", ["one of two", "one of nine", "several"])
def test_a_large_problem_has_the_line_of_a_small_one(monkeypatch, ask: str):
    monkeypatch.setattr(logistic, "NUMBERS_AT_ONCE", 64 * 70)  # ten chunks
    monkeypatch.setattr(probe, "ROWS_AT_ONCE", 100)
    count = 2 if ask == "one of two" else 9
    parts = [blobs(600, seed, count, dim=24, noise=2) for seed in range(3)]
    for part in parts:
        part.embeddings[:, 3] = 5.0  # weighs nothing
    classes = count + 1  # nobody has the last
    if ask == "several":
        parts = [several(part, count) for part in parts]
    config = Config(strengths=(1.0, 0.1, 0.01), tolerance=1e-7)

    small = fit(*parts, classes, config)
    monkeypatch.setattr(probe, "LARGE", 0)
    large = fit(*parts, classes, config)

    assert large.strength == small.strength and large.converged
    assert large.weights == pytest.approx(small.weights, abs=1e-3)
    assert large.bias == pytest.approx(small.bias, abs=1e-3)
    assert large.test_scores == pytest.approx(small.test_scores, abs=1e-3)
    assert large.validation_scores == pytest.approx(small.validation_scores, abs=1e-3)
    assert (large.weights[:, 3] == 0).all()


@pytest.mark.parametrize("several_", [False, True])
def test_the_loss_in_chunks_is_the_loss_of_all(monkeypatch, several_: bool):
    part = blobs(301, 0, 5, dim=12, noise=2)
    targets = several(part, 5).targets if several_ else part.targets
    mean, deviation = probe.moments(part.embeddings)
    line = np.random.default_rng(5).normal(size=(6 if several_ else 5, 13))
    rows = (part.embeddings.astype(np.float64) - mean) / deviation
    said = torch.from_numpy(rows @ line[:, :-1].T + line[:, -1]).requires_grad_()
    true = torch.from_numpy(targets)
    if several_:
        mean_loss = nn.functional.binary_cross_entropy_with_logits(said, true.double())
        expected = mean_loss * 6  # its mean is over classes too
    else:
        expected = nn.functional.cross_entropy(said, true)
    expected.backward()

    for numbers in (1 << 20, 13 * 40, 1):
        monkeypatch.setattr(logistic, "NUMBERS_AT_ONCE", numbers)
        cost, rise = Logistic(part.embeddings, targets, mean, 1 / deviation).slope(line, 0.3)
        penalty = 0.15 * np.square(line[:, :-1]).sum()
        assert cost == pytest.approx(expected.item() + penalty, abs=1e-9)
        by_hand = said.grad.numpy().T @ rows + 0.3 * line[:, :-1]
        assert rise[:, :-1] == pytest.approx(by_hand, abs=1e-9)
        assert rise[:, -1] == pytest.approx(said.grad.numpy().sum(axis=0), abs=1e-9)


def test_a_number_is_sklearns_ridge():
    parts = []
    for seed in range(3):
        part = blobs(90, seed, noise=1)
        noise = np.random.default_rng(seed).normal(size=90)
        parts.append(Part(part.embeddings, 3 * part.embeddings[:, 0].astype(np.float64) + noise))
    train, _, test = parts
    mean, deviation = train.embeddings.mean(axis=0), train.embeddings.std(axis=0)
    peer = Ridge(alpha=0.1 * 90).fit((train.embeddings - mean) / deviation, train.targets)

    result = fit(*parts, classes=1, config=Config(strengths=(0.1,), refit=False))

    said = peer.predict((test.embeddings - mean) / deviation)
    assert result.test_scores[:, 0] == pytest.approx(said, abs=1e-4)
    assert result.test == pytest.approx(r2_score(test.targets, said), abs=1e-6)
    assert result.test > 0.7
