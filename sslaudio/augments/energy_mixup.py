"""Mixup in true energies: another clip's sound is added as if both had been played at once.

log((1 - a) exp(s x) + a exp(s z)) / s on pictures x, z that were divided by s, the deviation of
their log energies; the mean taken off before cancels. Powers add where sounds are not in step.
:mod:`sslaudio.augments.mixup` does the same with s = 1, after Niizumi et al. 2021 (BYOL-A,
arXiv:2103.06695), and is the milder: there 1 % of the views of spoken digits come out nearer to the
partner than to their own clip, here a quarter (Speech Commands: 7 and 32 %, ESC-10: 12 and 43 %),
since whatever is louder wins. The partner is the neighbour in the batch, never of the same
recording.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from sslaudio.augments.base import Augment, Draws
from sslaudio.augments.pairs import both_sound, mixed, neighbours, strangers


@dataclass(frozen=True)
class Config:
    """How much of another clip each clip takes, and the unit its picture is in."""

    share: float = 0.4
    """Largest share a of the partner's energy; each clip draws its own uniformly from 0 to this."""
    std: float = 4.57
    """Deviation that natural-log energies were divided by: that of the front end's statistics. The
    default is AudioSet's (AST, arXiv:2104.01778)."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(
                f"augments.energy_mixup.share is {self.share:g}; it lies between 0 and 1"
            )
        if self.std <= 0:
            raise ValueError(
                f"augments.energy_mixup.std is {self.std:g}; it is the deviation of the log "
                f"energies, above 0 (AudioSet: 4.57)"
            )


def build(config: Config) -> Augment:
    """The augment; a clip without a partner comes back as it is."""

    def energy_mixup(
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        draws: Draws,
    ) -> Float[Tensor, "clips bins frames"]:
        share = config.share * draws.uniform(1, 1)
        partner = neighbours(draws, "energy_mixup")
        there = strangers(partner, draws) * frames[partner]
        share = share * both_sound(frames, there, pictures.shape[2])
        return mixed(pictures, pictures, partner, share, config.std)

    return energy_mixup
