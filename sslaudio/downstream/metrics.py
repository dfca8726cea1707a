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


Weighed = Callable[[Int[np.ndarray, "clips"]], float]
"""The first figure of clips that come so many times each; NaN where it is undefined."""


def weighed(targets: Targets, scores: Scores) -> Weighed:
    """The first figure of :func:`measured` for one sample of these clips after another.

    What all samples share, such as the order of clips by score, is worked out once.
    """
    _check(targets, scores)
    kind = kind_of(targets)
    if kind == "single":
        right = targets == scores.argmax(axis=1)
        return lambda times: float(times[right].sum() / times.sum())
    return _weighed_precision(targets, scores) if kind == "multi" else _weighed_r2(targets, scores)


def _weighed_precision(targets: Bool[np.ndarray, "clips classes"], scores: Scores) -> Weighed:
    """mAP. Of a class: the mean over its clips of the precision among all that score no lower.

    So does scikit-learn's ``average_precision_score``, which takes equal scores at once.
    """
    order = np.argsort(-scores, axis=0, kind="stable").astype(np.int32).T
    ranked = np.take_along_axis(scores.T, order, axis=1)
    true = np.take_along_axis(targets.T, order, axis=1)
    # Where the run of equal scores ends that each place is in.
    places = np.arange(order.shape[1], dtype=np.int32)
    last = np.pad(ranked[:, 1:] != ranked[:, :-1], ((0, 0), (0, 1)), constant_values=True)
    ends = np.minimum.accumulate(np.where(last, places, places[-1])[:, ::-1], axis=1)[:, ::-1]
    hits, ends = order[true], ends[true]  # class by class
    of, counts = np.nonzero(true)[0], true.sum(axis=1)
    starts = np.cumsum(counts) - counts
    hits_before_end = np.cumsum(true, axis=1)[of, ends] + starts[of]

    def figure(times: np.ndarray) -> float:
        above = np.cumsum(times.astype(np.int32)[order], axis=1, dtype=np.int32)[of, ends]
        times = times[hits]
        found = np.append(0, np.cumsum(times))
        right = found[hits_before_end] - found[starts[of]]
        precision = np.divide(right, above, out=np.zeros(len(above)), where=above > 0)
        sums = np.bincount(of, weights=precision * times, minlength=len(counts))
        totals = np.bincount(of, weights=times, minlength=len(counts))
        known = totals > 0
        return float((sums[known] / totals[known]).mean()) if known.any() else np.nan

    return figure


def _weighed_r2(targets: Float[np.ndarray, "clips"], scores: Scores) -> Weighed:
    missed = np.square(targets - scores[:, 0].astype(np.float64))

    def figure(times: np.ndarray) -> float:
        total = times.sum()
        if total < 2:
            return np.nan
        spread = float(times @ np.square(targets - times @ targets / total))
        lost = float(times @ missed)
        if spread > 0:
            return 1 - lost / spread
        return float(lost == 0)  # as scikit-learn has it

    return figure


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
