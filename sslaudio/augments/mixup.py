"""Log-mixup-exp: a little of another clip is added to each, in the energy of the unit picture.

Source: Niizumi et al. 2021 (BYOL-A, arXiv:2103.06695), section 3.1: log((1 - a) exp(x) + a exp(z))
on log-mels standardised to deviation 1. On plain log-mels (deviation 4 to 5) the same formula
mixes true energies, and then a quarter of the clips come out nearer to the partner.
Theirs draws z from a bank of past clips; ours is the neighbour in the batch, never the clip
itself: the batch's order is random already, and a pair stays together on every rank.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sslaudio.augments.base import Augment, Draws, sounding


@dataclass(frozen=True)
class Config:
    """How much of another clip each clip takes."""

    share: float = 0.4
    """Largest share a of the partner; each clip draws its own uniformly from 0 to this."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(
                f"augments.mixup.share is {self.share:g}; it lies between 0 and 1 (the paper: 0.4)"
            )


def build(config: Config) -> Augment:
    """The augment; a batch of one clip comes back as it is, for want of a partner."""

    def mixup(
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        draws: Draws,
    ) -> Float[Tensor, "clips bins frames"]:
        share = config.share * draws.uniform(1, 1)
        if draws.batch > draws.clips and draws.clips % 2:
            raise ValueError(
                f"mixup pairs neighbours, and each process and accumulated part has {draws.clips} "
                f"clips; set data.batch so that the parts are even, or leave mixup out"
            )
        if len(pictures) < 2:
            return pictures
        partner = partners(len(pictures)).to(pictures.device)
        mixed = torch.logaddexp(
            pictures + torch.log1p(-share), pictures[partner] + share.clamp(min=1e-6).log()
        )
        width = pictures.shape[2]
        both = sounding(frames, width) & sounding(frames[partner], width)
        return torch.where(both, mixed, pictures)

    return mixup


def partners(clips: int) -> Int[Tensor, " clips"]:
    """Index of each clip's partner: neighbours pair up; an odd last clip takes the first."""
    index = torch.arange(clips)
    partner = index ^ 1
    partner[partner == clips] = 0
    return partner
