"""Time shift: a clip is rolled along its own length; what leaves at one end comes in at the other.

Source: AST (arXiv:2104.01778; src/dataloader.py) rolls pictures of 128 frames by -10 to 9 of them.
Ours is a share of the clip's own length, as far to the left as to the right, and padding stays
behind the clip. AudioMAE's roll, after the same code, runs along an axis of one place and moves
nothing.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sslaudio.augments.base import Augment, Draws


@dataclass(frozen=True)
class Config:
    """How far a clip is rolled."""

    frames_ratio: float = 0.1
    """Largest shift either way, as a share of the clip's own length; 0.5 reaches every place."""

    def __post_init__(self) -> None:
        if not 0 < self.frames_ratio <= 0.5:
            raise ValueError(
                f"augments.time_shift.frames_ratio is {self.frames_ratio:g}; it is above 0 and at "
                f"most 0.5, half the clip either way"
            )


def build(config: Config) -> Augment:
    """The augment; each clip draws its own shift, in whole frames."""

    def time_shift(
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        draws: Draws,
    ) -> Float[Tensor, "clips bins frames"]:
        _, bins, width = pictures.shape
        length = frames.clamp(min=1)[:, None]
        shift = ((2 * draws.uniform(1) - 1) * config.frames_ratio * length).round().long()
        column = torch.arange(width, device=frames.device)
        source = torch.where(column < frames[:, None], (column - shift) % length, column)
        return pictures.gather(2, source[:, None].expand(-1, bins, -1))

    return time_shift
