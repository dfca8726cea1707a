"""A true linear probe: what a line through frozen embeddings can tell apart.

In:  embeddings and class indices of train, validation and test clips.
Out: scores, predictions, and a linear head with the standardisation folded in.

The encoder is long gone when this runs: no gradient, no training mode, no statistics of
test clips can reach it.
"""

import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import nn

from sslaudio.downstream.metrics import accuracy
from sslaudio.tasks.base import Example

if TYPE_CHECKING:  # takes a second to import, which a run that fits no line need not wait for
    from sklearn.linear_model import LogisticRegression

CONSTANT = 1e-6
"""A feature whose deviation is below this share of its mean is float32 rounding, not a feature."""
NEVER = -1e4
"""Bias of a class without training clips: it is never predicted, and its loss stays finite."""


@dataclass(frozen=True)
class Config:
    """How the line is fitted.

    Multinomial logistic regression with an L2 penalty on the weights (not the bias), by
    L-BFGS in float64 on features standardised on train. Convex: no seed, no learning rate.
    """

    strengths: tuple[float, ...] = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)
    """Penalties to try: the loss is mean cross-entropy + strength / 2 * sum of squared weights."""
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
    targets: Int[np.ndarray, "clips"]
    """Index of each clip's class."""
    speakers: tuple[str | None, ...] = ()
    """Who speaks in each clip; None, or nothing at all, where the corpus does not tell."""

    def only(self, kept: Bool[np.ndarray, "clips"]) -> "Part":
        """The clips that are ``kept``."""
        speakers = tuple(itertools.compress(self.speakers, kept))
        return Part(self.embeddings[kept], self.targets[kept], speakers)


def part_of(embeddings: Float[np.ndarray, "clips dim"], examples: Sequence[Example]) -> Part:
    """The part that these examples make with their embeddings."""
    return Part(
        embeddings,
        np.array([example.target for example in examples]),
        tuple(example.speaker for example in examples),
    )


@dataclass(frozen=True)
class ProbeResult:
    """The best line on validation, and its score on test."""

    validation: float
    """Accuracy on validation of lines fitted on train alone, from 0 to 1."""
    test: float
    """Accuracy on test, from 0 to 1."""
    strength: float
    """The penalty chosen on validation."""
    validation_predictions: Int[np.ndarray, "clips"]
    """Predicted class of each validation clip, by a line fitted on train alone."""
    test_predictions: Int[np.ndarray, "clips"]
    """Predicted class of each test clip."""
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

    def logits(self, part: Part) -> np.ndarray:
        return part.embeddings.astype(np.float64) @ self.weights.T + self.bias


def fit(
    train: Part, validation: Part, test: Part, classes: int, config: Config | None = None
) -> ProbeResult:
    """Fit on train, choose the strength on validation, score once on test.

    Validation is to ask what test asks. Where test leaves speakers out whom train holds, but
    validation does not, each validation clip is judged by a line from the other speakers' training
    clips: judged by lines that know its speaker, nearly every strength is right, and the weakest,
    which learns the speakers by heart, would win.

    Cross-entropy chooses, not accuracy: accuracy on a hundred clips is a matter of a few of them
    and nearly flat over strengths. The line that is scored on test is fitted on train and
    validation at the chosen strength (``config.refit``): where a whole fold
    validates, as in ESC-50, a third of the clips would else be lost. Test clips reach nothing.

    Args:
        train: at least two classes among its targets.
        validation: chooses the strength.
        test: is scored.
        classes: how many the task has; some may be absent from train.
        config: the grid; its defaults where None.
    """
    from threadpoolctl import threadpool_limits

    for name, part in (("train", train), ("validation", validation), ("test", test)):
        _check(name, part, classes)
    if len(np.unique(train.targets)) < 2:
        raise ValueError(
            "the training clips are all of one class: there is no line to draw; give a task or "
            "fold with training clips of two classes or more"
        )
    config = config or Config()
    with threadpool_limits(1):  # the products are small: more threads only wait for each other
        strength, judged = _choose(train, validation, test, classes, config)
        (final,) = _path(
            _joined(train, validation) if config.refit else train, classes, config, (strength,)
        )
    predictions = final.logits(test).argmax(axis=1)
    return ProbeResult(
        validation=accuracy(validation.targets, judged),
        test=accuracy(test.targets, predictions),
        strength=strength,
        validation_predictions=judged,
        test_predictions=predictions,
        weights=final.weights,
        bias=final.bias,
        converged=final.converged,
    )


def _rounds(
    train: Part, validation: Part, test: Part
) -> Iterator[tuple[Part, Bool[np.ndarray, "clips"]]]:
    """Training clips, and which validation clips the line fitted on them judges."""
    trained, judged, scored = (_speakers(part) for part in (train, validation, test))
    strangers = None not in trained and None not in scored and not set(trained) & set(scored)
    rest = np.ones(len(judged), dtype=bool)
    for name in sorted(set(trained) & set(judged)) if strangers else ():
        others = train.only(trained != name)
        if len(np.unique(others.targets)) > 1:
            rest &= judged != name
            yield others, judged == name
    if rest.any():
        yield train, rest


def _speakers(part: Part) -> np.ndarray:
    return np.array(part.speakers or [None] * len(part.targets), dtype=object)


def _choose(
    train: Part, validation: Part, test: Part, classes: int, config: Config
) -> tuple[float, Int[np.ndarray, "clips"]]:
    """The strength that validates best, and what it predicts there."""
    strengths = sorted(set(config.strengths), reverse=True)
    logits = np.zeros((len(strengths), len(validation.targets), classes))
    for heard, judged in _rounds(train, validation, test):
        for row, line in enumerate(_path(heard, classes, config, strengths)):
            logits[row, judged] = line.logits(validation.only(judged))
    targets = torch.from_numpy(validation.targets)
    losses = [nn.functional.cross_entropy(row, targets) for row in torch.from_numpy(logits)]
    best = int(np.argmin(losses))
    return strengths[best], logits[best].argmax(axis=1)


def _joined(one: Part, other: Part) -> Part:
    return Part(
        np.concatenate([one.embeddings, other.embeddings]),
        np.concatenate([one.targets, other.targets]),
        one.speakers + other.speakers,
    )


def _path(train: Part, classes: int, config: Config, strengths: Sequence[float]) -> Iterator[_Line]:
    """One line a strength, strongest first, each fit starting where the last one ended."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    embeddings = train.embeddings.astype(np.float64)
    mean, deviation = embeddings.mean(axis=0), embeddings.std(axis=0)
    varies = deviation > CONSTANT * np.abs(mean)
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
    embeddings = (embeddings - mean) * scale
    model = LogisticRegression(
        solver="lbfgs", max_iter=config.max_iterations, tol=config.tolerance, warm_start=True
    )
    for strength in sorted(set(strengths), reverse=True):
        # scikit-learn's C multiplies a summed cross-entropy, ours divides a mean one.
        model.C = 1.0 / (strength * len(embeddings))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(embeddings, train.targets)
        weights, bias = _all_classes(model, classes)
        weights = weights * scale
        finished = int(np.max(model.n_iter_)) < config.max_iterations
        yield _Line(weights, bias - weights @ mean, finished)


def _all_classes(model: "LogisticRegression", classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias with one row a class of the task, trained on or not."""
    rows, bias_rows = model.coef_, model.intercept_
    if len(rows) == 1:  # two classes: scikit-learn keeps the difference of the two rows
        rows, bias_rows = np.vstack([-rows, rows]) / 2, np.append(-bias_rows, bias_rows) / 2
    weights = np.zeros((classes, rows.shape[1]))
    bias = np.full(classes, NEVER)
    weights[model.classes_], bias[model.classes_] = rows, bias_rows
    return weights, bias


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
    if part.targets.min() < 0 or part.targets.max() >= classes:
        raise ValueError(
            f"{name}: targets run from {part.targets.min()} to {part.targets.max()}, but there "
            f"are {classes} classes; give the task's own class list"
        )
