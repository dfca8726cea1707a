"""Forward and backward of one step: this process's share of a batch in, gradients out.

Everything random in it follows from the seed, the step and the process.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from accelerate import Accelerator
from jaxtyping import Int
from torch import Tensor, nn

from sslaudio.augments.base import Augment, Draws, numbered
from sslaudio.data.stream import Batch
from sslaudio.features.front_end import FrontEnd
from sslaudio.objectives.base import Objective, View
from sslaudio.training.cache import Part


@dataclass
class Taken:
    """Forward and backward of a step: what it told, and what it was of."""

    batches: list[Batch] = field(default_factory=list)
    parts: dict[str, Tensor] = field(default_factory=dict)
    latest: Part | None = None
    """The last micro-batch."""
    waiting_seconds: float = 0.0
    """For batches."""

    def add(self, parts: Mapping[str, Tensor], share: float) -> None:
        """Add a micro-batch's scalars, ``share`` of a step."""
        for name, value in parts.items():
            told = value.detach().float() * share
            self.parts[name] = self.parts[name] + told if name in self.parts else told

    def next(self, batches: Iterator[Batch]) -> Batch:
        """Take a micro-batch."""
        asked = time.perf_counter()
        batch = next(batches)
        self.waiting_seconds += time.perf_counter() - asked
        self.batches.append(batch)
        return batch


@dataclass
class Passes:
    """What takes a step's batch through the model, forward and backward."""

    objective: Objective
    model: nn.Module
    """The objective, or :class:`~sslaudio.training.cache.Cached` of it, as accelerate wraps it."""
    front_end: FrontEnd
    augments: Sequence[Augment]
    accelerator: Accelerator
    batch: int
    """Clips a step, over all ranks and accumulation."""
    accumulation: int
    seed: int
    cached: bool
    """Whether the clips of all parts are compared."""

    def __call__(self, step: int, batches: Iterator[Batch]) -> Taken:
        """Gradients of the next batch."""
        return self._whole(step, batches) if self.cached else self._parts(step, batches)

    def _parts(self, step: int, batches: Iterator[Batch]) -> Taken:
        """Gradients of a batch, part after part."""
        accelerator, taken = self.accelerator, Taken()
        for part in range(self.accumulation):
            batch = taken.next(batches)
            # After the batch: opening a loader draws from the same generator as drop-path.
            torch.manual_seed(seed_of(self.seed, step, accelerator.process_index + 1, part))
            last = part == self.accumulation - 1
            with nullcontext() if last else accelerator.no_sync(self.model):
                views, draws = self.views(batch, step, part)
                parts = self.model(views, draws)
                accelerator.backward(parts["loss"] / self.accumulation)
            taken.add(parts, 1 / self.accumulation)
        taken.latest = lambda: (views, draws)
        return taken

    def _whole(self, step: int, batches: Iterator[Batch]) -> Taken:
        """Gradients of a batch whose clips are all compared."""
        accelerator, taken = self.accelerator, Taken()
        for _ in range(self.accumulation):
            taken.next(batches)
        torch.manual_seed(seed_of(self.seed, step, accelerator.process_index + 1, 0))
        parts = [partial(self.views, batch, step, n) for n, batch in enumerate(taken.batches)]
        told = self.model(parts)
        accelerator.backward(told["loss"])
        taken.add(told, 1.0)
        taken.latest = parts[-1]
        return taken

    def views(self, batch: Batch, step: int, part: int) -> tuple[list[View], Draws]:
        """Pictures of a micro-batch, augmented once a view."""
        device = self.accelerator.device
        waveforms = batch.waveforms.to(device, non_blocking=True)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            pictures, frames = self.front_end(
                waveforms, batch.lengths.to(device, non_blocking=True)
            )
            draws = Draws(
                torch.Generator().manual_seed(seed_of(self.seed, step, 0)),
                start=(part * self.accelerator.num_processes + self.accelerator.process_index)
                * len(batch.keys),
                clips=len(batch.keys),
                batch=self.batch,
                device=device,
                recordings=recordings_of(batch).to(device, non_blocking=True),
            )
            views = []
            for _ in range(self.objective.views):
                view = pictures
                for augment in self.augments:
                    view = augment(view, frames, draws)
                views.append(View(view, frames))
        return views, draws


def recordings_of(batch: Batch) -> Int[Tensor, " clips"]:
    """A number above 0 for the recording of each clip; a clip that is of none has its own.

    A recording that two corpora have, as Freesound's, is one.
    """
    return numbered(
        [
            f"recording {recording}" if recording is not None else f"clip {source} {key}"
            for recording, source, key in zip(
                batch.recordings, batch.sources.tolist(), batch.keys, strict=True
            )
        ]
    )


def seed_of(*numbers: int) -> int:
    """One seed from several numbers (the 64-bit FNV-1a hash of them)."""
    hashed = 0xCBF29CE484222325
    for number in numbers:
        for byte in (number & (1 << 64) - 1).to_bytes(8, "little"):
            hashed = ((hashed ^ byte) * 0x100000001B3) & (1 << 64) - 1
    return hashed >> 1
