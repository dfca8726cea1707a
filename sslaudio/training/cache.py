"""One loss over a batch that goes through the model part by part: a gradient cache.

An objective that compares the clips of a batch has, beside its call, ``encode(views, draws)``, a
dict with a row a clip, and ``compare(encoded)``, the loss of all rows. Here each part is encoded by
itself and forgotten but for its rows; when the loss goes backward, pictures, augments and encoding
of each part are done again, with the same random numbers, and its gradients added.

Source: Gao et al. 2021 (GradCache, arXiv:2101.06983). The second pass is torch's checkpointing.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sslaudio.augments.base import Draws
from sslaudio.objectives.base import View, compares

Part = Callable[[], tuple[list[View], Draws]]
"""Makes a micro-batch's views and their draws; the same ones at every call."""


def is_cached(objective: nn.Module) -> bool:
    """Whether an objective asks for its batch to be compared as a whole."""
    return compares(objective) and bool(getattr(objective, "gradient_cache", False))


class Cached(nn.Module):
    """An objective that is called with the parts of a batch."""

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, parts: Sequence[Part]) -> dict[str, Tensor]:
        """Loss and parts for the log, of all clips of all parts."""
        # A tensor tells torch whose random numbers, drop-path's, are to be drawn again.
        device = torch.empty(0, device=next(self.objective.parameters()).device)
        encoded = [
            cast(dict[str, Tensor], checkpoint(self._encode, part, device, use_reentrant=False))
            for part in parts
        ]
        whole = {name: torch.cat([one[name] for one in encoded]) for name in encoded[0]}
        return cast(Any, self.objective).compare(whole)

    def _encode(self, part: Part, device: Tensor) -> dict[str, Tensor]:
        return cast(Any, self.objective).encode(*part())
