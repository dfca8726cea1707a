"""The momentum teacher: a student's running mean, which answers and never learns.

In:  modules of the student, by name. Out: the same names, float32, no gradient, in eval mode but
for batch norms, which see the batch as the student's do.

Source: He et al. 2020 (MoCo, arXiv:1911.05722), section 3.2; schedules: Grill et al. 2020 (BYOL,
arXiv:2006.07733), appendix, and Chen et al. 2021 (MoCo v3, arXiv:2104.02057). In bfloat16 nearly
all of a slow teacher's weights would never move, so the weights are float32 here.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sslaudio.objectives.monitor import deviation
from sslaudio.objectives.projection import BatchNorm

Schedule = Literal["constant", "linear", "cosine"]
"""How the momentum goes from its first to its last value over a run."""


class Teacher(nn.Module):
    """Copies of a student's modules that follow it."""

    def __init__(self, **student: nn.Module) -> None:
        super().__init__()
        for name, module in student.items():
            setattr(self, name, copy.deepcopy(module).requires_grad_(False))
        self.train()

    def train(self, mode: bool = True) -> "Teacher":
        """Drop-path stays off whatever ``mode``; batch norms take the batch in training."""
        super().train(False)
        for module in self.modules():
            if isinstance(module, BatchNorm):
                module.train(mode)
        return self

    @torch.no_grad()
    def update(self, student: Mapping[str, nn.Module], momentum: float) -> None:
        """One step towards the student: teacher = momentum * teacher + (1 - momentum) * student.

        Raises:
            ValueError: the teacher's weights are not float32.
        """
        mine, theirs = map(list, zip(*self.pairs(student), strict=True))
        if mine[0].dtype != torch.float32:
            raise ValueError(
                f"the teacher's weights are {mine[0].dtype}, in which small steps are lost; keep "
                f"weights float32 and set training.precision for the products"
            )
        torch._foreach_lerp_(mine, [weight.float() for weight in theirs], 1 - momentum)

    @torch.no_grad()
    def deviation(self, student: Mapping[str, nn.Module]) -> Float[Tensor, ""]:
        """Length of the difference of all weights over the length of the student's."""
        return deviation((theirs, mine) for mine, theirs in self.pairs(student))

    def pairs(self, student: Mapping[str, nn.Module]) -> Iterator[tuple[Tensor, Tensor]]:
        """Each weight of the teacher with the student's."""
        for name, module in student.items():
            copied = getattr(self, name)
            yield from zip(copied.parameters(), module.parameters(), strict=True)


def momentum_at(step: int, steps: int, start: float, end: float, schedule: Schedule) -> float:
    """Momentum after ``step`` of ``steps``, from ``start`` to ``end``; constant: ``start``."""
    done = min(1.0, step / max(1, steps))
    if schedule == "constant":
        return start
    if schedule == "linear":
        return start + (end - start) * done
    return end - (end - start) * (1 + math.cos(math.pi * done)) / 2
