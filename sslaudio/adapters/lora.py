"""LoRA: each map of a block gets a learned product of two thin matrices added; peft's one door."""

from dataclasses import dataclass
from typing import Literal

from sslaudio.adapters.base import Adapter, check_rate
from sslaudio.backbones.encoder import Encoder

MAPS = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
"""Name in the recipe to name in a block."""


@dataclass(frozen=True)
class Config:
    """Which maps are adapted, and by how much."""

    rank: int = 4
    """Width of the thin matrices; the paper: 1 to 8, 4 for most."""
    alpha: int = 8
    """What is added is scaled by ``alpha / rank``."""
    dropout: float = 0.0
    """Share of a map's inputs that the thin matrices do not see, in training."""
    targets: tuple[Literal["qkv", "proj", "fc1", "fc2"], ...] = ("qkv", "proj", "fc1", "fc2")
    """Maps of every block: queries, keys and values in one; attention's output; the MLP's two. The
    paper adapts queries and values alone; all maps: Dettmers et al. 2023 (QLoRA,
    arXiv:2305.14314), section 4."""
    rate: float = 3.0
    """Rate of what it adds as a multiple of ``training.learning_rate``, the head's and full
    fine-tuning's; chosen on ten words."""

    def __post_init__(self) -> None:
        check_rate(self.rate)
        if self.rank < 1:
            raise ValueError(f"adapter.rank is {self.rank}; it is at least 1 (usual: 4 or 8)")
        if self.alpha < 1:
            raise ValueError(f"adapter.alpha is {self.alpha}; it is at least 1 (usual: twice rank)")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"adapter.dropout is {self.dropout:g}; it is at least 0, under 1")
        if not self.targets:
            raise ValueError(f"adapter.targets is empty; choose one or more of {', '.join(MAPS)}")


class LoRA:
    """A weight W answers as W + alpha / rank · B·A; A starts at random, B at 0.

    Source: Hu et al. 2021 (arXiv:2106.09685), section 4.1.
    """

    trains: Literal["nothing", "head", "encoder"] = "encoder"
    merges = True

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, encoder: Encoder) -> None:
        """Wrap the maps of the blocks in use; only what wraps them learns."""
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer

        depths = "|".join(str(depth) for depth in range(encoder.depth))
        maps = "|".join(MAPS[target].replace(".", r"\.") for target in self.config.targets)
        settings = LoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            lora_dropout=self.config.dropout,
            target_modules=rf"blocks\.({depths})\.({maps})",
        )
        encoder.requires_grad_(False)
        inject_adapter_in_model(settings, encoder.backbone)
        for part in encoder.backbone.modules():
            if isinstance(part, LoraLayer):  # autocast casts already; peft would there and back
                part.cast_input_dtype_enabled = False

    def merge(self, encoder: Encoder) -> None:
        """Add each product to its weight and unwrap the map.

        Raises:
            ValueError: no map is wrapped.
        """
        from peft.tuners.lora import LoraLayer

        wrapped = [
            (name, part)
            for name, part in encoder.backbone.named_modules()
            if isinstance(part, LoraLayer)
        ]
        if not wrapped:
            raise ValueError("the adapter lora has nothing to merge: the encoder was not adapted")
        for name, part in wrapped:
            part.merge(safe_merge=True)
            encoder.backbone.set_submodule(name, part.get_base_layer())
        del encoder.backbone.peft_config

    def rate_share(self, name: str, encoder: Encoder) -> float:
        """Its own multiple."""
        return self.config.rate


def build(config: Config) -> Adapter:
    """The adapter."""
    return LoRA(config)
