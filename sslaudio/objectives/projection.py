"""From a clip's pooled tokens to the embedding that is compared: one linear map, or several.

Batch norms count the clips of all processes, so that a batch means the same however many share it.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sslaudio import ranks


class BatchNorm(nn.Module):
    """Batch normalisation over the clips of all processes, in float32.

    Source: Ioffe & Szegedy 2015 (arXiv:1502.03167). torch's SyncBatchNorm does the same on GPUs
    alone.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, dim: int, affine: bool = True, pace: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.pace, self.eps = pace, eps
        self.weight = nn.Parameter(torch.ones(dim)) if affine else None
        self.bias = nn.Parameter(torch.zeros(dim)) if affine else None
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_variance", torch.ones(dim))

    def forward(self, values: Float[Tensor, "clips dim"]) -> Float[Tensor, "clips dim"]:
        """Standardise: over the batch in training, over what was seen in training else."""
        values = values.float()
        mean, variance = self.running_mean, self.running_variance
        if self.training:
            count = len(values) * ranks.count()
            mean = ranks.summed(values.sum(dim=0)) / count
            variance = ranks.summed((values - mean).square().sum(dim=0)) / count
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.pace)
                self.running_variance.lerp_(variance, self.pace)
        values = (values - mean) * (variance + self.eps).rsqrt()
        if self.weight is not None and self.bias is not None:
            values = values * self.weight + self.bias
        return values


def linear_head(dim: int, out: int, normed: bool) -> nn.Sequential:
    """One linear map (SS-MAST, arXiv:2211.01515, section 2), of standardised features if wanted."""
    parts: list[nn.Module] = [BatchNorm(dim, affine=False)] if normed else []
    return nn.Sequential(*parts, nn.Linear(dim, out))


def mlp(dims: list[int], last_normed: bool) -> nn.Sequential:
    """Linear maps with batch norm and ReLU between; the last may be normed, without scale.

    Source: Chen et al. 2021 (MoCo v3, arXiv:2104.02057), section 4: the projector has three maps
    and the predictor two.
    """
    parts: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(dims)):
        last = number == len(dims) - 2
        parts.append(nn.Linear(before, after, bias=False))
        if not last:
            parts += [BatchNorm(after), nn.ReLU()]
        elif last_normed:
            parts.append(BatchNorm(after, affine=False))
    return nn.Sequential(*parts)
