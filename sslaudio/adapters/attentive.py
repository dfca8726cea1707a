"""Attentive probe: the encoder is frozen; a head learns which of a clip's tokens to look at."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sslaudio.adapters.base import Frozen, check_rate
from sslaudio.backbones.base import Tokens
from sslaudio.backbones.encoder import Encoder


@dataclass(frozen=True)
class Config:
    """How many ways there are to look at a clip."""

    heads: int = 4
    """Learned queries, each of which mixes a share of the dim; divides the dim."""

    rate: float = 5.0
    """Rate of the head as a multiple of ``training.learning_rate``: it starts from nothing. Chosen
    on ESC-10's fold 4."""

    def __post_init__(self) -> None:
        check_rate(self.rate)
        if self.heads < 1:
            raise ValueError(f"adapter.heads is {self.heads}; it is at least 1 (usual: 4)")


class AttentivePool(nn.Module):
    """One cross-attention over a clip's sounding patches, then a linear layer.

    Source: Chen et al. 2022 (CAE, arXiv:2202.03026), section 4; Bardes et al. 2024 (V-JEPA,
    arXiv:2404.08471), section 4. A map of the keys would only turn the learned query, a gain of the
    norm only scale the weights behind it, and so neither is here; nor is V-JEPA's MLP. Prefix
    tokens are left out.
    """

    def __init__(self, dim: int, heads: int, classes: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(
                f"adapter.heads is {heads}, which cannot share a dim of {dim}; set it to a divisor"
            )
        self.heads = heads
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.query = nn.Parameter(torch.empty(heads, dim))
        self.value = nn.Linear(dim, dim)
        self.head = nn.Linear(dim, classes)
        for weight in (self.query, self.value.weight, self.head.weight):
            nn.init.trunc_normal_(weight, std=0.02)
        for bias in (self.value.bias, self.head.bias):
            nn.init.zeros_(bias)

    def forward(self, tokens: Tokens) -> Float[Tensor, "clips classes"]:
        """Class scores; padding is not looked at."""
        return self.head(self.pool(tokens))

    def pool(self, tokens: Tokens) -> Float[Tensor, "clips dim"]:
        """What the queries found, head by head."""
        patches = self.norm(tokens.patches.float())
        scores = torch.einsum("cpd,hd->chp", patches, self.query) * patches.shape[2] ** -0.5
        shares = scores.masked_fill(~tokens.sound[:, None], -torch.inf).softmax(dim=2)
        # Mixed before mapped, which is the same and less; of each mix its own head's values.
        values = self.value(shares @ patches).unflatten(2, (self.heads, -1))
        return values.diagonal(dim1=1, dim2=2).transpose(1, 2).flatten(1)


class Attentive(Frozen):
    """A frozen encoder below a head that attends."""

    def __init__(self, config: Config) -> None:
        super().__init__("head")
        self.config = config

    def rate_share(self, name: str, encoder: Encoder) -> float:
        """Its own multiple, for the head's weights."""
        return self.config.rate

    def head(self, encoder: Encoder, classes: int) -> AttentivePool:
        """The head for an encoder's tokens, at its random start."""
        dim = encoder.backbone.width(encoder.pooled_block)
        return AttentivePool(dim, self.config.heads, classes)


def build(config: Config) -> Attentive:
    """The adapter; its ``head()`` makes the head."""
    return Attentive(config)
