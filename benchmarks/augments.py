"""Mixup and resized crop of a batch, ours against clip by clip, on this machine.

    python benchmarks/augments.py [--pairs 7] [--threads 1] [--json FILE]

Ours: ``mixup`` with ``partner: bank`` and ``resize_crop``, a batch of 128 at once, the bank full.
The peer is the way BYOL-A's code and those after it (LAPE) go about it, written here anew: a clip
at a time, past clips in a list that is made anew at each call, the clip laid onto a canvas of zeros
and a box of it resized; the results are stacked to a batch, as a loader does. Both have the same
pictures, threads and allocator, and take turns; the ratio is the median of the pairs'. One thread
unless told otherwise, as a loader's worker has: with more, the loop's small operations wait for one
another, on a busy machine so long that it falls to a thirtieth of what one thread does, and a ratio
from there flatters ours. A second table shows that both draw the same boxes: two-sample
Kolmogorov-Smirnov distances, beside the one that one in a thousand pairs of equal distributions
exceeds.
"""

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslaudio.augments import mixup, resize_crop
from sslaudio.augments.base import Draws
from sslaudio.data.processes import reuse_freed_memory

CLIPS, BANK = 128, 2048
SHAPES = {(64, 98): 10.0, (128, 98): 10.0, (128, 998): 10.0}
"""Bins and frames, and the ratio that is wanted."""


class ClipByClip:
    """Log-mixup-exp from a list of past clips, then a crop from a canvas, a clip a call."""

    def __init__(self, share: float = 0.4, clips: int = BANK) -> None:
        self.share, self.clips = share, clips
        self.past: list[Tensor] = []

    def mixed(self, picture: Tensor) -> Tensor:
        """The clip and a little of a past one; the clip joins the past."""
        share = self.share * np.random.random()
        out = picture
        if self.past:
            other = self.past[np.random.randint(len(self.past))]
            energy = (1 - share) * picture.exp() + share * other.exp()
            out = torch.log(energy + torch.finfo(energy.dtype).eps)
        self.past = [*self.past, picture][-self.clips :]
        return out

    def cropped(self, picture: Tensor) -> Tensor:
        """A random box of the canvas, at the clip's size."""
        _, bins, frames = picture.shape
        canvas = torch.zeros(1, bins, int(1.5 * frames))
        left = (canvas.shape[2] - frames) // 2
        canvas[:, :, left : left + frames] = picture
        top, first, height, width = self.box(bins, frames)
        box = canvas[:, top : top + height, first : first + width]
        resized = torch.nn.functional.interpolate(
            box[None], size=(bins, frames), mode="bicubic", align_corners=True
        )
        return resized[0]

    @staticmethod
    def box(bins: int, frames: int) -> tuple[int, int, int, int]:
        """Top, first frame, height and width of a box in the canvas."""
        length = int(1.5 * frames)
        height = int(np.clip(int(np.random.uniform(0.6, 1.5) * bins), 1, bins))
        width = int(np.clip(int(np.random.uniform(0.6, 1.5) * frames), 1, length))
        return random.randint(0, bins - height), random.randint(0, length - width), height, width

    def batch(self, pictures: Tensor) -> Tensor:
        """A batch, clip by clip."""
        return torch.cat([self.cropped(self.mixed(picture)) for picture in pictures[:, None]])


class Batched:
    """Ours, with a full bank."""

    def __init__(self, bank: Tensor) -> None:
        self.mixup = mixup.Mixup(mixup.Config(partner="bank", bank_clips=len(bank)))
        self.crop = resize_crop.build(resize_crop.Config())
        self.generator = torch.Generator().manual_seed(0)
        self.frames = torch.full((CLIPS,), bank.shape[2])
        for pictures in bank.split(CLIPS):
            self.batch(pictures)

    def batch(self, pictures: Tensor) -> Tensor:
        """A batch, and the bank's turn."""
        recordings = torch.randint(1, 1 << 60, (len(pictures),), generator=self.generator)
        draws = Draws(self.generator, 0, CLIPS, CLIPS, recordings=recordings)
        changed = self.crop(self.mixup(pictures, self.frames, draws), self.frames, draws)
        self.mixup.after_step()
        return changed


def seconds(work: Callable[[], Any]) -> float:
    """Time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def speed(bins: int, frames: int, goal: float, pairs: int) -> dict[str, Any]:
    """Clips a second of both, taking turns."""
    generator = torch.Generator().manual_seed(1)
    past = torch.randn(BANK, bins, frames, generator=generator)
    pictures = torch.randn(CLIPS, bins, frames, generator=generator)
    ours, peer = Batched(past), ClipByClip()
    peer.past = [picture.clone() for picture in past[:, None]]
    del past
    calls = max(1, 2_000_000 // pictures.numel())  # a call of ours is over in two milliseconds
    times = []
    for _ in range(pairs + 1):
        mine = seconds(lambda: [ours.batch(pictures) for _ in range(calls)]) / calls
        times.append((mine, seconds(lambda: peer.batch(pictures))))
    mine, theirs = (CLIPS / statistics.median(pair[side] for pair in times[1:]) for side in (0, 1))
    ratio = statistics.median(theirs / mine for mine, theirs in times[1:])
    return {
        "name": f"mixup and resized crop, {CLIPS} clips of {bins} x {frames}, against clip by clip "
        f"(clips a second)",
        "ours": mine,
        "peer": theirs,
        "ratio": ratio,
        "goal": goal,
    }


def boxes(bins: int, frames: int, count: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Boxes of ours and of the loop's: top, first frame (in the canvas), height, width."""
    config = resize_crop.Config()
    numbers = torch.rand(count, 4, generator=torch.Generator().manual_seed(0))
    rows, columns = (
        resize_crop.span(torch.full((count,), own), ratios, canvas, *draw)
        for own, ratios, canvas, draw in (
            (bins, config.bins_range, config.canvas[0], (numbers[:, 0], numbers[:, 2])),
            (frames, config.frames_range, config.canvas[1], (numbers[:, 1], numbers[:, 3])),
        )
    )
    margin = (int(1.5 * frames) - frames) // 2
    ours = (rows.first, columns.first + margin, rows.size, columns.size)
    theirs = np.array([ClipByClip.box(bins, frames) for _ in range(count)]).T
    names = ("top", "first frame", "height", "width")
    return {name: (mine.numpy(), its) for name, mine, its in zip(names, ours, theirs, strict=True)}


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference of the two cumulative distributions."""
    places = np.union1d(one, other)
    shares = (
        np.searchsorted(np.sort(side), places, side="right") / len(side) for side in (one, other)
    )
    return float(np.abs(np.subtract(*shares)).max())


def main() -> int:
    """Measure, print the tables, write the records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    reuse_freed_memory()
    torch.set_num_threads(arguments.threads)
    np.random.seed(0)
    random.seed(0)
    print(f"{arguments.threads} threads, median of {arguments.pairs} pairs\n")
    records = []
    for (bins, frames), goal in SHAPES.items():
        row = speed(bins, frames, goal, arguments.pairs)
        records.append(row)
        print(
            f"{row['name']}: {row['ours']:.0f} / {row['peer']:.0f}, ratio {row['ratio']:.1f}, "
            f"goal {goal:g}"
        )
    count = 20_000
    print(f"\nboxes of {count} clips of 64 x 98: means of ours and theirs, distance")
    for name, (mine, its) in boxes(64, 98, count).items():
        print(f"{name:12s}{mine.mean():8.2f}{its.mean():8.2f}{distance(mine, its):8.4f}")
    limit = math.sqrt(-math.log(0.001 / 2) / count)
    print(f"equal distributions stay below {limit:.4f} in 999 of 1000 draws")
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
