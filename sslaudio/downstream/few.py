"""Few labels: a fold of which only so many clips a class are known.

In:  a fold, how many labelled clips a class, a seed.
Out: the fold with fewer training and validation clips; test is whole.

Validation is limited too: who has five labels a class has no more to choose by.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from sslaudio.tasks.base import Example, Fold, Task, classes_of


def limited(task: Task, fold: Fold, labels: int | None, seed: int) -> Fold:
    """A fold with at most ``labels`` training and validation clips a class; None: all.

    More labels hold the fewer: with the same seed, those of 5 are among those of 20.

    Raises:
        ValueError: a number has no classes to count by.
    """
    if labels is None:
        return fold
    if task.kind == "number":
        raise ValueError(
            f"--labels counts clips a class, but task {task.name} tells a number; leave --labels "
            f"out for it"
        )
    validation = fold.test if task.legacy else _few(fold.validation, labels, seed)
    return replace(fold, train=_few(fold.train, labels, seed), validation=validation)


def _few(examples: Sequence[Example], labels: int, seed: int) -> tuple[Example, ...]:
    """In an order that seed and keys alone decide: clips of a class that has not enough yet."""
    ranked = sorted(examples, key=lambda one: hashlib.sha256(f"{seed} {one.key}".encode()).digest())
    taken: Counter[int] = Counter()
    chosen = set()
    for example in ranked:
        classes = classes_of(example.target)
        if any(taken[target] < labels for target in classes):
            taken.update(classes)
            chosen.add(example.key)
    return tuple(example for example in examples if example.key in chosen)
