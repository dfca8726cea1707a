"""Few labels: so many a class, the fewer among the more, test untouched."""

from pathlib import Path

import pytest

from sslaudio.downstream.few import limited
from sslaudio.tasks.base import Example, Fold, Task, classes_of


def part(name: str, targets) -> tuple[Example, ...]:
    return tuple(
        Example(f"{name}{place}", target, Path("x.wav")) for place, target in enumerate(targets)
    )


@pytest.fixture
def task() -> Task:
    targets = [place % 3 for place in range(30)]
    fold = Fold("one", *(part(name, targets) for name in ("a", "b", "c")))
    return Task("words", ("x", "y", "z"), 1.0, "by hand", (fold,))


def test_so_many_clips_of_every_class_train_and_validate(task):
    fold = limited(task, task.folds[0], 4, seed=0)

    assert [example.target for example in fold.train].count(2) == 4
    assert fold.clips() == {"train": 12, "validation": 12, "test": 30}
    assert limited(task, task.folds[0], None, seed=0) is task.folds[0]


def test_more_labels_hold_the_fewer_and_another_seed_others(task):
    def keys(labels, seed):
        return {example.key for example in limited(task, task.folds[0], labels, seed).train}

    assert keys(1, 0) < keys(5, 0) < keys(9, 0)
    assert keys(5, 0) == keys(5, 0) != keys(5, 1)


def test_a_clip_of_several_classes_counts_for_each():
    targets = [(0,), (0, 1), (1,), (0,), (1,), (0, 1)] * 3
    fold = Fold("one", *(part(name, targets) for name in ("a", "b", "c")))
    several = Task("sounds", ("x", "y"), 1.0, "by hand", (fold,), kind="multi")

    few = limited(several, fold, 2, seed=0)

    counts = [sum(place in classes_of(one.target) for one in few.train) for place in (0, 1)]
    assert all(2 <= count <= 4 for count in counts) and len(few.train) < 6


def test_a_number_has_no_labels_to_count():
    fold = Fold("one", *(part(name, [0.1, 0.2, 0.3]) for name in ("a", "b", "c")))
    number = Task("csv", (), 1.0, "by hand", (fold,), kind="number")

    with pytest.raises(ValueError, match="leave --labels out"):
        limited(number, fold, 2, seed=0)
