"""FSD50K: published parts, several classes a clip."""

import pytest
from miniatures import fsd50k as miniature

from sslaudio.tasks.fsd50k import Config, build


@pytest.fixture
def root(tmp_path):
    miniature.make(tmp_path)
    return tmp_path


def test_the_published_parts_and_classes(root):
    task = build(Config(), root)

    (fold,) = task.folds
    assert task.classes == ("Bark", "Dog", "Rain")
    names = {part: [one.recording for one in held] for part, held in fold.parts().items()}
    assert names == {
        "train": ["10", "64760", "9"],
        "validation": ["16399", "16401"],
        "test": ["175151", "37199"],
    }
    assert [one.target for one in fold.train] == [(0, 1), (0, 1), (2,)]
    assert (task.kind, task.metric, task.seconds) == ("multi", "mAP", 10.0)
    assert task.notes == ("3 of 200 classes",)


def test_targets_are_a_row_a_clip(root):
    task = build(Config(), root)

    assert task.targets(task.folds[0].test).tolist() == [[True, True, False], [False, False, True]]


def test_a_missing_clip_is_counted(root):
    (root / "FSD50K.dev_audio" / "10.wav").unlink()

    task = build(Config(), root)

    assert task.missing == 1
    assert "6 of 7 listed clips" in task.notes
    assert task.folds[0].clips()["train"] == 2


def test_a_class_that_no_test_clip_has_is_told_since_the_mean_leaves_it_out(root):
    (root / "FSD50K.eval_audio" / "37199.wav").unlink()

    task = build(Config(), root)

    assert "fold published has no test clip of Rain" in task.notes


def test_without_eval_there_is_nothing_to_test_on(root):
    (root / "FSD50K.ground_truth" / "eval.csv").unlink()

    with (
        pytest.warns(UserWarning, match=r"no eval\.csv"),
        pytest.raises(ValueError, match="the test part holds no clip"),
    ):
        build(Config(), root)
