"""Draws and pictures that the room's tests share."""

import pytest
import torch
from torch import Tensor

from sslaudio.augments.base import Draws


@pytest.fixture(scope="session")
def draws():
    """Numbers for a batch, or for a part of it."""

    def make(
        clips: int,
        start: int = 0,
        batch: int | None = None,
        seed: int = 0,
        recordings: Tensor | None = None,
    ) -> Draws:
        generator = torch.Generator().manual_seed(seed)
        return Draws(generator, start, clips, batch or clips, recordings=recordings)

    return make


@pytest.fixture(scope="session")
def pictures():
    """Standardised noise, 16 bins high."""

    def make(clips: int, frames: int = 40, seed: int = 0) -> Tensor:
        return torch.randn(clips, 16, frames, generator=torch.Generator().manual_seed(seed))

    return make
