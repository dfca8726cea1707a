"""Full fine-tuning: every weight that the embedding depends on learns, early blocks more slowly."""

from dataclasses import dataclass
from typing import Literal

from sslaudio.adapters.base import Adapter
from sslaudio.backbones.encoder import Encoder


@dataclass(frozen=True)
class Config:
    """How fast the early blocks learn."""

    layer_decay: float = 0.75
    """Each block learns at this share of the next one's rate, the last at the full rate; 1 for all
    alike."""

    def __post_init__(self) -> None:
        if not 0 < self.layer_decay <= 1:
            raise ValueError(
                f"adapter.layer_decay is {self.layer_decay:g}; it is above 0 and at most 1"
            )


class Full:
    """All weights, at rates that fall from the last block to the patch embedding.

    Source: Clark et al. 2020 (ELECTRA, arXiv:2003.10555), section 3.1, as BEiT and MAE do.
    """

    trains: Literal["nothing", "head", "encoder"] = "encoder"
    merges = True

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, encoder: Encoder) -> None:
        """Let every weight learn that an embedding depends on."""
        encoder.requires_grad_(False)
        for _, parameter in encoder.embedding_weights():
            parameter.requires_grad_(True)

    def merge(self, encoder: Encoder) -> None:
        """Its weights are plain."""

    def rate_share(self, name: str, encoder: Encoder) -> float:
        """1 for the last block in use and what follows it, less for each block before."""
        words = name.split(".")
        if "blocks" in words:
            depth = int(words[words.index("blocks") + 1]) + 1
        else:
            depth = encoder.depth if words[1] == "norm" else 0
        return float(self.config.layer_decay ** (encoder.depth - depth))


def build(config: Config) -> Adapter:
    """The adapter."""
    return Full(config)
