"""k nearest neighbours: what lies near what, with nothing to fit.

In:  embeddings and targets of training clips, and embeddings to tell about.
Out: scores; the number of neighbours is chosen on validation.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sslaudio.downstream.metrics import Scores, kind_of, measured
from sslaudio.downstream.probe import CONSTANT, Part, first, joined, moments
from sslaudio.tasks.base import Kind

AT_ONCE = 1024
"""Clips whose similarities are laid out together."""
TRAINED_AT_ONCE = 1 << 15
"""Training clips they are laid out to: 128 MB."""


@dataclass(frozen=True)
class Config:
    """How neighbours vote."""

    neighbours: tuple[int, ...] = (5, 10, 20, 50)
    """How many training clips vote; of several, validation chooses. More than there are: all."""
    temperature: float = 0.07
    """Of a vote exp(similarity / temperature): Wu et al.'s, and DINO's."""
    refit: bool = True
    """Whether validation clips are neighbours of test clips too."""

    def __post_init__(self) -> None:
        if not self.neighbours or min(self.neighbours) < 1:
            raise ValueError(
                f"knn.neighbours is {list(self.neighbours)}; give one number or more, each at "
                f"least 1 (20 is usual)"
            )
        if self.temperature <= 0:
            raise ValueError(
                f"knn.temperature is {self.temperature:g}; it is above 0 (0.07 is usual)"
            )


@dataclass(frozen=True)
class Neighbours:
    """What the neighbours say."""

    validation: float
    """Score of the chosen number on validation."""
    test: float
    """Score on test."""
    neighbours: int
    """The chosen number, never above that of the training clips."""
    validation_scores: Scores
    test_scores: Scores
    head: "NeighbourHead"
    """Tells about other embeddings."""


class NeighbourHead(nn.Module):
    """The training clips themselves: what is near votes for what is true of it, by cosine.

    A neighbour's vote is exp(similarity / temperature). The scores of classes are the logarithms of
    their shares of the votes where a clip has one class, the shares where it has several; a
    number is the mean by votes.

    Features are standardised on train first, as for our linear probe: embeddings of an untrained
    or masked-patch transformer share a large part (mean cosine 0.7 to 0.9), beside which all
    neighbours are nearly as near and vote alike. Measured on 500 training clips and validation
    of FSDD, AST and MAST micro, untrained and trained: 4 to 15 points above cosine alone, 0 to 5
    above centring; on Speech Commands the three are within the noise of 395 clips.

    Args:
        clips: training clips.
        dim: features of each.
        classes: columns of scores.
        neighbours: how many vote.
        temperature: of votes.
        form: how ``truth`` is kept: a class, whether it has each class, or columns of numbers.
            Heads from before this was told keep numbers, of whatever ``one_class`` says.

    Source: Wu et al. 2018 (Instance discrimination, arXiv:1805.01978), section 3.4; k 20 and
    temperature 0.07 as Caron et al. 2021 (DINO, arXiv:2104.14294; eval_knn.py). Neither
    standardises.
    """

    directions: Tensor
    truth: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        clips: int,
        dim: int,
        classes: int,
        neighbours: int,
        temperature: float,
        form: Kind = "single",
    ) -> None:
        super().__init__()
        self.neighbours, self.temperature, self.form = neighbours, temperature, form
        self.classes = classes
        self.one_class = form == "single"
        self.register_buffer("directions", torch.zeros(clips, dim))
        self.register_buffer("truth", _laid(form, clips, classes))
        self.register_buffer("mean", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("scale", torch.zeros(dim, dtype=torch.float64))

    @classmethod
    def of(cls, train: Part, classes: int, neighbours: int, temperature: float) -> "NeighbourHead":
        """The head that these training clips make."""
        count, dim = train.embeddings.shape
        mean, deviation = moments(train.embeddings)
        varies = deviation > CONSTANT * np.abs(mean)
        scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
        form = kind_of(train.targets)
        columns = 1 if form == "number" else classes
        head = cls(count, dim, columns, min(neighbours, count), temperature, form)
        head.mean, head.scale = torch.from_numpy(mean), torch.from_numpy(scale)
        head.truth.copy_(torch.from_numpy(train.targets).reshape(head.truth.shape))
        for part, rows in _side_by_side(head.directions, torch.from_numpy(train.embeddings)):
            part.copy_(head.directed(rows))
        return head

    def directed(self, embeddings: Float[Tensor, "clips dim"]) -> Float[Tensor, "clips dim"]:
        """Standardised embeddings at length 1."""
        standard = (embeddings.double() - self.mean) * self.scale
        return nn.functional.normalize(standard, dim=1).float()

    def forward(self, embeddings: Float[Tensor, "clips dim"]) -> Float[Tensor, "clips classes"]:
        """What the neighbours say."""
        return self.said(*self.near(embeddings))

    def near(
        self, embeddings: Float[Tensor, "clips dim"]
    ) -> tuple[Float[Tensor, "clips neighbours"], Int[Tensor, "clips neighbours"]]:
        """Similarities of the neighbours, nearest first, and which training clips they are."""
        found = [self._nearest(self.directed(part)) for part in embeddings.split(AT_ONCE)]
        similarity, index = zip(*found, strict=True)
        return torch.cat(similarity), torch.cat(index)

    def _nearest(self, asked: Float[Tensor, "clips dim"]) -> tuple[Tensor, Tensor]:
        best, index = asked.new_zeros(len(asked), 0), torch.zeros(0)
        for place, part in enumerate(self.directions.split(TRAINED_AT_ONCE)):
            fresh, where = (asked @ part.T).topk(min(self.neighbours, len(part)), dim=1)
            where = where + place * TRAINED_AT_ONCE
            if place:
                fresh = torch.cat([best, fresh], dim=1)
                fresh, order = fresh.topk(min(self.neighbours, fresh.shape[1]), dim=1)
                where = torch.cat([index, where], dim=1).gather(1, order)
            best, index = fresh, where
        return best, index

    def said(
        self,
        similarity: Float[Tensor, "clips neighbours"],
        index: Int[Tensor, "clips neighbours"],
    ) -> Float[Tensor, "clips classes"]:
        """What so many neighbours say."""
        votes = (similarity.double() / self.temperature).softmax(dim=1)
        shares = votes.new_zeros(len(votes), self.classes)
        for vote, which in zip(votes.T, index.T, strict=True):  # all at once would not fit
            if self.truth.ndim == 1:
                shares.scatter_add_(1, self.truth[which][:, None], vote[:, None])
            else:
                shares += vote[:, None] * self.truth[which]
        return shares.clamp(min=1e-12).log() if self.one_class else shares


def fit(
    train: Part, validation: Part, test: Part, classes: int, config: Config | None = None
) -> Neighbours:
    """Choose on validation how many vote, score once on test."""
    config = config or Config()
    counts = sorted({min(count, len(train.targets)) for count in config.neighbours})
    head = NeighbourHead.of(train, classes, counts[-1], config.temperature)
    scored = {}
    with torch.inference_mode():
        similarity, index = head.near(torch.from_numpy(validation.embeddings))
        for count in counts:
            scores = head.said(similarity[:, :count], index[:, :count]).numpy()
            scored[count] = (first(measured(validation.targets, scores)), scores)
    best = max(scored, key=lambda count: (scored[count][0], count))
    heard = joined(train, validation) if config.refit else train
    head = NeighbourHead.of(heard, classes, best, config.temperature)
    scores = told(head, test.embeddings)
    return Neighbours(
        validation=scored[best][0],
        test=first(measured(test.targets, scores)),
        neighbours=best,
        validation_scores=scored[best][1],
        test_scores=scores,
        head=head,
    )


def told(head: NeighbourHead, embeddings: Float[np.ndarray, "clips dim"]) -> Scores:
    """What a head says of embeddings."""
    with torch.inference_mode():
        return head(torch.from_numpy(embeddings)).numpy()


def _laid(form: Kind, clips: int, classes: int) -> Tensor:
    """Room for the class of each clip; or for whether it has each class; or for its number."""
    if form == "single":
        return torch.zeros(clips, dtype=torch.int64)
    return torch.zeros(clips, classes, dtype=torch.bool if form == "multi" else torch.float64)


def _side_by_side(one: Tensor, other: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(one.split(AT_ONCE), other.split(AT_ONCE), strict=True)
