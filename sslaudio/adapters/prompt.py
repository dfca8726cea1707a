"""Gated prompts: learned tokens that every block's queries look at as well."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from sslaudio.adapters.base import Adapter, check_rate, learn
from sslaudio.backbones.encoder import Encoder
from sslaudio.backbones.prompts import Prompts


@dataclass(frozen=True)
class Config:
    """How many prompts there are."""

    count: int = 10
    """Learned tokens of each block; the paper: 10."""
    rate: float = 10.0
    """Rate of what it adds as a multiple of ``training.learning_rate``, the head's and full
    fine-tuning's; chosen on ten words."""

    def __post_init__(self) -> None:
        check_rate(self.rate)
        if self.count < 1:
            raise ValueError(f"adapter.count is {self.count}; it is at least 1 (usual: 10)")


class Prompt:
    """Prompts in every block, where the paper has them in the upper ones.

    Source: Zhang et al. 2023 (LLaMA-Adapter, arXiv:2303.16199), sections 3.1 and 3.2.
    """

    trains: Literal["nothing", "head", "encoder"] = "encoder"
    merges = False

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, encoder: Encoder) -> None:
        """Put the prompts in and let them and their gates learn."""
        added: set[nn.Parameter] = set()
        for block in encoder.blocks:
            qkv = block.attn.qkv
            prompts = Prompts(self.config.count, qkv.in_features, block.attn.heads)
            block.attn.prompts = prompts.to(qkv.weight.device)
            added.update(block.attn.prompts.parameters())
        learn(encoder, added)

    def merge(self, encoder: Encoder) -> None:
        """Refuse.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "the adapter prompt cannot be merged: prompts are tokens, which no plain weight holds; "
            "keep its weights beside the base's, or adapt by lora, bitfit or full"
        )

    def rate_share(self, name: str, encoder: Encoder) -> float:
        """Its own multiple."""
        return self.config.rate


def build(config: Config) -> Adapter:
    """The adapter."""
    return Prompt(config)
