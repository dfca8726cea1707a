"""UrbanSound8K: ten published folds, or LAPE's one."""

import warnings

import pytest
from miniatures.urbansound8k import HEAD

from sslaudio.data.corpora.base import Clip
from sslaudio.tasks import sources
from sslaudio.tasks.urbansound8k import Config, build


@pytest.fixture
def layout(tmp_path, sound):
    """Write two cuts of a dog and one of a siren in each of the folds."""

    def write(folds):
        lines = [HEAD]
        for fold in folds:
            for target, name, cut in ((3, "dog_bark", 0), (3, "dog_bark", 1), (8, "siren", 0)):
                file = f"{fold}{target}-{target}-0-{cut}.wav"
                sound(tmp_path / "audio" / f"fold{fold}" / file)
                lines.append(f"{file},{fold}{target},0,4,1,{fold},{target},{name}")
        (tmp_path / "metadata").mkdir()
        (tmp_path / "metadata" / "UrbanSound8K.csv").write_text("\n".join(lines) + "\n")
        return tmp_path

    return write


def folds_of(examples):
    return sorted({int(example.path.parent.name.removeprefix("fold")) for example in examples})


def test_each_of_ten_folds_tests_and_the_next_validates(layout):
    task = build(Config(), layout(range(1, 11)))

    assert [fold.name for fold in task.folds] == [str(number) for number in range(1, 11)]
    for number, fold in enumerate(task.folds, 1):
        after = number % 10 + 1
        assert folds_of(fold.test) == [number]
        assert folds_of(fold.validation) == [after]
        assert folds_of(fold.train) == sorted(set(range(1, 11)) - {number, after})
        assert fold.clips() == {"train": 24, "validation": 3, "test": 3}
    assert (task.notes, task.missing) == (("2 of 10 classes",), 0)
    assert (task.metric, task.seconds, task.legacy) == ("accuracy", 4.0, False)


def test_lapes_fold_10_tests_and_validates(layout):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that test validates is no shared recording
        task = build(Config(split="lape_legacy"), layout(range(1, 11)))

    (fold,) = task.folds
    assert folds_of(fold.train) == list(range(1, 10))
    assert folds_of(fold.test) == [10]
    assert fold.validation == fold.test
    assert task.legacy
    assert task.split_rule.startswith("lape_legacy: folds 1-9 train, fold 10 tests")


def test_absent_folds_and_clips_are_said(layout):
    root = layout([1, 2, 10])
    (root / "audio" / "fold1" / "13-3-0-0.wav").unlink()

    task = build(Config(), root)

    assert [fold.name for fold in task.folds] == ["1", "2", "10"]
    assert folds_of(task.folds[1].validation) == [10]
    assert {"3 of 10 folds", "8 of 9 listed clips"} <= set(task.notes)
    assert task.missing == 1


def test_lape_without_fold_10_is_refused(layout):
    with pytest.raises(ValueError, match="the validation part holds no clip"):
        build(Config(split="lape_legacy"), layout([1, 2, 3]))


def test_ss_masts_scores_stand_by_lapes_fold_alone(layout):
    root = layout(range(1, 11))

    legacy = build(Config(split="lape_legacy"), root).published
    published = build(Config(), root).published

    assert len(legacy) == 10
    best = max(legacy, key=lambda other: other.score)
    assert (best.system, best.score, best.protocol) == (
        "MAST, ImageNet + SS-MAST + patch-drop",
        0.848,
        "full",
    )
    assert {other.protocol for other in published} == {"linear", "knn"}
    assert all(0 < other.score < 1 for other in legacy + published)


def test_the_published_counts_of_folds(monkeypatch, tmp_path):
    # Of the corpus's table.
    counts = (873, 888, 925, 990, 936, 823, 838, 806, 816, 837)
    clips = tuple(
        Clip(tmp_path, f"{fold}/{place}", label=str(place % 10), fold=fold)
        for fold, count in enumerate(counts, 1)
        for place in range(count)
    )
    monkeypatch.setattr(sources, "read", lambda *_: sources.Source(clips, 0))

    task, legacy = build(Config(), tmp_path), build(Config(split="lape_legacy"), tmp_path)

    assert [fold.clips()["test"] for fold in task.folds] == list(counts)
    assert all(sum(fold.clips().values()) == 8732 for fold in task.folds)
    assert legacy.folds[0].clips() == {"train": 8732 - 837, "validation": 837, "test": 837}
