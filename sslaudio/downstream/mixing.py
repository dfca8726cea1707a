"""Mixup of labelled clips, and the soft targets that go with it.

In:  a batch's clips and what is true of them.
Out: mixed clips, and targets mixed by the same shares, for cross-entropy and for binary
     cross-entropy alike.

Source: Zhang et al. 2018 (arXiv:1710.09412); shares and their place after AST
(src/dataloader.py: waveforms, Beta(10, 10)), whose targets are truncated to class 0 under
cross-entropy. Ours stay soft.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sslaudio.augments.pairs import both_sound, mixed
from sslaudio.tasks.base import Kind

Loss = Literal["auto", "ce", "bce"]


class Mix:
    """Who is mixed with whom, and how much stays."""

    def __init__(
        self, clips: int, chance: float, alpha: float, random: np.random.Generator
    ) -> None:
        self.partner = torch.from_numpy(random.permutation(clips))
        kept = random.beta(alpha, alpha, clips)
        is_mixed = random.random(clips) < chance
        self.kept = torch.from_numpy(np.where(is_mixed, kept, 1.0)).float()
        """Share of each clip that stays its own; the rest is its partner's."""

    def targets(self, targets: Float[Tensor, "clips columns"]) -> Float[Tensor, "clips columns"]:
        """Targets by the same shares."""
        kept = self.kept[:, None].to(targets.device)
        return kept * targets + (1 - kept) * targets[self.partner.to(targets.device)]

    def waveforms(self, waveforms: list[Float[Tensor, " samples"]]) -> list[Tensor]:
        """Mixed sound, each of its own length: a longer partner is cut, a shorter one ends."""
        out = []
        for own, partner, kept in zip(waveforms, self.partner, self.kept, strict=True):
            if kept == 1:
                out.append(own)
                continue
            other = waveforms[int(partner)][: len(own)]
            total = kept * own
            total[: len(other)] += (1 - kept) * other
            out.append(total)
        return out

    def pictures(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        std: float,
    ) -> Float[Tensor, "clips bins frames"]:
        """Mixed energies: log(kept exp(std x) + (1 - kept) exp(std z)) / std where both sound."""
        partner, kept = self.partner.to(pictures.device), self.kept.to(pictures.device)
        both = both_sound(frames, frames[partner], pictures.shape[2])
        return mixed(pictures, pictures, partner, (1 - kept)[:, None, None] * both, std)


def laid(targets: Tensor, kind: Kind, classes: int) -> Float[Tensor, "clips columns"]:
    """Targets in columns: 1 for a clip's classes and 0 for the others, or the number."""
    if kind == "single":
        return nn.functional.one_hot(targets, classes).float()
    return targets.float().reshape(len(targets), -1)


def loss(
    scores: Float[Tensor, "clips columns"],
    targets: Float[Tensor, "clips columns"],
    kind: Kind,
    which: Loss,
    smoothing: float,
) -> Float[Tensor, " clips"]:
    """Loss of each clip.

    Args:
        scores: before any softmax or sigmoid.
        targets: as :func:`laid` gives them, mixed or not.
        kind: a number is told by its squared error.
        which: ``auto`` is ce for one class a clip and bce for several.
        smoothing: share of a target that is spread over all classes (ce), or over yes and no (bce).
    """
    if kind == "number":
        return (scores - targets).square().mean(dim=1)
    if which == "ce" or (which == "auto" and kind == "single"):
        spread = targets.sum(dim=1, keepdim=True) / targets.shape[1]
        targets = (1 - smoothing) * targets + smoothing * spread
        return -(targets * scores.log_softmax(dim=1)).sum(dim=1)
    targets = (1 - smoothing) * targets + smoothing / 2
    each = nn.functional.binary_cross_entropy_with_logits(scores, targets, reduction="none")
    return each.mean(dim=1)
