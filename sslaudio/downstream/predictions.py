"""What a model said of the test clips, one by one: ``predictions.npz``.

In:  a fold and the scores of its test clips.
Out: a file without pickle, for bootstraps, confusion and anyone's own questions.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sslaudio.downstream.metrics import Scores, Targets
from sslaudio.tasks.base import Fold, Task
from sslaudio.training.storage import replacing

DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
"""What numpy raises for a file that is cut short or altered."""


@dataclass(frozen=True)
class Predictions:
    """Scores of test clips, and what they are to be held against."""

    keys: tuple[str, ...]
    """One a clip."""
    targets: Targets
    scores: Scores
    speakers: tuple[str, ...]
    """Who speaks in each clip; empty where the corpus does not tell."""
    recordings: tuple[str, ...]
    """The recording that each clip is from; empty likewise."""

    def groups(self, by: str) -> tuple[str, ...]:
        """The unit that each clip belongs to: its ``speaker`` or ``recording``, or itself."""
        named = {"speaker": self.speakers, "recording": self.recordings}.get(by, self.keys)
        return tuple(name or key for name, key in zip(named, self.keys, strict=True))


def of(task: Task, fold: Fold, scores: Scores) -> Predictions:
    """The predictions on a fold's test part."""
    return Predictions(
        tuple(example.key for example in fold.test),
        task.targets(fold.test),
        scores,
        tuple(example.speaker or "" for example in fold.test),
        tuple(example.recording or "" for example in fold.test),
    )


def write(path: Path, task: Task, fold: Fold, scores: Scores) -> None:
    """Write them, whole or not at all."""
    made = of(task, fold, scores)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez_compressed(
            file,
            keys=np.array(made.keys, np.str_),
            targets=made.targets,
            scores=made.scores.astype(np.float32),
            speakers=np.array(made.speakers, np.str_),
            recordings=np.array(made.recordings, np.str_),
            classes=np.array(task.classes, np.str_),
        )


def read(path: Path) -> Predictions:
    """Read what :func:`write` wrote.

    Raises:
        ValueError: the file is none.
    """
    try:
        with np.load(path, allow_pickle=False) as held:
            return Predictions(
                tuple(held["keys"].tolist()),
                held["targets"],
                held["scores"],
                tuple(held["speakers"].tolist()),
                tuple(held["recordings"].tolist()),
            )
    except (*DAMAGED, KeyError) as error:
        raise ValueError(
            f"{path} holds no predictions ({error}); remove it and evaluate again"
        ) from error
