"""Folds: a tenth held out, asked-for folds, and refusals that offer the cure."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sslaudio.tasks.base import (
    Example,
    Fold,
    Task,
    choose_folds,
    cross_folds,
    hold_out_tenth,
    recording_notes,
)


def example(key, target=0, **fields):
    return Example(str(key), target, Path(f"{key}.wav"), **fields)


def fold(train=("a", "b"), validation=("c",), test=("d",)):
    parts = [
        tuple(example(key, place % 2) for place, key in enumerate(part))
        for part in (train, validation, test)
    ]
    return Fold("published", *parts)


def task(*folds, classes=("no", "yes")):
    return Task("words", classes, 1.0, "by hand", folds)


def test_every_tenth_of_each_group_is_held_out():
    examples = [example(f"{take}{group}") for take in range(20) for group in "xy"]

    rest, tenth = hold_out_tenth(examples, [one.key[-1] for one in examples])

    assert [one.key for one in tenth] == ["9x", "9y", "19x", "19y"]
    assert len(rest) == 36


@given(st.integers(1, 200))
def test_a_tenth_is_a_tenth_of_any_group(size):
    rest, tenth = hold_out_tenth([example(place) for place in range(size)], ["group"] * size)

    assert len(rest) + len(tenth) == size
    assert len(tenth) == (max(1, round(size / 10)) if size > 1 else 0)


def test_a_clip_in_two_parts_is_refused():
    with pytest.raises(ValueError, match=r"a is there twice.*split lists"):
        task(fold(test=("a",)))


def test_an_empty_part_is_named_with_the_counts():
    with pytest.raises(ValueError, match=r"validation part holds no clip \(2 train, 0 validation"):
        task(fold(validation=()))


def test_training_on_one_class_is_refused():
    with pytest.raises(ValueError, match="all of one class"):
        task(fold(train=("a",)))


def test_a_task_of_one_class_is_refused():
    with pytest.raises(ValueError, match="only one, 'yes'"):
        task(fold(), classes=("yes",))


def test_folds_come_in_their_own_order_as_words_or_numbers():
    folds = [Fold(name, (), (), ()) for name in ("1", "2", "3")]

    assert [one.name for one in choose_folds(folds, (3, "1"))] == ["1", "3"]
    assert len(choose_folds(folds, ())) == 3


def test_recordings_across_folds_are_counted_and_warned_about():
    clips = [example(place, recording=str(place % 4)) for place in range(6)]
    folds = cross_folds("words", clips, [1, 1, 2, 2, 3, 3])

    with pytest.warns(UserWarning, match="task words: 2 recordings lie in several parts of fold 1"):
        notes = recording_notes("words", folds)

    assert notes == tuple(f"2 recordings lie in several parts of fold {name}" for name in "123")


def test_clips_of_unknown_recording_share_none():
    clips = [example(place) for place in range(3)]

    folds = cross_folds("words", clips, [1, 2, 3])

    assert [one.name for one in folds] == ["1", "2", "3"]
    assert recording_notes("words", folds) == ()
