"""Learned prompts: further keys and values that a block's queries look at, behind a gate.

The attention they are put into projects them by its own map; they have no place on the grid, so
nothing is pooled and no bias of place is added.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sslaudio.backbones.attention import attend


class Prompts(nn.Module):
    """What queries find in learned tokens, by a softmax of its own, scaled by a gate a head.

    Source: Zhang et al. 2023 (LLaMA-Adapter, arXiv:2303.16199), section 3.2. The gate starts at 0:
    at first nothing is added, and the gate alone gets a gradient.
    """

    def __init__(self, count: int, dim: int, heads: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(1, count, dim))
        self.gate = nn.Parameter(torch.zeros(heads))

    def forward(
        self,
        query: Float[Tensor, "clips heads queries width"],
        key: Float[Tensor, "1 heads prompts width"],
        value: Float[Tensor, "1 heads prompts width"],
    ) -> Float[Tensor, "clips heads queries width"]:
        """What to add to that which the queries found among the clip's own tokens."""
        key, value = (part.expand(len(query), -1, -1, -1) for part in (key, value))
        found = attend(query, key, value)
        return found * self.gate.tanh().to(found.dtype)[:, None, None]
