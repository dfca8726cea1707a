"""Log-mixup-exp: a little of another clip is added to each, in the energy of the unit picture.

Source: Niizumi et al. 2021 (BYOL-A, arXiv:2103.06695), section 3.1: log((1 - a) exp(x) + a exp(z))
on log-mels standardised to deviation 1. Of 400 clips of spoken digits 1 % come out nearer to the
partner, of 400 of Speech Commands 7 %, of 310 of ESC-10 12 %; mixed in true energies
(:mod:`sslaudio.augments.energy_mixup`) 24, 32 and 43 %.
Theirs draws z from a bank of the last 2048 clips. ``partner: bank`` does so too, but the bank is
one for all processes, is part of the checkpoint, takes each clip once a step rather than once a
view, and never gives a clip its own recording: until it holds another, clips stay as they are.
``partner: batch`` takes the neighbour instead: the batch's order is random already, and nothing has
to be kept; both views of a clip get the same partner.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sslaudio.augments.base import Augment, Draws
from sslaudio.augments.pairs import Bank, both_sound, mixed, neighbours, strangers


@dataclass(frozen=True)
class Config:
    """How much of another clip each clip takes, and of which."""

    share: float = 0.4
    """Largest share a of the partner; each clip draws its own uniformly from 0 to this."""
    partner: Literal["batch", "bank"] = "batch"
    """The neighbour in the batch, or any of the past clips in a bank, anew for each view."""
    bank_clips: int = 2048
    """Past clips that the bank holds, in float16; only ``partner: bank`` has one."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(
                f"augments.mixup.share is {self.share:g}; it lies between 0 and 1 (the paper: 0.4)"
            )
        if self.bank_clips < 1:
            raise ValueError(
                f"augments.mixup.bank_clips is {self.bank_clips}; a bank holds at least 1 clip "
                f"(the paper: 2048); set augments.mixup.partner to batch to do without"
            )


class Mixup(nn.Module):
    """The augment; clips that have no partner come back as they are."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.bank = Bank(config.bank_clips) if config.partner == "bank" else None

    @torch.no_grad()
    def forward(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        draws: Draws,
    ) -> Float[Tensor, "clips bins frames"]:
        """Mix; with a bank the pictures are put aside for it as they came."""
        _, bins, width = pictures.shape
        share = self.config.share * draws.uniform(1, 1)
        if self.bank is None:
            partner = neighbours(draws, "mixup")
            there = strangers(partner, draws) * frames[partner]
            others = pictures
        else:
            self.bank.put_aside(pictures, frames, draws)
            partner, there = self.bank.chosen(draws.uniform(), draws.recordings)
            others = self.bank.fitted(bins, width)
        return mixed(pictures, others, partner, share * both_sound(frames, there, width))

    def after_step(self) -> None:
        """Let the bank take the step's clips."""
        if self.bank is not None:
            self.bank.after_step()

    def skip_step(self) -> None:
        """Let the bank forget them."""
        if self.bank is not None:
            self.bank.skip_step()


def build(config: Config) -> Augment:
    """The augment, with a bank of its own where it wants one."""
    return Mixup(config)
