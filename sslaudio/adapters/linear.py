"""Linear probe: nothing in the encoder learns; a line is fitted on its embeddings."""

from dataclasses import dataclass

from sslaudio.adapters.base import Adapter, Frozen


@dataclass(frozen=True)
class Config:
    """Nothing to set here; how the line is fitted is set by ``probe``."""


def build(config: Config) -> Adapter:
    """The adapter."""
    return Frozen("nothing")
