"""Logistic regression of many clips and classes: in chunks, on all threads or a GPU.

In:  embeddings, their standardisation, and what is true of each clip.
Out: the line of least cross-entropy and penalty, at one strength after another.

The loss is that of the small fits in ``probe.py``, and so is the line: it is convex.
"""

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

NUMBERS_AT_ONCE = 1 << 23
"""Embedded values, and scores, that are laid out together in float64: 64 MB."""
FLAT = 64 * np.finfo(np.float64).eps
"""Relative gain of a step at which rounding is all that is left; scikit-learn's."""


class Logistic:
    """The line, and the loss it goes down: each strength starts where the last one ended.

    Products are in float64 on a GPU if there is one, else on all threads that torch has.

    Args:
        embeddings: as they are; kept on the GPU where they fill no more than half of what is free.
        targets: integers from 0, of at least two kinds, or booleans ``[clips, classes]``.
        mean: taken from every embedding.
        scale: multiplies what is left.
    """

    def __init__(
        self,
        embeddings: Float[np.ndarray, "clips dim"],
        targets: Shaped[np.ndarray, "clips *classes"],
        mean: Float[np.ndarray, "dim"],
        scale: Float[np.ndarray, "dim"],
    ) -> None:
        self.one_class = targets.ndim == 1
        classes = int(targets.max()) + 1 if self.one_class else targets.shape[1]
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.rows, self.true = self._placed(embeddings), self._placed(targets)
        self.mean, self.scale = (torch.from_numpy(one).to(self.device) for one in (mean, scale))
        self.shape = (classes, embeddings.shape[1] + 1)
        self.line = np.zeros(self.shape)
        """A row a class: its weights, of standardised features, and its bias."""

    def slope(
        self, line: Float[np.ndarray, "classes dim+1"], strength: float
    ) -> tuple[float, Float[np.ndarray, "classes dim+1"]]:
        """The loss of a line, and where it rises."""
        own = torch.from_numpy(line).to(self.device)
        weights, bias = own[:, :-1], own[:, -1]
        cost, rise = own.new_zeros(()), torch.zeros_like(own)
        chunk = max(1, NUMBERS_AT_ONCE // max(self.shape))
        for few, true in zip(self.rows.split(chunk), self.true.split(chunk), strict=True):
            rows = (few.to(self.device).double() - self.mean) * self.scale
            said = torch.addmm(bias, rows, weights.T)
            lost, wrong = (_of_one if self.one_class else _of_each)(said, true.to(self.device))
            cost += lost
            rise[:, :-1] += wrong.T @ rows
            rise[:, -1] += wrong.sum(dim=0)
        cost, rise = cost / len(self.rows), rise / len(self.rows)
        rise[:, :-1] += strength * weights
        return (cost + strength / 2 * weights.square().sum()).item(), rise.cpu().numpy()

    def descend(self, strength: float, max_iterations: int, tolerance: float) -> bool:
        """Move the line to the least loss, by L-BFGS; tells whether it is there."""
        from scipy.optimize import minimize

        def slope(flat: np.ndarray) -> tuple[float, np.ndarray]:
            cost, rise = self.slope(flat.reshape(self.shape), strength)
            return cost, rise.ravel()

        options = {"maxiter": max_iterations, "maxls": 50, "gtol": tolerance, "ftol": FLAT}
        found = minimize(slope, self.line.ravel(), jac=True, method="L-BFGS-B", options=options)
        self.line = found.x.reshape(self.shape)
        return found.nit < max_iterations

    def _placed(self, values: np.ndarray) -> Tensor:
        if self.device.type == "cpu":
            return torch.from_numpy(values)
        free, _ = torch.cuda.mem_get_info()
        return torch.from_numpy(values).to(self.device if values.nbytes < free / 2 else "cpu")


def _of_one(
    said: Float[Tensor, "clips classes"], true: Tensor
) -> tuple[Tensor, Float[Tensor, "clips classes"]]:
    """Summed cross-entropy where a clip has one class, and its slope; ``said`` is spent."""
    true = true[:, None].long()
    total = said.logsumexp(dim=1, keepdim=True)
    lost = (total - said.gather(1, true)).sum()
    wrong = said.sub_(total).exp_()
    return lost, wrong.scatter_add_(1, true, -torch.ones_like(total))


def _of_each(
    said: Float[Tensor, "clips classes"], true: Tensor
) -> tuple[Tensor, Float[Tensor, "clips classes"]]:
    """Likewise where classes are told each by itself."""
    lost = -nn.functional.logsigmoid(torch.where(true, said, -said)).sum()
    return lost, said.sigmoid_().sub_(true.to(said.dtype))
