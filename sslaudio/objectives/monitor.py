"""Numbers that show a collapse: how many directions embeddings fill, how near they lie.

In:  embeddings, one row a clip; weights of a student and its teacher.
Out: scalars. What to do about them is decided in ``training/monitor.py``.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

UNIFORMITY_T = 2.0
"""Scale of the Gaussian potential: Wang & Isola's (section 4.2 and their code)."""


def effective_rank(embeddings: Float[Tensor, "clips dim"]) -> Float[Tensor, ""]:
    """How many directions the rows fill: exp of the entropy of the singular values' shares.

    From 1 (all rows along one line, or all 0) to the smaller of clips and dim (all equally long).
    The rows are taken as they are, so a mean they share counts as a direction of its own; free
    them of it (:func:`centred`) to ask what tells clips apart.

    Source: Roy & Vetterli 2007 (The effective rank, EUSIPCO); as a sign of collapse, uncentred,
    Garrido et al. 2023 (RankMe, arXiv:2210.02885), section 3.
    """
    values = torch.linalg.svdvals(embeddings.detach().float())
    shares = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    return torch.special.entr(shares).sum().exp()


def centred(embeddings: Float[Tensor, "clips dim"]) -> Float[Tensor, "clips dim"]:
    """The rows at unit length, less their mean."""
    unit = _unit(embeddings)
    return unit - unit.mean(dim=0)


def alignment(
    one: Float[Tensor, "clips dim"], other: Float[Tensor, "clips dim"]
) -> Float[Tensor, ""]:
    """Mean squared distance of two views of a clip at unit length: 0 equal, 2 unrelated, 4 opposed.

    Source: Wang & Isola 2020 (arXiv:2005.10242), section 4.1, with their exponent alpha = 2.
    """
    return (_unit(one) - _unit(other)).square().sum(dim=1).mean()


def uniformity(embeddings: Float[Tensor, "clips dim"]) -> Float[Tensor, ""]:
    """Log of the mean potential exp(-2 d^2) of all pairs of clips at unit length.

    0 where all are equal; spread evenly over a sphere of many dimensions it comes near -4, two
    opposite points give -8. 0 for a single clip.

    Source: Wang & Isola 2020 (arXiv:2005.10242), section 4.1.2, with t = 2 and the squared
    distance, over pairs of different clips as in their code.
    """
    if len(embeddings) < 2:
        return torch.zeros((), device=embeddings.device)
    squares = torch.pdist(_unit(embeddings)).square()
    return squares.mul(-UNIFORMITY_T).exp().mean().log()


def deviation(pairs: Iterable[tuple[Tensor, Tensor]]) -> Float[Tensor, ""]:
    """Distance of a teacher from its student, as a share of the student's length.

    Args:
        pairs: (student, teacher) of each weight, in any order.
    """
    distance, length = torch.zeros(()), torch.zeros(())
    for student, teacher in pairs:
        own = student.detach().float()
        distance = distance + (teacher.detach().float() - own).square().sum().cpu()
        length = length + own.square().sum().cpu()
    return (distance / length.clamp(min=torch.finfo(length.dtype).tiny)).sqrt()


def _unit(embeddings: Float[Tensor, "clips dim"]) -> Float[Tensor, "clips dim"]:
    return torch.nn.functional.normalize(embeddings.detach().float(), dim=1)
