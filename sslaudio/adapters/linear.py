"""Linear probe: nothing in the encoder learns; a line is fitted on its embeddings."""

from dataclasses import dataclass

from sslaudio.adapters.base import Adapter
from sslaudio.backbones.encoder import Encoder


@dataclass(frozen=True)
class Config:
    """Nothing to set here; how the line is fitted is set by ``probe``."""


class Linear:
    """A frozen encoder."""

    learns = False

    def adapt(self, encoder: Encoder) -> None:
        """Freeze all."""
        encoder.requires_grad_(False)

    def rate_share(self, name: str, encoder: Encoder) -> float:
        """Nothing learns."""
        return 0.0


def build(config: Config) -> Adapter:
    """The adapter."""
    return Linear()
