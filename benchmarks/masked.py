"""Hidden patches that leave the encoder beside hidden patches that are replaced, in one run.

    python benchmarks/masked.py [--size micro …] [--share S] [--bf16] [--repeats N] [--json FILE]

A training step of masked patch modelling (forward, backward, AdamW) on 10 s of sound, ``hide:
drop`` against ``hide: replace``, which SSAST does, all else alike: AST by patches, and MAST micro
by columns. The two alternate; a row has their medians of processor time, and ``ratio`` is the
median of the pairs' ratios, with its quartiles beside it: above 1, dropping is faster. Sound is
noise, as speed does not depend on it. How many threads: OMP_NUM_THREADS.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch

from sslaudio.augments.base import Draws
from sslaudio.backbones import ast, mast
from sslaudio.backbones.base import Backbone
from sslaudio.data.processes import reuse_freed_memory
from sslaudio.objectives import masked_patch
from sslaudio.objectives.base import View
from sslaudio.objectives.masks import Shape
from sslaudio.training.optim import adamw

BINS, FRAMES = 128, 998
CLIPS = {"micro": 8, "tiny": 4, "small": 2, "base": 1}
"""Clips of 10 s a step."""
Size = Literal["micro", "tiny", "small", "base"]
Hide = Literal["replace", "drop"]


@dataclass
class Bench:
    """What all rows share."""

    share: float
    bf16: bool
    repeats: int

    def step(self, backbone: Backbone, hide: Hide, shape: Shape, clips: int) -> Callable[[], float]:
        """A training step that gives the processor seconds it took."""
        config = masked_patch.Config(mask_share=self.share, mask_shape=shape, hide=hide)
        model = masked_patch.build(config, backbone).train()
        optimiser = adamw(model, 1e-4, 0.05, (0.9, 0.98))
        view = View(torch.randn(clips, BINS, FRAMES), torch.full((clips,), FRAMES))
        draws = Draws(torch.Generator().manual_seed(0), 0, clips, clips)

        def step() -> float:
            began = time.process_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                loss = model([view], draws)["loss"]
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            return time.process_time() - began

        return step

    def compare(
        self, name: str, build: Callable[[], Backbone], shape: Shape, clips: int
    ) -> dict[str, Any]:
        """One row, of pairs that alternate, after one that is not counted."""
        dropping = self.step(build(), "drop", shape, clips)
        replacing = self.step(build(), "replace", shape, clips)
        pairs = [(dropping(), replacing()) for _ in range(self.repeats + 1)][1:]
        ratios = [replaced / dropped for dropped, replaced in pairs]
        return {
            "name": f"{name}, {clips} clips of 10 s, {self.share:.0%} hidden by {shape} "
            f"({'bf16' if self.bf16 else 'fp32'}, ms)",
            "ours": 1e3 * statistics.median(dropped for dropped, _ in pairs),
            "peer": 1e3 * statistics.median(replaced for _, replaced in pairs),
            "ratio": statistics.median(ratios),
            "quartiles": statistics.quantiles(ratios, n=4)[::2],
            "goal": None,
        }


def ast_of(size: Size) -> Backbone:
    """AST by patches of 16 by 16."""
    return cast(Backbone, ast.build(ast.Config(size=size), BINS, FRAMES))


def mast_micro() -> Backbone:
    """MAST whose tokens stand for 16 by 16."""
    return cast(Backbone, mast.build(mast.Config(last_stride=1), BINS, FRAMES))


def main() -> int:
    """Measure, print the table, write the records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", nargs="+", default=["micro", "small"], choices=list(CLIPS))
    parser.add_argument("--share", type=float, default=0.75)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    reuse_freed_memory()
    bench = Bench(arguments.share, arguments.bf16, max(2, arguments.repeats))
    asked: list[tuple[str, Callable[[], Backbone], Shape, int]] = [
        (f"AST {size}", partial(ast_of, size), "uniform", CLIPS[size]) for size in arguments.size
    ]
    asked.append(("MAST micro", mast_micro, "columns", 2))
    records = []
    for row in asked:
        records.append(found := bench.compare(*row))
        low, high = found["quartiles"]
        print(
            f"{found['name']}: {found['ours']:.0f} dropped / {found['peer']:.0f} replaced, "
            f"ratio {found['ratio']:.2f} ({low:.2f} to {high:.2f})"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
