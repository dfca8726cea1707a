"""Noise: Gaussian noise on the log-mel picture, of another strength for each clip.

The normal numbers are read from a table of two million, the same in every run: each row of each
clip's picture from a place of its own, drawn. So a clip's noise is the same whatever the batch is
padded to and on whatever device, and no more is drawn than a number a row. Two rows share numbers
where their places happen to lie within a clip's length of each other, frames apart, which is once
in some five hundred pairs for clips of 10 seconds.

Source: AST (arXiv:2104.01778; src/dataloader.py) adds uniform noise, at a tenth of the deviation
and less, above 0 only.
"""

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sslaudio.augments.base import Augment, Draws, sounding

PLACES = 1 << 20
"""Where in the table a row may begin; as many numbers follow the last of them."""


@dataclass(frozen=True)
class Config:
    """How strong the noise is."""

    deviations: float = 0.2
    """Largest deviation of the noise, in deviations of the log-mel; each clip draws its own
    uniformly from 0 to this."""

    def __post_init__(self) -> None:
        if self.deviations <= 0:
            raise ValueError(
                f"augments.noise.deviations is {self.deviations:g}; it is above 0, 0.2 or so"
            )


def build(config: Config) -> Augment:
    """The augment; each clip draws its strength and a place in the table for each row."""

    def noise(
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        draws: Draws,
    ) -> Float[Tensor, "clips bins frames"]:
        _, bins, width = pictures.shape
        strength = config.deviations * draws.uniform(1, 1)
        place = (draws.uniform(bins) * PLACES).long()
        added = normals(pictures.device).unfold(0, width, 1)[place]
        return (pictures + strength * added).masked_fill(~sounding(frames, width), 0.0)

    return noise


@cache
def normals(device: torch.device) -> Float[Tensor, " numbers"]:
    """The table: standard normal numbers, drawn on the CPU, the same everywhere."""
    return torch.randn(2 * PLACES, generator=torch.Generator().manual_seed(0)).to(device)
