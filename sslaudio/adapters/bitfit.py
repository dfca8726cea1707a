"""BitFit: only the biases learn."""

from dataclasses import dataclass
from typing import Literal

from sslaudio.adapters.base import Adapter, check_rate, learn, norm_weights
from sslaudio.backbones.encoder import Encoder


@dataclass(frozen=True)
class Config:
    """What learns beside the biases of the maps and norms."""

    norm_gains: bool = False
    """Whether the gains of the layer norms learn too; the paper leaves them as they are."""
    rate: float = 10.0
    """Rate of what it adds as a multiple of ``training.learning_rate``, the head's and full
    fine-tuning's; chosen on ten words."""

    def __post_init__(self) -> None:
        check_rate(self.rate)


class BitFit:
    """Biases, wherever the embedding depends on them.

    Source: Ben Zaken et al. 2021 (arXiv:2106.10199), section 3.
    """

    trains: Literal["nothing", "head", "encoder"] = "encoder"
    merges = True

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, encoder: Encoder) -> None:
        """Let the biases learn."""
        named = encoder.backbone.named_parameters()
        biases = {weight for name, weight in named if name.split(".")[-1] == "bias"}
        gains = norm_weights(encoder) if self.config.norm_gains else set()
        learn(encoder, biases | gains)

    def merge(self, encoder: Encoder) -> None:
        """Its weights are plain."""

    def rate_share(self, name: str, encoder: Encoder) -> float:
        """Its own multiple."""
        return self.config.rate


def build(config: Config) -> Adapter:
    """The adapter."""
    return BitFit(config)
