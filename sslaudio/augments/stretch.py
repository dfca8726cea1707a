"""Stretch: a picture as a somewhat longer or shorter throat and a slower tongue would give it.

The frequency axis is scaled about its lowest bin, as vocal-tract length does (Jaitly & Hinton
2013, "Vocal Tract Length Perturbation improves speech recognition"), here on mel bins instead of
hertz. The time axis is zoomed into: a random stretch of the clip is slowed down to the clip's own
length, so that lengths stay as they are and no sound has to be made up at the end.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sslaudio.augments.base import Augment, Draws, sounding


@dataclass(frozen=True)
class Config:
    """How far the axes are scaled."""

    bins_ratio: float = 0.12
    """Frequencies are scaled by exp(u), u uniform from minus to plus this."""
    frames_ratio: float = 0.15
    """Of each clip a stretch of 1 - u is kept and slowed down to fill it, u uniform to this."""

    def __post_init__(self) -> None:
        for key in ("bins_ratio", "frames_ratio"):
            if not 0 <= getattr(self, key) < 1:
                raise ValueError(
                    f"augments.stretch.{key} is {getattr(self, key):g}; it is at least 0 and "
                    f"under 1, 0.1 or so for speech"
                )


def build(config: Config) -> Augment:
    """The augment; each clip draws its own two scales and its own stretch."""

    def stretch(
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        draws: Draws,
    ) -> Float[Tensor, "clips bins frames"]:
        _, bins, width = pictures.shape
        drawn = draws.uniform(3)
        scale = torch.exp((2 * drawn[:, :1] - 1) * config.bins_ratio)
        place = torch.arange(bins, device=pictures.device) * scale
        pictures = sampled(pictures, place.clamp(max=bins - 1.0))
        kept = 1 - config.frames_ratio * drawn[:, 1:2]
        last = frames[:, None] - 1.0
        start = drawn[:, 2:3] * (1 - kept) * last
        place = start + torch.arange(width, device=pictures.device) * kept
        place = torch.minimum(place, last)
        pictures = sampled(pictures.transpose(1, 2), place).transpose(1, 2)
        return pictures.masked_fill(~sounding(frames, width), 0.0)

    return stretch


def sampled(
    values: Float[Tensor, "clips rows columns"], places: Float[Tensor, "clips rows"]
) -> Float[Tensor, "clips rows columns"]:
    """Rows at fractional ``places``, linear between neighbours."""
    low = places.floor().long()
    high = (low + 1).clamp(max=values.shape[1] - 1)
    share = (places - low)[..., None]
    columns = values.shape[2]
    below = values.gather(1, low[..., None].expand(-1, -1, columns))
    above = values.gather(1, high[..., None].expand(-1, -1, columns))
    return torch.lerp(below, above, share)
