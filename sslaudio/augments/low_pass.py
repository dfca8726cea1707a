"""Low-pass: above a random row the picture falls off, as behind a codec or a narrow microphone.

Recordings of one device or codec share a bandwidth, by which they can be told apart without
listening; a model that meets every clip at many bandwidths gains nothing from it. A straight slope
in log energy, down to a floor, is what a filter followed by the recorder's own noise leaves; mel
rows are even steps of pitch above 1 kHz, so that a slope a row is one an octave there.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sslaudio.augments.base import Augment, Draws, sounding


@dataclass(frozen=True)
class Config:
    """Where the picture begins to fall, and how steeply."""

    lowest: float = 0.5
    """Lowest cutoff, as a share of the picture's rows; uniform from here to the top."""
    slope: float = 0.1
    """Deviations of the log-mel that each row above the cutoff lies lower than the one before: at
    0.1 and AudioSet's deviation 2 dB a row, 60 dB from 4 to 8 kHz in 128 rows."""
    floor: float = -2.0
    """Deviations below the mean that the fall ends at; what is lower already stays as it is."""
    probability: float = 1.0
    """Share of the clips that are filtered."""

    def __post_init__(self) -> None:
        if not 0 <= self.lowest < 1:
            raise ValueError(
                f"augments.low_pass.lowest is {self.lowest:g}; a share of the picture's rows to "
                f"leave at least is 0 or more and under 1"
            )
        if self.slope <= 0:
            raise ValueError(
                f"augments.low_pass.slope is {self.slope:g}; the fall from row to row is above 0, "
                f"0.1 or so"
            )
        if not 0 < self.probability <= 1:
            raise ValueError(
                f"augments.low_pass.probability is {self.probability:g}; it is above 0 and at "
                f"most 1"
            )


def build(config: Config) -> Augment:
    """The augment; each clip draws its own cutoff."""

    def low_pass(
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        draws: Draws,
    ) -> Float[Tensor, "clips bins frames"]:
        _, bins, width = pictures.shape
        cutoff_draw, chance = draws.uniform(2, 1, 1).unbind(1)
        cutoff = bins * (config.lowest + (1 - config.lowest) * cutoff_draw)
        row = torch.arange(bins, device=pictures.device)[:, None]
        fall = config.slope * (row - cutoff).clamp(min=0) * (chance < config.probability)
        lowered = torch.minimum(pictures, (pictures - fall).clamp(min=config.floor))
        return lowered.masked_fill(~sounding(frames, width), 0.0)

    return low_pass
