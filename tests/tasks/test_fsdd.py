"""Free Spoken Digit Dataset: published takes, left-out speakers, a tenth that validates."""

from collections import Counter

import pytest

from sslaudio.tasks.fsdd import Config, build


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, sound):
    """Three digits of three speakers, 20 takes each; only read."""
    root = tmp_path_factory.mktemp("fsdd")
    for digit in (0, 1, 7):
        for speaker in ("ada", "bob", "eve"):
            for take in range(20):
                sound(root / "recordings" / f"{digit}_{speaker}_{take}.wav")
    return root


def takes(examples):
    return sorted({int(example.path.stem.rpartition("_")[2]) for example in examples})


def test_takes_0_to_4_test_and_a_tenth_of_the_others_validates(recordings):
    task = build(Config(), recordings)

    (fold,) = task.folds
    assert takes(fold.test) == [0, 1, 2, 3, 4]
    # 15 takes train; a tenth, rounded to even, is 2: the 8th and the last of them.
    assert takes(fold.validation) == [12, 19]
    assert fold.clips() == {"train": 9 * 13, "validation": 9 * 2, "test": 9 * 5}
    assert task.classes == ("0", "1", "7")


def test_validation_holds_every_digit_and_speaker_alike(recordings):
    (fold,) = build(Config(), recordings).folds

    strata = Counter((example.target, example.speaker) for example in fold.validation)

    assert len(strata) == 9
    assert set(strata.values()) == {2}


def test_a_left_out_speaker_is_heard_in_test_only(recordings):
    task = build(Config(split="leave-one-speaker-out"), recordings)

    assert [fold.name for fold in task.folds] == ["ada", "bob", "eve"]
    for fold in task.folds:
        assert {example.speaker for example in fold.test} == {fold.name}
        assert fold.name not in {example.speaker for example in fold.train + fold.validation}
        assert fold.clips() == {"train": 108, "validation": 12, "test": 60}


def test_one_speaker_can_be_asked_for(recordings):
    task = build(Config(split="leave-one-speaker-out", folds=("eve",)), recordings)

    assert [fold.name for fold in task.folds] == ["eve"]


def test_a_speaker_who_is_not_there_is_answered_with_those_who_are(recordings):
    with pytest.raises(ValueError, match="asks for theo, but the folds here are ada, bob, eve"):
        build(Config(split="leave-one-speaker-out", folds=("theo",)), recordings)


def test_the_speaker_can_be_the_target(recordings):
    task = build(Config(target="speaker"), recordings)

    assert task.classes == ("ada", "bob", "eve")
    for example in task.folds[0].test:
        assert task.classes[example.target] == example.speaker


def test_a_speaker_never_heard_cannot_be_named():
    with pytest.raises(ValueError, match=r"set task\.split to published"):
        Config(target="speaker", split="leave-one-speaker-out")


def test_one_speaker_alone_cannot_be_left_out(tmp_path, sound):
    for digit in (0, 1):
        for take in range(10):
            sound(tmp_path / "recordings" / f"{digit}_ada_{take}.wav")

    with pytest.raises(ValueError, match="needs two speakers"):
        build(Config(split="leave-one-speaker-out"), tmp_path)


def test_missing_speakers_are_said(recordings):
    assert "3 of 6 speakers" in build(Config(), recordings).notes


def test_counts_of_the_shared_part(shared):
    root = shared("fsdd")

    (published,) = build(Config(), root).folds
    left_out = build(Config(split="leave-one-speaker-out"), root)

    # 10 digits of 4 speakers: 5 takes test; of 45 a tenth, rounded to even, is 4.
    assert published.clips() == {"train": 40 * 41, "validation": 40 * 4, "test": 40 * 5}
    assert len(left_out.folds) == 4
    for fold in left_out.folds:
        assert fold.clips() == {"train": 1350, "validation": 150, "test": 500}
