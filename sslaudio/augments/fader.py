"""Fader: the level of a clip rises or falls along it, a straight line added to its log-mel picture.

Source: Niizumi et al. 2022 (BYOL-A v2, arXiv:2204.07402), RandomLinearFader: the line runs from a
level drawn for the clip's begin to one drawn for its end. Ours ends with the clip, not with the
padding.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sslaudio.augments.base import Augment, Draws, sounding


@dataclass(frozen=True)
class Config:
    """How far the level moves."""

    gain: float = 1.0
    """Largest level at either end, up or down, in deviations of the log-mel."""

    def __post_init__(self) -> None:
        if self.gain <= 0:
            raise ValueError(f"augments.fader.gain is {self.gain:g}; it is above 0 (the paper: 1)")


def build(config: Config) -> Augment:
    """The augment; each clip draws the two ends of its line."""

    def fader(
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        draws: Draws,
    ) -> Float[Tensor, "clips bins frames"]:
        width = pictures.shape[2]
        ends = config.gain * (2 * draws.uniform(2, 1) - 1)
        way = torch.arange(width, device=frames.device) / (frames[:, None] - 1).clamp(min=1)
        line = torch.lerp(ends[:, 0], ends[:, 1], way)
        return (pictures + line[:, None]).masked_fill(~sounding(frames, width), 0.0)

    return fader
