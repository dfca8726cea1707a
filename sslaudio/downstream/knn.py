"""k nearest neighbours: what lies near what, with nothing to fit.

In:  embeddings and targets of training clips, and embeddings to tell about.
Out: scores; the number of neighbours is chosen on validation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sslaudio.downstream.metrics import Scores, Targets, kind_of, measured
from sslaudio.downstream.probe import CONSTANT, Part, first, joined

AT_ONCE = 1024
"""Clips whose similarities are laid out together."""


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
    """The chosen number."""
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

    Source: Wu et al. 2018 (Instance discrimination, arXiv:1805.01978), section 3.4; k 20 and
    temperature 0.07 as Caron et al. 2021 (DINO, arXiv:2104.14294; eval_knn.py). Neither
    standardises.
    """

    directions: Tensor
    truth: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(
        self, clips: int, dim: int, classes: int, neighbours: int, temperature: float
    ) -> None:
        super().__init__()
        self.neighbours, self.temperature = neighbours, temperature
        self.register_buffer("directions", torch.zeros(clips, dim, dtype=torch.float64))
        self.register_buffer("truth", torch.zeros(clips, classes, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("scale", torch.zeros(dim, dtype=torch.float64))
        self.one_class = True

    @classmethod
    def of(cls, train: Part, classes: int, neighbours: int, temperature: float) -> "NeighbourHead":
        """The head that these training clips make."""
        rows = train.embeddings.astype(np.float64)
        mean, deviation = rows.mean(axis=0), rows.std(axis=0)
        varies = deviation > CONSTANT * np.abs(mean)
        scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
        few = min(neighbours, len(rows))
        head = cls(len(rows), rows.shape[1], _columns(train.targets, classes), few, temperature)
        head.one_class = kind_of(train.targets) == "single"
        head.mean, head.scale = torch.from_numpy(mean), torch.from_numpy(scale)
        head.truth = torch.from_numpy(_laid(train.targets, classes))
        head.directions = head.directed(torch.from_numpy(rows))
        return head

    def directed(self, embeddings: Float[Tensor, "clips dim"]) -> Float[Tensor, "clips dim"]:
        """Standardised embeddings at length 1."""
        return nn.functional.normalize((embeddings.double() - self.mean) * self.scale, dim=1)

    def forward(self, embeddings: Float[Tensor, "clips dim"]) -> Float[Tensor, "clips classes"]:
        """What the neighbours say."""
        said = []
        for part in self.directed(embeddings).split(AT_ONCE):
            similarity, index = (part @ self.directions.T).topk(self.neighbours, dim=1)
            votes = (similarity / self.temperature).softmax(dim=1)
            said.append((votes[..., None] * self.truth[index]).sum(dim=1))
        shares = torch.cat(said)
        return shares.clamp(min=1e-12).log() if self.one_class else shares


def fit(
    train: Part, validation: Part, test: Part, classes: int, config: Config | None = None
) -> Neighbours:
    """Choose on validation how many vote, score once on test."""
    config = config or Config()
    scored = {}
    for count in sorted(set(config.neighbours)):
        head = NeighbourHead.of(train, classes, count, config.temperature)
        scores = told(head, validation.embeddings)
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


def _columns(targets: Targets, classes: int) -> int:
    return 1 if kind_of(targets) == "number" else classes


def _laid(targets: Targets, classes: int) -> Float[np.ndarray, "clips classes"]:
    """One column a class, 1 where the clip has it; or the number."""
    if kind_of(targets) == "single":
        return np.eye(classes)[targets]
    return targets.astype(np.float64).reshape(len(targets), -1)
