"""Gain: the whole clip louder or quieter, a constant on its log-mel picture."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from sslaudio.augments.base import Augment, Draws, sounding


@dataclass(frozen=True)
class Config:
    """How far the level moves."""

    deviations: float = 0.5
    """Largest shift up or down, in deviations of the log-mel (one is about 20 dB on speech)."""

    def __post_init__(self) -> None:
        if self.deviations <= 0:
            raise ValueError(
                f"augments.gain.deviations is {self.deviations:g}; it is above 0, 0.5 or so"
            )


def build(config: Config) -> Augment:
    """The augment; each clip draws its own shift."""

    def gain(
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        draws: Draws,
    ) -> Float[Tensor, "clips bins frames"]:
        shift = (2 * draws.uniform(1, 1) - 1) * config.deviations
        return (pictures + shift).masked_fill(~sounding(frames, pictures.shape[2]), 0.0)

    return gain
