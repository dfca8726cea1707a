"""A task over shards: their folds, their splits, or a seeded split that keeps units whole."""

from collections import Counter

import pytest

from sslaudio.data import shards
from sslaudio.data.corpora.base import Clip
from sslaudio.tasks.shards import Config, build


@pytest.fixture
def packed(tmp_path, sound):
    """Write clips, given as fields, to shards."""

    def write(rows):
        clips = []
        for place, row in enumerate(rows):
            path = sound(tmp_path / "sounds" / f"{place:03}.wav")
            clips.append(Clip(path, path.name, **row))
        shards.build(clips, tmp_path / "shards", corpus="folder", jobs=1)
        return tmp_path / "shards"

    return write


def two_classes(count, **fields):
    return [{"label": label, "split": "train", **fields} for label in ("a", "b")] * count


def keys(examples):
    return {example.key for example in examples}


def test_folds_are_used_where_every_clip_has_one(packed):
    rows = [{"label": label, "fold": fold} for fold in (1, 2, 3, 4) for label in ("a", "b")]

    task = build(Config(folds=(4,)), packed(rows))

    (fold,) = task.folds
    assert (fold.name, fold.clips()) == ("4", {"train": 4, "validation": 2, "test": 2})
    assert "folds" in task.split_rule
    assert task.seconds == pytest.approx(0.05)


def test_splits_are_used_where_some_clip_tests(packed):
    rows = [
        {"label": label, "split": split}
        for split in ("train", "train", "validation", "test", "noise")
        for label in ("a", "b")
    ]

    (fold,) = build(Config(), packed(rows)).folds

    assert fold.clips() == {"train": 4, "validation": 2, "test": 2}


def test_a_tenth_validates_where_no_split_does(packed):
    rows = two_classes(20) + two_classes(3, split="test")

    task = build(Config(), packed(rows))

    assert task.folds[0].clips() == {"train": 36, "validation": 4, "test": 6}
    assert "a tenth of the training clips validates" in task.split_rule


@pytest.mark.parametrize("unit", ["speaker", "recording"])
def test_a_tenth_of_the_training_units_validates_whole(packed, unit):
    rows = [{"label": label, "split": "train", unit: f"id{number}"} for number in range(20)
            for label in "aabb"]  # fmt: skip
    rows += two_classes(3, split="test", **{unit: "other"})

    task = build(Config(), packed(rows))

    (fold,) = task.folds
    train, validation = ({getattr(one, unit) for one in part}
                         for part in (fold.train, fold.validation))  # fmt: skip
    assert (len(train), len(validation)) == (18, 2)
    assert not train & validation
    assert f"a tenth of the training {unit}s validates" in task.split_rule


def test_speakers_that_are_the_classes_train_and_validate(packed):
    rows = [
        {"label": name, "speaker": name, "split": split}
        for name in ("ada", "bob")
        for split in ["train"] * 20 + ["test"] * 3
    ]

    with pytest.warns(UserWarning, match="2 speakers lie in several parts"):
        task = build(Config(), packed(rows))

    assert task.folds[0].clips() == {"train": 36, "validation": 4, "test": 6}
    assert "a tenth of the training clips validates" in task.split_rule


def test_a_corpus_without_splits_is_divided_70_15_15_class_by_class(packed):
    task = build(Config(), packed(two_classes(20)))

    (fold,) = task.folds
    assert fold.name == "seeded"
    assert task.split_rule == "70/15/15 by key, seed 0"
    for part, count in (("train", 14), ("validation", 3), ("test", 3)):
        assert Counter(one.target for one in fold.parts()[part]) == {0: count, 1: count}


def test_the_seed_alone_decides(packed):
    root = packed(two_classes(20))

    assert build(Config(), root) == build(Config(), root)
    assert keys(build(Config(seed=1), root).folds[0].test) != keys(
        build(Config(), root).folds[0].test
    )


@pytest.mark.parametrize("unit", ["speaker", "recording"])
def test_a_seeded_split_keeps_a_unit_whole(packed, unit):
    rows = [{"label": label, unit: f"id{number}"} for number in range(10) for label in "aabb"]

    task = build(Config(), packed(rows))

    units = [
        {getattr(one, unit) for one in examples} for examples in task.folds[0].parts().values()
    ]
    assert [len(held) for held in units] == [6, 2, 2]
    assert len(set.union(*units)) == 10
    assert f"by {unit}" in task.split_rule


def test_a_label_that_is_the_speaker_is_divided_by_clip(packed):
    rows = [{"label": name, "speaker": name} for name in ("ada", "bob")] * 10

    task = build(Config(), packed(rows))

    assert "by key" in task.split_rule
    assert {one.target for one in task.folds[0].train} == {0, 1}


def test_clips_decode_from_the_tar(packed):
    (fold,) = build(Config(), packed(two_classes(5))).folds

    assert len(fold.test[0].waveform(16_000)) == 800


@pytest.mark.parametrize(
    ("rows", "config", "words"),
    [
        ([{}] * 4, Config(), "bears a label"),
        ([{"labels": ("a", "b")}] * 4, Config(), "several labels"),
        (two_classes(5), Config(split="folds"), r"10 of the 10 clips .* no fold"),
        (two_classes(5), Config(split="splits"), r"none is for test.*seeded"),
        (two_classes(2), Config(), "validation part holds no clip"),
        (two_classes(5), Config(folds=(1,)), "the folds here are seeded"),
    ],
)
def test_what_cannot_be_divided_says_so(packed, rows, config, words):
    with pytest.raises(ValueError, match=words):
        build(config, packed(rows))


def test_clips_without_a_split_are_counted(packed):
    rows = two_classes(20) + two_classes(3, split="test")
    rows += [{"label": "a"}]

    assert "1 clips without one left out" in build(Config(), packed(rows)).split_rule
