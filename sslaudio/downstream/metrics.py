"""How right scores are: accuracy, average precision, area under the curve, share of variance.

In:  what is true of each clip, and what a model says of it.
Out: figures of which 1 is perfect, by the names they are published under.

Targets tell by their form what is asked: integers ``[clips]`` are one class each, booleans
``[clips, classes]`` any number of classes, floats ``[clips]`` a number.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from sslaudio.tasks.base import Kind

Targets = Shaped[np.ndarray, "clips *classes"]
Scores = Float[np.ndarray, "clips classes"]
"""One column a class; a number stands in a column of its own."""


def kind_of(targets: Targets) -> Kind:
    """What targets of this form ask."""
    if targets.ndim == 2:
        return "multi"
    return "single" if np.issubdtype(targets.dtype, np.integer) else "number"


def measured(targets: Targets, scores: Scores) -> dict[str, float]:
    """Every figure for targets of this kind; the first is the task's metric.

    ``accuracy``; or ``mAP`` (macro, over classes that some clip has), ``AUC`` (macro, over those
    that some have and some do not) and its ``d_prime``; or ``R2`` and the mean absolute error
    ``MAE``. A figure that these clips leave undefined is absent, but never the first.

    Raises:
        ValueError: no clip, other counts, or the first figure is undefined.
    """
    _check(targets, scores)
    kind = kind_of(targets)
    if kind == "single":
        return {"accuracy": accuracy(targets, scores.argmax(axis=1))}
    if kind == "multi":
        return _of_several(targets, scores)
    if len(targets) < 2:
        raise ValueError("R2 of one clip is undefined; test on two clips or more")
    from sklearn.metrics import mean_absolute_error, r2_score

    said = scores[:, 0]
    return {
        "R2": float(r2_score(targets, said)),
        "MAE": float(mean_absolute_error(targets, said)),
    }


def _of_several(targets: Bool[np.ndarray, "clips classes"], scores: Scores) -> dict[str, float]:
    precisions, areas = average_precisions(targets, scores), areas_under_curve(targets, scores)
    if np.isnan(precisions).all():
        raise ValueError(
            "mAP is undefined: no clip has any of the classes; test on clips that bear labels"
        )
    told = {"mAP": float(np.nanmean(precisions))}
    if not np.isnan(areas).all():
        told["AUC"] = float(np.nanmean(areas))
        if 0 < told["AUC"] < 1:
            told["d_prime"] = d_prime(told["AUC"])
    return told


def accuracy(targets: Int[np.ndarray, "clips"], predictions: Int[np.ndarray, "clips"]) -> float:
    """Share of the clips whose predicted class is the true one."""
    _check(targets, predictions)
    return float(np.mean(targets == predictions))


def average_precisions(
    targets: Bool[np.ndarray, "clips classes"], scores: Scores
) -> Float[np.ndarray, "classes"]:
    """Average precision of each class; NaN for one that no clip has."""
    from sklearn.metrics import average_precision_score

    return _by_class(targets, scores, average_precision_score, lambda true: bool(true.any()))


def areas_under_curve(
    targets: Bool[np.ndarray, "clips classes"], scores: Scores
) -> Float[np.ndarray, "classes"]:
    """Area under the ROC curve of each class; NaN for one that all clips have, or none."""
    from sklearn.metrics import roc_auc_score

    return _by_class(targets, scores, roc_auc_score, _varies)


def d_prime(area: float) -> float:
    """Distance of two unit normals whose ROC curve has that area; infinite for 1.

    Source: Hershey et al. 2017 (arXiv:1609.09430), section 4: sqrt(2) times the probit of the area.
    """
    from scipy.stats import norm

    return float(np.sqrt(2) * norm.ppf(area))


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


def _by_class(
    targets: Bool[np.ndarray, "clips classes"],
    scores: Scores,
    figure: Callable[[np.ndarray, np.ndarray], float],
    is_defined: Callable[[np.ndarray], bool],
) -> Float[np.ndarray, "classes"]:
    _check(targets, scores)
    columns = zip(targets.T, scores.T, strict=True)
    return np.array([figure(t, s) if is_defined(t) else np.nan for t, s in columns])


def _varies(true: np.ndarray) -> bool:
    return bool(true.any() and not true.all())


def _check(targets: np.ndarray, predictions: np.ndarray) -> None:
    if len(targets) != len(predictions) or not len(targets):
        raise ValueError(
            f"cannot score {len(predictions)} predictions against {len(targets)} targets; "
            f"give one prediction a clip, and one clip at least"
        )
