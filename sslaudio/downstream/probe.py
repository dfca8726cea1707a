"""A true linear probe: what a line through frozen embeddings can tell.

In:  embeddings and targets of train, validation and test clips.
Out: scores, and a linear head with the standardisation folded in.

The encoder is long gone when this runs: no gradient, no training mode, no statistics of
test clips can reach it. Classes are told by logistic regression (one class a clip: multinomial;
several: each class by itself), numbers by least squares; both with an L2 penalty.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import nn

from sslaudio.downstream.logistic import Logistic
from sslaudio.downstream.metrics import Scores, Targets, kind_of, measured
from sslaudio.tasks.base import Example, Kind, Task

if TYPE_CHECKING:  # takes a second to import, which a run that fits no line need not wait for
    from sklearn.linear_model import LogisticRegression

CONSTANT = 1e-6
"""A feature whose deviation is below this share of its mean is float32 rounding, not a feature."""
NEVER = -1e4
"""Bias of a class without training clips: it is never predicted, and its loss stays finite."""
LARGE = 2e8
"""Training clips x features x classes from which on a fit goes in chunks, on all threads or a GPU:
on one thread, VoxCeleb1 would take scikit-learn hours."""
ROUNDS = 10
"""Lines a strength, at most, by which validation clips of known speakers are judged."""
ROWS_AT_ONCE = 1 << 14
"""Embeddings that are laid out together in float64, for their mean and deviation."""


@dataclass(frozen=True)
class Config:
    """How the line is fitted.

    Logistic regression with an L2 penalty on the weights (not the bias), by L-BFGS in float64
    on features standardised on train; ridge regression for a number. Convex: no seed, no rate.
    """

    strengths: tuple[float, ...] = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)
    """Penalties to try: the loss is a mean over clips (of the cross-entropy, summed over classes
    where a clip has several; of half the squared error) + strength / 2 * sum of squared weights."""
    refit: bool = True
    """Fit again on train and validation at the chosen strength; off scores the train-only line."""
    max_iterations: int = 1_000
    """Steps of L-BFGS a strength; each strength starts from the stronger one's weights."""
    tolerance: float = 1e-4
    """Largest slope of the loss at which a fit counts as finished."""

    def __post_init__(self) -> None:
        if not self.strengths or min(self.strengths) <= 0:
            raise ValueError(
                f"probe.strengths is {list(self.strengths)}, but the penalties to try must be "
                f"above 0 and one at least; leave it out for the usual ones"
            )
        if self.max_iterations < 1:
            raise ValueError(f"probe.max_iterations is {self.max_iterations}; set it to 1 or more")
        if not 0 < self.tolerance < math.inf:
            raise ValueError(
                f"probe.tolerance is {self.tolerance:g}; it is a slope above 0, 1e-4 or so"
            )


@dataclass(frozen=True)
class Part:
    """Embedded clips of one part of a fold."""

    embeddings: Float[np.ndarray, "clips dim"]
    """One row a clip."""
    targets: Targets
    """What is true of each clip; the form tells what is asked (``metrics.kind_of``)."""
    speakers: tuple[str | None, ...] = ()
    """Who speaks in each clip; None, or nothing at all, where the corpus does not tell."""

    def only(self, kept: Bool[np.ndarray, "clips"]) -> "Part":
        """The clips that are ``kept``."""
        speakers = tuple(itertools.compress(self.speakers, kept))
        return Part(self.embeddings[kept], self.targets[kept], speakers)


def part_of(
    task: Task, embeddings: Float[np.ndarray, "clips dim"], examples: Sequence[Example]
) -> Part:
    """The part that these examples of a task make with their embeddings."""
    speakers = tuple(example.speaker for example in examples)
    return Part(embeddings, task.targets(examples), speakers)


@dataclass(frozen=True)
class ProbeResult:
    """The best line on validation, and its score on test."""

    validation: float
    """Score on validation of lines fitted on train alone."""
    test: float
    """Score on test."""
    strength: float
    """The penalty chosen on validation."""
    validation_scores: Scores
    """What a line fitted on train alone says of each validation clip."""
    test_scores: Scores
    """What the line says of each test clip."""
    weights: Float[np.ndarray, "classes dim"]
    """For embeddings as they are: the standardisation is folded in."""
    bias: Float[np.ndarray, "classes"]
    """Likewise; :data:`NEVER` for a class without training clips."""
    converged: bool
    """Whether L-BFGS finished within ``max_iterations`` at the chosen strength."""

    def linear(self) -> nn.Linear:
        """The head as a float32 layer: embeddings ``[clips, dim]`` to ``[clips, classes]``."""
        classes, dim = self.weights.shape
        layer = nn.Linear(dim, classes)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(self.weights))
            layer.bias.copy_(torch.from_numpy(self.bias))
        return layer


@dataclass(frozen=True)
class _Line:
    weights: np.ndarray
    bias: np.ndarray
    converged: bool

    def scores(self, part: Part) -> np.ndarray:
        return part.embeddings.astype(np.float64) @ self.weights.T + self.bias


def fit(
    train: Part, validation: Part, test: Part, classes: int, config: Config | None = None
) -> ProbeResult:
    """Fit on train, choose the strength on validation, score once on test.

    Validation is to ask what test asks. Where test leaves speakers out whom train holds, but
    validation does not, each validation clip is judged by a line from the other speakers' training
    clips: judged by lines that know its speaker, nearly every strength is right, and the weakest,
    which learns the speakers by heart, would win.

    The loss chooses, not the metric: accuracy on a hundred clips is a matter of a few of them
    and nearly flat over strengths. The line that is scored on test is fitted on train and
    validation at the chosen strength (``config.refit``): where a whole fold
    validates, as in ESC-50, a third of the clips would else be lost. Test clips reach nothing.

    Args:
        train: at least two different targets.
        validation: chooses the strength.
        test: is scored.
        classes: how many the task has; some may be absent from train. 1 for a number.
        config: the grid; its defaults where None.
    """
    from threadpoolctl import threadpool_limits

    for name, part in (("train", train), ("validation", validation), ("test", test)):
        _check(name, part, classes)
    if not _varied(train.targets):
        raise ValueError(
            "the training clips are all of one class: there is no line to draw; give a task or "
            "fold with training clips of two classes or more"
        )
    config = config or Config()
    path = _path_in_chunks if _is_large(train, classes) else _path
    # Where products are small more threads only wait for each other.
    with nullcontext() if path is _path_in_chunks else threadpool_limits(1):
        strength, judged = _choose(train, validation, test, classes, config, path)
        heard = joined(train, validation) if config.refit else train
        (final,) = path(heard, classes, config, (strength,))
    said = final.scores(test)
    return ProbeResult(
        validation=first(measured(validation.targets, judged)),
        test=first(measured(test.targets, said)),
        strength=strength,
        validation_scores=judged,
        test_scores=said,
        weights=final.weights,
        bias=final.bias,
        converged=final.converged,
    )


def first(figures: dict[str, float]) -> float:
    """The task's metric among the figures of :func:`sslaudio.downstream.metrics.measured`."""
    return next(iter(figures.values()))


def joined(one: Part, other: Part) -> Part:
    """The clips of both."""
    return Part(
        np.concatenate([one.embeddings, other.embeddings]),
        np.concatenate([one.targets, other.targets]),
        one.speakers + other.speakers,
    )


def loss(targets: Targets, scores: Scores) -> float:
    """What a fit minimises beside its penalty, on these clips."""
    said = torch.from_numpy(scores)
    if kind_of(targets) == "single":
        return nn.functional.cross_entropy(said, torch.from_numpy(targets)).item()
    true = torch.from_numpy(targets.astype(np.float64))
    if kind_of(targets) == "number":
        return 0.5 * nn.functional.mse_loss(said[:, 0], true).item()
    each = nn.functional.binary_cross_entropy_with_logits(said, true, reduction="none")
    return each.sum(dim=1).mean().item()


def _rounds(
    train: Part, validation: Part, test: Part
) -> Iterator[tuple[Part, Bool[np.ndarray, "clips"]]]:
    """Training clips, and which validation clips the line fitted on them judges.

    Of more than :data:`ROUNDS` shared speakers, several are left out together.
    """
    trained, judged, scored = (_speakers(part) for part in (train, validation, test))
    strangers = None not in trained and None not in scored and not set(trained) & set(scored)
    rest = np.ones(len(judged), dtype=bool)
    shared = sorted(set(trained) & set(judged)) if strangers else []
    for place in range(min(ROUNDS, len(shared))):
        names = set(shared[place::ROUNDS])
        others = train.only(np.array([name not in names for name in trained]))
        if _varied(others.targets):
            asked = np.array([name in names for name in judged])
            rest &= ~asked
            yield others, asked
    if rest.any():
        yield train, rest


def _varied(targets: Targets) -> bool:
    return bool((targets != targets[:1]).any())


def _speakers(part: Part) -> np.ndarray:
    return np.array(part.speakers or [None] * len(part.targets), dtype=object)


def _choose(
    train: Part, validation: Part, test: Part, classes: int, config: Config, path: "Lines"
) -> tuple[float, Scores]:
    """The strength that validates best, and what it says there."""
    strengths = sorted(set(config.strengths), reverse=True)
    said = np.zeros((len(strengths), len(validation.targets), classes))
    for heard, judged in _rounds(train, validation, test):
        for row, line in enumerate(path(heard, classes, config, strengths)):
            said[row, judged] = line.scores(validation.only(judged))
    best = int(np.argmin([loss(validation.targets, scores) for scores in said]))
    return strengths[best], said[best]


def _path(train: Part, classes: int, config: Config, strengths: Sequence[float]) -> Iterator[_Line]:
    """One line a strength, strongest first, each fit starting where the last one ended."""
    embeddings = train.embeddings.astype(np.float64)
    mean, deviation = embeddings.mean(axis=0), embeddings.std(axis=0)
    varies = deviation > CONSTANT * np.abs(mean)
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
    standard = Part((embeddings - mean) * scale, train.targets)
    fits = FITS[kind_of(train.targets)](standard, classes, config)
    for strength in sorted(set(strengths), reverse=True):
        line = fits(strength)
        weights = line.weights * scale
        yield _Line(weights, line.bias - weights @ mean, line.converged)


Lines = Callable[[Part, int, Config, Sequence[float]], Iterator[_Line]]
"""Gives one line a strength, strongest first."""


def _is_large(train: Part, classes: int) -> bool:
    known = kind_of(train.targets) != "number"
    return known and train.embeddings.size * classes >= LARGE


def moments(
    embeddings: Float[np.ndarray, "clips dim"],
) -> tuple[Float[np.ndarray, "dim"], Float[np.ndarray, "dim"]]:
    """Mean and deviation of each feature, summed in float64, a chunk of clips at a time."""
    count, dim = embeddings.shape
    places = range(0, count, ROWS_AT_ONCE)
    mean, squares = np.zeros(dim), np.zeros(dim)
    for place in places:
        mean += embeddings[place : place + ROWS_AT_ONCE].sum(axis=0, dtype=np.float64)
    mean /= count
    for place in places:
        squares += np.square(embeddings[place : place + ROWS_AT_ONCE] - mean).sum(axis=0)
    return mean, np.sqrt(squares / count)


def _path_in_chunks(
    train: Part, classes: int, config: Config, strengths: Sequence[float]
) -> Iterator[_Line]:
    """The lines of :func:`_path` for many clips and classes."""
    mean, deviation = moments(train.embeddings)
    varies = deviation > CONSTANT * np.abs(mean)
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
    if kind_of(train.targets) == "single":
        known, targets = np.unique(train.targets, return_inverse=True)
    else:
        known = np.flatnonzero(train.targets.any(axis=0))
        targets = train.targets[:, known]
    fits = Logistic(train.embeddings, targets, mean, scale)
    # Of two classes scikit-learn penalises the difference of the rows, twice what both have.
    share = 2.0 if fits.one_class and len(known) == 2 else 1.0
    for strength in sorted(set(strengths), reverse=True):
        converged = fits.descend(share * strength, config.max_iterations, config.tolerance)
        weights, bias = np.zeros((classes, len(mean))), np.full(classes, NEVER)
        weights[known] = fits.line[:, :-1] * scale
        bias[known] = fits.line[:, -1] - weights[known] @ mean
        yield _Line(weights, bias, converged)


Fit = Callable[[float], _Line]
"""Fits at a strength, starting where the last one ended."""


def _one_class(train: Part, classes: int, config: Config) -> Fit:
    """Multinomial logistic regression."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        solver="lbfgs", max_iter=config.max_iterations, tol=config.tolerance, warm_start=True
    )

    def fit(strength: float) -> _Line:
        # scikit-learn's C multiplies a summed cross-entropy, ours divides a mean one.
        model.C = 1.0 / (strength * len(train.embeddings))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(train.embeddings, train.targets)
        finished = int(np.max(model.n_iter_)) < config.max_iterations
        return _Line(*_all_classes(model, classes), finished)

    return fit


def _all_classes(model: "LogisticRegression", classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias with one row a class of the task, trained on or not."""
    rows, bias_rows = model.coef_, model.intercept_
    if len(rows) == 1:  # two classes: scikit-learn keeps the difference of the two rows
        rows, bias_rows = np.vstack([-rows, rows]) / 2, np.append(-bias_rows, bias_rows) / 2
    weights = np.zeros((classes, rows.shape[1]))
    bias = np.full(classes, NEVER)
    weights[model.classes_], bias[model.classes_] = rows, bias_rows
    return weights, bias


def _several_classes(train: Part, classes: int, config: Config) -> Fit:
    """Logistic regression of every class by itself, all at once: the loss is their sum."""
    from scipy.optimize import minimize
    from scipy.special import expit

    known = train.targets.any(axis=0)
    true, rows = train.targets[:, known].astype(np.float64), train.embeddings
    shape = (int(known.sum()), rows.shape[1] + 1)
    last = np.zeros(shape).ravel()

    def fit(strength: float) -> _Line:
        nonlocal last

        def slope(flat: np.ndarray) -> tuple[float, np.ndarray]:
            line = flat.reshape(shape)
            said = rows @ line[:, :-1].T + line[:, -1]
            wrong = (expit(said) - true) / len(rows)
            cost = (np.logaddexp(0, said) - true * said).sum() / len(rows)
            weights = line[:, :-1]
            down = np.column_stack([wrong.T @ rows + strength * weights, wrong.sum(axis=0)])
            return cost + strength / 2 * np.square(weights).sum(), down.ravel()

        options = {"maxiter": config.max_iterations, "gtol": config.tolerance, "ftol": 0.0}
        found = minimize(slope, last, jac=True, method="L-BFGS-B", options=options)
        last = found.x
        weights, bias = np.zeros((classes, shape[1] - 1)), np.full(classes, NEVER)
        weights[known], bias[known] = last.reshape(shape)[:, :-1], last.reshape(shape)[:, -1]
        return _Line(weights, bias, found.nit < config.max_iterations)

    return fit


def _number(train: Part, classes: int, config: Config) -> Fit:
    """Ridge regression."""
    from sklearn.linear_model import Ridge

    def fit(strength: float) -> _Line:
        # scikit-learn sums the squared errors, ours is half their mean.
        model = Ridge(alpha=strength * len(train.embeddings)).fit(train.embeddings, train.targets)
        return _Line(model.coef_[None], np.array([model.intercept_]), True)

    return fit


FITS: dict[Kind, Callable[[Part, int, Config], Fit]] = {
    "single": _one_class,
    "multi": _several_classes,
    "number": _number,
}


def _check(name: str, part: Part, classes: int) -> None:
    if part.embeddings.ndim != 2 or len(part.embeddings) != len(part.targets):
        raise ValueError(
            f"{name}: embeddings of shape {part.embeddings.shape} do not fit {len(part.targets)} "
            f"targets; give one row of [clips, dim] a target"
        )
    if not len(part.targets):
        raise ValueError(f"{name} holds no clip; give a fold with clips in every part")
    broken = np.flatnonzero(~np.isfinite(part.embeddings).all(axis=1))
    if len(broken):
        raise ValueError(
            f"{name}: {len(broken)} of {len(part.targets)} embeddings are not finite, the first "
            f"at row {broken[0]}; the checkpoint is broken or its precision too low: use another"
        )
    if kind_of(part.targets) != "single":
        return
    if part.targets.min() < 0 or part.targets.max() >= classes:
        raise ValueError(
            f"{name}: targets run from {part.targets.min()} to {part.targets.max()}, but there "
            f"are {classes} classes; give the task's own class list"
        )
