"""What every augment is given: pictures, how many columns are sound, and :class:`Draws`.

An augment plug-in offers a frozen ``Config`` and ``build(config)``, which gives a callable

    augment(pictures [clips bins frames], frames [clips], draws) -> pictures

of the same shape on the same device, batched, with no loop over clips. Pictures are standardised
to deviation 1, so that 0 is the mean; padded columns are 0 and stay 0.

An augment that remembers (a bank of past clips) is a module that keeps what it remembers in
buffers, which the checkpoint holds, and changes them in ``after_step()`` alone, which the loop
calls after each optimiser step: equal on all ranks, whatever the parts of the batch. After a step
that was skipped ``skip_step()`` is called instead, where it is offered.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass
class Draws:
    """Random numbers for the clips of one micro-batch, the same however the batch is cut.

    Every draw is made for the whole batch of an optimiser step and the micro-batch takes its own
    rows, so that two processes, or two accumulated parts, see the numbers that one would.
    """

    generator: torch.Generator
    """Seeded from the run's seed and the step; it stands at the same place in every part."""
    start: int
    """First clip of this micro-batch in the batch."""
    clips: int
    """Clips of this micro-batch."""
    batch: int
    """Clips of the batch over all ranks and accumulation."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where the numbers are wanted. They are drawn on the CPU: the same on every machine."""
    recordings: Int[Tensor, " clips"] | None = None
    """Number of the recording that each clip is from, above 0, on ``device``; equal numbers, one
    recording. Unset: every clip is of its own."""

    def uniform(self, *shape: int) -> Float[Tensor, "clips ..."]:
        """Numbers in [0, 1): one row of ``shape`` for each clip."""
        drawn = torch.rand(self.batch, *shape, generator=self.generator)
        return drawn[self.start : self.start + self.clips].to(self.device)


def numbered(names: Sequence[str]) -> Int[Tensor, " clips"]:
    """A number above 0 for each name, the same on every machine; for ``Draws.recordings``."""
    digests = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names]
    return torch.tensor([int.from_bytes(digest, "little") // 2 | 1 for digest in digests])


@runtime_checkable
class Augment(Protocol):
    """Log-mel pictures in, changed log-mel pictures out."""

    def __call__(
        self,
        pictures: Float[Tensor, "clips bins frames"],
        frames: Int[Tensor, " clips"],
        draws: Draws,
    ) -> Float[Tensor, "clips bins frames"]:
        """Change the pictures; the module's docstring says what holds for all."""
        ...


def sounding(frames: Int[Tensor, " clips"], width: int) -> Bool[Tensor, "clips 1 frames"]:
    """Where the columns of a picture ``width`` frames wide are sound."""
    columns = torch.arange(width, device=frames.device)
    return (columns < frames[:, None])[:, None]
