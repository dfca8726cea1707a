"""Clips a second and step time by stage, of a recipe on this machine.

    python benchmarks/step.py [--shards DIR …] [--config real_micro] [--json FILE] [--leaf VALUE …]

Stages: decode (FLAC to samples, whole clips), crop (as the stream reads: seek, check and decode
what is kept), features, augment, forward, backward, optimiser. The loader alone, with a worker a
core, must feed at least five times what the model eats with all cores: measured in the first epoch,
when every clip is decoded, and later, when those that ``data.kept_megabytes`` holds are not. Beside
ours, in the same run: a bare soundfile loop over the same bytes, torchaudio's Kaldi front end clip
by clip, the fused attention kernel. ``ratio`` above 1 means that ours is better. Without
``--shards``: the synthetic ones, made if absent.
"""

import argparse
import dataclasses
import io
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import soundfile
import torch
import torchaudio

from sslaudio import recipe as recipes
from sslaudio.augments.base import Draws
from sslaudio.backbones.attention import attend
from sslaudio.data import synth
from sslaudio.data.decode import decode
from sslaudio.data.index import labelled_examples
from sslaudio.data.indexed import ShardStream
from sslaudio.data.processes import cores, reuse_freed_memory
from sslaudio.data.stream import Batch
from sslaudio.features.front_end import FrontEnd
from sslaudio.objectives.base import View
from sslaudio.pretrain import SYNTHETIC
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


@dataclass
class Bench:
    """A recipe's parts and one batch, ready to be timed."""

    recipe: recipes.Pretrain
    repeats: int

    def __post_init__(self) -> None:
        recipe = self.recipe
        stream = ShardStream(recipe.data, sample_rate=recipe.features.sample_rate, seed=0)
        self.batches = stream.batches(0)
        self.batch = next(self.batches)
        folder = Path(recipe.data.shards[0].split("=")[0])
        self.clips = list(itertools.islice(labelled_examples(folder), recipe.data.batch))
        self.front_end = FrontEnd(recipe.features, -5.0, 4.0)
        backbone = recipe.backbone.build(
            recipe.features.bins, recipe.features.frames(self.batch.waveforms.shape[1])
        )
        self.objective = recipe.objective.build(backbone).train()
        self.optimiser = adamw(self.objective, 1e-4, 0.05, (0.9, 0.98))
        self.augments = [augment.build() for augment in recipe.augments]
        self.pictures, self.frames = self.front_end(self.batch.waveforms, self.batch.lengths)
        count = len(self.batch.keys)
        self.draws = Draws(torch.Generator(), 0, count, count)

    def augmented(self) -> torch.Tensor:
        """The batch's pictures, augmented."""
        pictures = self.pictures
        for augment in self.augments:
            pictures = augment(pictures, self.frames, self.draws)
        return pictures

    def forward(self) -> torch.Tensor:
        """The loss of the batch as it is."""
        bf16 = self.recipe.training.precision == "bf16"
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss: torch.Tensor = self.objective([View(self.pictures, self.frames)], self.draws)[
                "loss"
            ]
        return loss

    def decode(self) -> None:
        """Whole clips, as many as a batch."""
        for clip in self.clips:
            decode(clip.shard, self.recipe.features.sample_rate, byte_range=clip.byte_range)

    def bare_decode(self) -> None:
        """The same bytes through soundfile alone."""
        for clip in self.clips:
            offset, size = clip.byte_range
            with clip.shard.open("rb") as file:
                file.seek(offset)
                soundfile.read(io.BytesIO(file.read(size)), dtype="float32")

    def kaldi(self) -> None:
        """torchaudio's front end, clip by clip, as AST and SSAST call it."""
        for waveform in self.batch.waveforms:
            torchaudio.compliance.kaldi.fbank(
                waveform[None],
                htk_compat=True,
                sample_frequency=self.recipe.features.sample_rate,
                use_energy=False,
                window_type="hanning",
                num_mel_bins=self.recipe.features.bins,
                dither=0.0,
                frame_shift=10,
            )

    def stages(self) -> dict[str, float]:
        """Seconds of each stage for one batch."""
        time_of = partial(median_seconds, repeats=self.repeats)
        share = self.recipe.data.batch / len(self.clips)
        waveforms, lengths = self.batch.waveforms, self.batch.lengths
        times = {
            "decode": time_of(self.decode) * share,
            "crop": time_of(partial(next, self.batches)),
            "features": time_of(partial(self.front_end, waveforms, lengths)),
            "augment": time_of(self.augmented),
            "forward": time_of(self.forward),
        }
        times["backward"] = max(0.0, time_of(lambda: self.forward().backward()) - times["forward"])
        times["optimiser"] = time_of(self.optimiser.step)
        return times

    def loader(self) -> tuple[float, float]:
        """Clips a second from the loader alone, a worker a core: in the first epoch, and later."""
        data = dataclasses.replace(self.recipe.data, workers=cores())
        stream = ShardStream(data, sample_rate=self.recipe.features.sample_rate, seed=0)
        batches = stream.batches(0)
        for _ in range(10):  # the workers' start and what they made ahead
            next(batches)
        early = self._rate(batches)
        epochs = 1 + 2 * cores()  # by then each worker has met nearly all of its clips
        for number in itertools.count():
            if stream.epoch(number * data.batch) >= epochs:
                return early, self._rate(batches)
            next(batches)
        raise AssertionError("an endless stream ended")

    def _rate(self, batches: Iterator[Batch]) -> float:
        count = 5 * self.repeats
        began = time.perf_counter()
        for _ in range(count):
            next(batches)
        return count * self.recipe.data.batch / (time.perf_counter() - began)

    def peers(self, times: dict[str, float]) -> list[dict[str, Any]]:
        """Decoding and front end beside their peers, in milliseconds a batch."""
        share = self.recipe.data.batch / len(self.clips)
        bare = median_seconds(self.bare_decode, self.repeats) * share
        kaldi = median_seconds(self.kaldi, self.repeats)
        return [
            record(
                "decode, against a bare soundfile loop (ms a batch)", times["decode"], bare, None
            ),
            record(
                "features, against torchaudio clip by clip (ms a batch)",
                times["features"],
                kaldi,
                1.0,
            ),
        ]


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
        ours = median_seconds(partial(there_and_back, partial(attend, query, key, value)), repeats)
        name = f"attention, {clips} clips of {tokens} tokens, against the fused kernel (ms)"
        records.append(record(name, ours, peer, 1.0))
    return records


def there_and_back(work: Callable[[], torch.Tensor]) -> None:
    """Forward and backward."""
    work().sum().backward()


def record(name: str, ours: float, peer: float, goal: float | None) -> dict[str, Any]:
    """One row of times, from seconds; as every benchmark of the project writes it."""
    return {
        "name": name,
        "ours": 1e3 * ours,
        "peer": 1e3 * peer,
        "ratio": peer / ours,
        "goal": goal,
    }


def main() -> int:
    """Measure, print the table, write the records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shards", nargs="+")
    parser.add_argument("--config", default="real_micro")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments, flags = parser.parse_known_args()
    reuse_freed_memory()
    torch.set_num_threads(cores())
    if arguments.shards is None:
        synth.build(SYNTHETIC)
        arguments.shards = [str(SYNTHETIC)]
    path = recipes.find(arguments.config, "pretrain")
    recipe = recipes.read(path, ["--data.shards", *arguments.shards, *flags])
    bench = Bench(recipe, arguments.repeats)
    times = bench.stages()
    batch = recipe.data.batch
    eats = sum(
        times[stage] for stage in ("features", "augment", "forward", "backward", "optimiser")
    )
    print(
        f"{batch} clips of {recipe.data.clip_seconds:g} s, {torch.get_num_threads()} threads, "
        f"{recipe.training.precision}\n"
    )
    print(f"{'stage':12s}{'ms a step':>12s}{'clips a second':>16s}")
    for stage, seconds in [*times.items(), ("model", eats), ("step", eats + times["crop"])]:
        print(f"{stage:12s}{1e3 * seconds:12.1f}{batch / max(seconds, 1e-9):16.0f}")
    print("\nmodel: features to optimiser; step: crop and model, one after the other\n")
    wants = batch / eats
    name = "loader alone, {}, against what the model eats (clips a second)"
    records = [
        {"name": name.format(when), "ours": feeds, "peer": wants, "ratio": feeds / wants, "goal": g}
        for when, feeds, g in zip(
            ("first epoch", "later epochs"), bench.loader(), (None, 5.0), strict=True
        )
    ]
    records += [
        *bench.peers(times),
        *attention_records(arguments.repeats),
    ]
    for row in records:
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
