"""How right predictions are: accuracy, recall of each class, and who is taken for whom.

In:  true and predicted class indices, one a clip.
Out: shares from 0 to 1, and counts.
"""

import numpy as np
from jaxtyping import Float, Int


def accuracy(targets: Int[np.ndarray, "clips"], predictions: Int[np.ndarray, "clips"]) -> float:
    """Share of the clips whose predicted class is the true one."""
    _check(targets, predictions)
    return float(np.mean(targets == predictions))


def confusion(
    targets: Int[np.ndarray, "clips"], predictions: Int[np.ndarray, "clips"], classes: int
) -> Int[np.ndarray, "true predicted"]:
    """Count the clips of each true class (row) by predicted class (column)."""
    _check(targets, predictions)
    pairs = np.asarray(targets) * classes + np.asarray(predictions)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def recalls(counts: Int[np.ndarray, "true predicted"]) -> Float[np.ndarray, "true"]:
    """Share of each class's clips that are recognised; NaN for a class without clips."""
    clips = counts.sum(axis=1)
    return np.divide(
        np.diag(counts), clips, out=np.full(len(counts), np.nan), where=clips > 0, dtype=float
    )


def _check(targets: np.ndarray, predictions: np.ndarray) -> None:
    if len(targets) != len(predictions) or not len(targets):
        raise ValueError(
            f"cannot score {len(predictions)} predictions against {len(targets)} targets; "
            f"give one prediction a clip, and one clip at least"
        )
