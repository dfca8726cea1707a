"""The mean of what several fine-tuned runs say of a task's test clips.

In:  runs whose classes are the task's; of a task with folds, each run's model of the fold.
Out: a record and its scores.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sslaudio import adaptation, models
from sslaudio.downstream import results
from sslaudio.downstream.classify import Classifier
from sslaudio.downstream.metrics import Scores, measured
from sslaudio.downstream.probe import first
from sslaudio.tasks.base import Fold, Task
from sslaudio.training import runs


def scored(members: Sequence[Path], task: Task, fold: Fold) -> tuple[results.Record, Scores]:
    """Score the mean of the members' shares on a fold's test part.

    Raises:
        ValueError: a member tells other classes, or was not trained on this fold.
    """
    began = time.perf_counter()
    classifiers = [member_of(run, task, fold) for run in members]
    validation, test = (_mean(classifiers, part) for part in (fold.validation, fold.test))
    figures = measured(task.targets(fold.test), test)
    record = results.record(
        task,
        fold,
        protocol=f"ensemble of {len(members)}",
        seed=0,
        validation=first(measured(task.targets(fold.validation), validation)),
        test=first(figures),
        checkpoint=Path(" + ".join(map(str, members))),
        trainable=0,
        seconds=time.perf_counter() - began,
        figures=figures,
    )
    return record, test


def member_of(run: Path, task: Task, fold: Fold) -> Classifier:
    """The classifier of a run for a fold.

    Raises:
        ValueError: its classes or its fold are others.
    """
    own = run / f"fold-{fold.name}"
    classifier = models.load_classifier(own if own.is_dir() else run)
    if classifier.classes != task.classes or classifier.kind != task.kind:
        raise ValueError(
            f"{run} tells {len(classifier.classes)} classes ({_few(classifier.classes)}), but "
            f"task {task.name} has {len(task.classes)} ({_few(task.classes)}); give runs that were "
            f"fine-tuned on this task and variant"
        )
    config = runs.read_config(own if own.is_dir() else run)
    if config.get("clips") != fold.fingerprint():
        raise ValueError(
            f"{run} was trained on other parts (its fold is {config.get('fold')}) and would be "
            f"tested on fold {fold.name}, whose clips it may have learned from; give runs that "
            f"were fine-tuned on these very folds, from the same clips with the same settings"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return classifier.to(device)


def _mean(classifiers: Sequence[Classifier], part: adaptation.Examples) -> Scores:
    shares = [
        one.shares(torch.from_numpy(adaptation.embedded(one, part))).numpy() for one in classifiers
    ]
    return np.mean(shares, axis=0)


def _few(classes: Sequence[str]) -> str:
    return ", ".join(classes[:3]) + (", …" if len(classes) > 3 else "")
