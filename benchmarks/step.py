"""Clips a second and step time by stage, of a recipe on this machine.

    python benchmarks/step.py --shards DIR … [--config real_micro] [--json FILE] [--leaf VALUE …]

Stages: decode (FLAC to samples, whole clips), crop (as the stream reads: seek and decode what is
kept), features, augment, forward, backward, optimiser. The loader alone must feed at least five
times what the model eats. ``ratio`` above 1 means that ours is better.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sslaudio import recipe as recipes
from sslaudio.augments.base import Draws
from sslaudio.backbones import blocks
from sslaudio.data.decode import decode
from sslaudio.data.index import labelled_examples
from sslaudio.data.stream import Stream
from sslaudio.features.logmel import FrontEnd
from sslaudio.objectives.base import View
from sslaudio.training.optim import adamw


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median time of one call, after one that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def stage_times(recipe: recipes.Pretrain, repeats: int) -> dict[str, float]:
    """Seconds of each stage for one batch of ``recipe.data.batch`` clips."""
    stream = Stream(recipe.data, sample_rate=recipe.features.sample_rate, seed=0)
    batches = stream.batches(0)
    batch = next(batches)
    folder = Path(recipe.data.shards[0].split("=")[0])
    files = [
        example
        for _, example in zip(range(recipe.data.batch), labelled_examples(folder), strict=False)
    ]
    front_end = FrontEnd(recipe.features, -5.0, 4.0)
    frames_wide = recipe.features.frames(batch.waveforms.shape[1])
    backbone = recipe.backbone.build(recipe.features.mel_bins, frames_wide)
    objective = recipe.objective.build(backbone).train()
    optimiser = adamw(objective, 1e-4, 0.05, (0.9, 0.98))
    augments = [augment.build() for augment in recipe.augments]
    pictures, frames = front_end(batch.waveforms, batch.lengths)
    draws = Draws(torch.Generator(), 0, len(batch.keys), len(batch.keys))

    def decode_whole() -> None:
        for clip in files:
            decode(clip.shard, recipe.features.sample_rate, byte_range=clip.byte_range)

    def augmented() -> Any:
        view = pictures
        for augment in augments:
            view = augment(view, frames, draws)
        return view

    view = View(augmented(), frames)

    def forward() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.training.precision == "bf16"):
            return objective([view], draws)["loss"]

    def both() -> None:
        forward().backward()

    times = {
        "decode": median_seconds(decode_whole, repeats) * recipe.data.batch / len(files),
        "crop": median_seconds(lambda: next(batches), repeats),
        "features": median_seconds(lambda: front_end(batch.waveforms, batch.lengths), repeats),
        "augment": median_seconds(augmented, repeats),
        "forward": median_seconds(forward, repeats),
    }
    times["backward"] = max(0.0, median_seconds(both, repeats) - times["forward"])
    times["optimiser"] = median_seconds(optimiser.step, repeats)
    return times


def attention_records(repeats: int) -> list[dict[str, Any]]:
    """Forward and backward of attention as the blocks do it, against the fused kernel."""
    records = []
    for clips, heads, tokens, width in ((128, 4, 48, 32), (8, 12, 512, 64)):
        shape = (clips, heads, tokens, width)
        query, key, value = (
            torch.randn(shape, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)
        )
        fused = partial(torch.nn.functional.scaled_dot_product_attention, query, key, value)
        peer = median_seconds(partial(there_and_back, fused), repeats)
        ours = median_seconds(
            partial(there_and_back, partial(blocks.attend, query, key, value, None)), repeats
        )
        name = f"attention, {clips} clips of {tokens} tokens, against the fused kernel (ms)"
        goal = 1.0 if tokens <= blocks.SHORT else None
        records.append(record(name, 1e3 * ours, 1e3 * peer, peer / ours, goal))
    return records


def there_and_back(work: Callable[[], torch.Tensor]) -> None:
    """Forward and backward."""
    work().sum().backward()


def record(
    name: str, ours: float, peer: float | None, ratio: float | None, goal: float | None
) -> dict[str, Any]:
    """One row, as every benchmark of the project writes it."""
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "goal": goal}


def main() -> int:
    """Measure, print the table, write the records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shards", nargs="+", required=True)
    parser.add_argument("--config", default="real_micro")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments, flags = parser.parse_known_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    path = recipes.find(arguments.config, "pretrain")
    recipe = recipes.read(path, ["--data.shards", *arguments.shards, *flags])
    times = stage_times(recipe, arguments.repeats)
    batch = recipe.data.batch
    eats = sum(
        times[stage] for stage in ("features", "augment", "forward", "backward", "optimiser")
    )
    print(
        f"{batch} clips of {recipe.data.clip_seconds:g} s, {torch.get_num_threads()} threads, "
        f"{recipe.training.precision}\n"
    )
    print(f"{'stage':12s}{'ms a step':>12s}{'clips a second':>16s}")
    for stage, seconds in times.items():
        print(f"{stage:12s}{1e3 * seconds:12.1f}{batch / max(seconds, 1e-9):16.0f}")
    print(f"{'model':12s}{1e3 * eats:12.1f}{batch / eats:16.0f}   features to optimiser")
    loader, model = batch / times["crop"], batch / eats
    records = [
        record(
            "loader against what the model eats (clips a second)",
            loader,
            model,
            loader / model,
            5.0,
        ),
        *attention_records(arguments.repeats),
        *(
            record(f"{stage} (ms a step)", 1e3 * seconds, None, None, None)
            for stage, seconds in times.items()
        ),
        record("step (ms)", 1e3 * (eats + times["crop"]), None, None, None),
    ]
    print()
    for row in records:
        if row["ratio"] is not None:
            goal = f"goal {row['goal']:g}" if row["goal"] else "no goal"
            print(
                f"{row['name']}: {row['ours']:.1f} / {row['peer']:.1f}, "
                f"ratio {row['ratio']:.2f}, {goal}"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
