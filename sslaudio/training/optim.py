"""The optimiser and the learning rate of a step.

The rate is a pure function of the step, so that a resumed run needs no schedule state.
"""

import math
from typing import cast

import torch
from torch import nn


def rate_share(step: int, steps: int, warmup_steps: int, floor: float) -> float:
    """Share of the full learning rate at ``step``: linear warm-up, then half a cosine to ``floor``.

    Args:
        step: steps taken before this one, from 0.
        steps: steps of the whole run.
        warmup_steps: steps until the full rate.
        floor: share that the cosine ends at.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def stepped_share(epoch: int, first: int, every: int, to: float) -> float:
    """Share of the full rate in an epoch: cut to ``to`` after epoch ``first``, then ``every`` few.

    Args:
        epoch: from 1.
        first: the last epoch at the full rate.
        every: epochs from one cut to the next.
        to: share that a cut leaves.
    """
    return to ** (0 if epoch <= first else 1 + (epoch - first - 1) // every)


def adamw(
    module: nn.Module, learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.AdamW:
    """AdamW over what is trainable.

    Source: Loshchilov & Hutter 2019 (arXiv:1711.05101).
    """
    matrices = decayed_weights(module)
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            (decayed if parameter in matrices else others).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=learning_rate, betas=betas, fused=True
    )


def decayed_weights(module: nn.Module) -> set[nn.Parameter]:
    """Weights of linear maps and convolutions; norms, biases, tokens and positions stay free."""
    maps = (part for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d))
    return {cast(nn.Parameter, part.weight) for part in maps}
