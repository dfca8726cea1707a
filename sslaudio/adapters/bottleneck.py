"""Bottleneck adapters: small layers after each attention and each MLP learn."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from sslaudio.adapters.base import Adapter, check_rate, learn, norm_weights
from sslaudio.backbones.encoder import Encoder
from sslaudio.backbones.linear import Linear


@dataclass(frozen=True)
class Config:
    """How wide the bottleneck is, and what learns with it."""

    dim: int = 16
    """Width that a token is squeezed to; the paper: 8 to 256, 64 for most tasks."""
    norms: bool = True
    """Whether the layer norms learn too, as in the paper."""
    rate: float = 3.0
    """Rate of what it adds as a multiple of ``training.learning_rate``, the head's and full
    fine-tuning's; chosen on ten words."""

    def __post_init__(self) -> None:
        check_rate(self.rate)
        if self.dim < 1:
            raise ValueError(f"adapter.dim is {self.dim}; it is at least 1 (usual: 8 to 64)")


class Squeeze(nn.Module):
    """What it is given, and something learned added to it."""

    def __init__(self, dim: int, within: int) -> None:
        super().__init__()
        self.down = Linear(dim, within)
        self.up = Linear(within, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Each token by itself."""
        return tokens + self.up(nn.functional.gelu(self.down(tokens)))


class Bottleneck:
    """A squeeze after the attention and one after the MLP, before each is added to its input.

    Source: Houlsby et al. 2019 (arXiv:1902.00751), section 2.1. The way up starts at 0 where theirs
    starts near it, so that the encoder starts as it was.
    """

    trains: Literal["nothing", "head", "encoder"] = "encoder"
    merges = False

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, encoder: Encoder) -> None:
        """Put the squeezes in; let them learn, and the norms where they are to."""
        added: set[nn.Parameter] = set()
        for block in encoder.blocks:
            place = block.mlp.fc1.weight
            block.after_attn = Squeeze(block.attn.proj.out_features, self.config.dim)
            block.after_mlp = Squeeze(block.mlp.fc2.out_features, self.config.dim)
            for squeeze in (block.after_attn, block.after_mlp):
                added.update(squeeze.to(place.device).parameters())
        learn(encoder, added | (norm_weights(encoder) if self.config.norms else set()))

    def merge(self, encoder: Encoder) -> None:
        """Refuse.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "the adapter bottleneck cannot be merged: it bends what it adds, which no plain weight "
            "does; keep its weights beside the base's, or adapt by lora, bitfit or full"
        )

    def rate_share(self, name: str, encoder: Encoder) -> float:
        """Its own multiple."""
        return self.config.rate


def build(config: Config) -> Adapter:
    """The adapter."""
    return Bottleneck(config)
