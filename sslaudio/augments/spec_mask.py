"""SpecAugment: a stripe of mel rows and a stripe of frames are set to the mean.

Source: Park et al. 2019 (arXiv:1904.08779), section 2, without time warping; one stripe of each
kind as in AST (src/dataloader.py), which fills before it standardises, so that its stripes are
loud or quiet by accident. Ours are filled with 0, the mean of a standardised picture.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sslaudio.augments.base import Augment, Draws


@dataclass(frozen=True)
class Config:
    """How wide the stripes may be."""

    bins_ratio: float = 0.2
    """Widest stripe of mel rows, as a share of the picture's height; 0 turns it off."""
    frames_ratio: float = 0.2
    """Widest stripe of frames, as a share of the clip's own length; 0 turns it off."""

    def __post_init__(self) -> None:
        for key in ("bins_ratio", "frames_ratio"):
            if not 0 <= getattr(self, key) < 1:
                raise ValueError(
                    f"augments.spec_mask.{key} is {getattr(self, key):g}; a share of the picture "
                    f"to hide is at least 0 and under 1"
                )


def build(config: Config) -> Augment:
    """The augment; each clip draws its own stripes."""

    def spec_mask(
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        draws: Draws,
    ) -> Float[Tensor, "clips bins frames"]:
        _, bins, width = pictures.shape
        width_draw, start_draw = draws.uniform(2), draws.uniform(2)
        height = torch.full_like(frames, bins)
        rows = stripe(height, config.bins_ratio, width_draw[:, 0], start_draw[:, 0], bins)
        columns = stripe(frames, config.frames_ratio, width_draw[:, 1], start_draw[:, 1], width)
        return pictures.masked_fill(rows[:, :, None] | columns[:, None, :], 0.0)

    return spec_mask


def stripe(
    sizes: Int[Tensor, " clips"],
    ratio: float,
    width_draw: Float[Tensor, " clips"],
    start_draw: Float[Tensor, " clips"],
    places: int,
) -> Bool[Tensor, "clips places"]:
    """One stripe a clip: 0 to ``ratio * size`` places wide, anywhere inside its ``size``."""
    width = (width_draw * (ratio * sizes + 1)).floor()
    start = (start_draw * (sizes - width + 1)).floor()
    place = torch.arange(places, device=sizes.device)
    return (place >= start[:, None]) & (place < (start + width)[:, None])
