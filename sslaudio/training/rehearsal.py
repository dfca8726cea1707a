"""A dry run: what a few steps showed, and what the whole run would be."""

import datetime
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sslaudio.data.stream import Stream
from sslaudio.training import memory


@dataclass(frozen=True)
class Rehearsal:
    """A step of a run, and two more to time."""

    steps_left: int
    """Of the run, before these."""
    seconds: list[float]
    """Of each step; the first one warms up."""
    waveforms: tuple[int, ...]
    """[clips, samples] that a process takes at a time."""
    pictures: tuple[int, ...]
    """[clips, bins, frames] of one view of them."""
    means: Mapping[str, float]
    """Of loss, parts and gradient; empty where every step was skipped."""
    stream: Stream
    objective: Any
    device: torch.device
    checkpoints_kept: int

    def rows(self) -> dict[str, str]:
        """What is to be told, by name."""
        backbone, stream = self.objective.backbone, self.stream
        grid = backbone.grid(self.pictures[2])
        learned = [weight for weight in self.objective.parameters() if weight.requires_grad]
        first, *timed = self.seconds
        each = statistics.median(timed)
        stored = self.objective.state_dict().values()
        size = sum(value.nbytes for value in stored) + 2 * sum(value.nbytes for value in learned)
        means = "  ".join(f"{name} {value:.4g}" for name, value in self.means.items())
        peak, total = memory.peak_bytes(self.device), memory.total_bytes(self.device)
        return {
            "sound": stream.told,
            "batch": f"{stream.config.batch} clips a step = {stream.ranks} process(es) x "
            f"{stream.accumulation} part(s) x {self.waveforms[0]}",
            "waveforms": f"{list(self.waveforms)}: clips, samples at {stream.sample_rate} Hz",
            "pictures": f"{list(self.pictures)}: clips, bins, frames; "
            f"{self.objective.views} view(s)",
            "tokens": f"{grid.rows} x {grid.columns} a clip, of dim {backbone.dim}",
            "weights": f"{_millions(backbone.parameters())} in the backbone, "
            f"{_millions(self.objective.parameters())} in all; {_millions(learned)} learn",
            "step": means or "skipped: its loss or gradient is not finite",
            "memory": f"{peak / 2**30:.2f} GiB at most in this process on {self.device}, which has "
            f"{total / 2**30:.1f}",
            "disk": f"{size / 2**20:.1f} MiB a checkpoint, {self.checkpoints_kept} kept",
            "speed": f"{stream.config.batch / each:.0f} clips/s, {each:.3f} s a step ({first:.3f} "
            f"the first), {torch.get_num_threads()} threads a process",
            "whole run": f"{self.steps_left} steps in "
            f"{datetime.timedelta(seconds=round(self.steps_left * each))}",
        }


def _millions(weights: Iterable[Tensor]) -> str:
    return f"{sum(weight.numel() for weight in weights) / 1e6:.2f} M"
