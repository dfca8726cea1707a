"""What every objective gives the loop, and the numbers that show a collapse.

An objective plug-in offers a frozen ``Config`` and ``build(config, backbone)``, which gives an
``nn.Module`` that fits :class:`Objective`. A student/teacher objective keeps its teacher inside
(outside the optimiser by ``requires_grad_(False)``) and moves it in ``after_step``.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sslaudio.augments.base import Draws
from sslaudio.backbones.base import Backbone


@dataclass
class View:
    """One augmented picture of every clip."""

    pictures: Float[Tensor, "clips bins frames"]
    """Standardised log-mels, padded columns 0."""
    frames: Int[Tensor, " clips"]
    """Columns of each picture that are sound."""


@runtime_checkable
class Objective(Protocol):
    """A backbone with what it is trained by."""

    views: int
    """How many independently augmented views of each clip it wants."""
    backbone: Backbone

    def __call__(self, views: list[View], draws: Draws) -> dict[str, Tensor]:
        """Loss of a micro-batch, as ``loss`` (mean over its clips), and scalars for the log.

        The loss of a batch cut into equal parts is the mean of the parts' losses.
        """
        ...

    def after_step(self, step: int, steps: int) -> None:
        """Called once after each optimiser step.

        After a step that was skipped its buffers are put back, and with ``moves_in_passes`` also
        weights that do not learn; ``skip_step()`` is called instead, where it is offered.
        """
        ...

    def pictures(self, views: list[View], draws: Draws) -> dict[str, Float[Tensor, "rows bins c"]]:
        """Pictures of what is asked of the model and what it answers, for a few clips."""
        ...


def compares(objective: object) -> bool:
    """Whether an objective's loss hangs on which clips are in a batch together."""
    return hasattr(objective, "encode") and hasattr(objective, "compare")


def spread(embeddings: Float[Tensor, "clips dim"]) -> Float[Tensor, ""]:
    """Deviation of the unit-length embeddings, times the root of dim: 1 spread out, 0 collapsed.

    Source: Chen & He 2021 (SimSiam, arXiv:2011.10566), section 4.1, who expect 1 / sqrt(dim).
    """
    unit = torch.nn.functional.normalize(embeddings.detach().float(), dim=1)
    return unit.std(dim=0, unbiased=False).mean() * unit.shape[1] ** 0.5


def touched(*weights: Tensor | None) -> Float[Tensor, ""] | float:
    """Zero that gives weights which a loss leaves aside a gradient of zeros: DDP waits for all."""
    return sum((0.0 * weight.float().sum() for weight in weights if weight is not None), 0.0)


def masked_mean(
    values: Float[Tensor, "clips items"], counted: Bool[Tensor, "clips items"]
) -> Float[Tensor, " clips"]:
    """Mean over each clip's counted items; 0 for a clip that has none."""
    total = torch.where(counted, values, 0.0).sum(dim=1)
    return total / counted.sum(dim=1).clamp(min=1)
