"""Fine-tuning beside transformers' own AST in a plain loop, and embedding with a linear probe.

    python benchmarks/finetune.py --data DIR [--size micro tiny] [--epochs 3] [--json FILE]
    python benchmarks/finetune.py --data DIR --probe [--checkpoint RUN]

The first: the same clips of Speech Commands, the same transformer (AST's patches of 16 at stride
10, two prefix tokens, 128 frames), batch 32, AdamW, every weight. Theirs is
``ASTForAudioClassification`` with ``ASTFeatureExtractor`` (decode, extract, step, epoch by epoch);
ours is ``sslaudio.downstream.supervised``, with its validation left out of the clock. As either
comes (ours in bfloat16, theirs in float32), and with both in float32 or bfloat16 (autocast). They
alternate; ``ratio`` is clips a second of processor time, ours over theirs, over all epochs and over
the first
alone, in which nothing is kept yet.

The second: all sound below DIR embedded by AST micro with all cores, and a linear probe on ten
words; seconds, against a goal of 180. Threads of the first: OMP_NUM_THREADS.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sslaudio import adaptation, models
from sslaudio import config as configs
from sslaudio import recipe as recipes
from sslaudio.adapters import full
from sslaudio.backbones import ast
from sslaudio.data.decode import decode
from sslaudio.data.processes import cores, reuse_freed_memory
from sslaudio.downstream import embed, supervised
from sslaudio.downstream.supervised import Learner
from sslaudio.tasks import sources, speechcommands
from sslaudio.tasks.base import Example, Fold, Task

BATCH, RATE, FRAMES, CLASSES = 32, 16_000, 128, 10
GOAL = 1.3
PROBE_SECONDS = 180.0


def ours(size: str, fold: Fold, task: Task, precision: str, epochs: int) -> list[float]:
    """Seconds of each epoch, validation left out."""
    recipe = configs.build(
        recipes.Finetune,
        {
            "features": {"pad": "legacy", "legacy_frames": FRAMES, "mean": -6.85, "std": 11.1},
            "backbone": {
                "name": "ast", "size": size, "stride": [10, 10], "whole_patches": True,
                "pooling": ["cls"],
            },
            "training": {"epochs": epochs, "batch": BATCH, "precision": precision},
        },
    )  # fmt: skip
    encoder, _ = adaptation.start_of(recipe, adaptation.Start(None, None), task, fold)
    adapter = full.build(full.Config())
    seconds: list[float] = []
    step = Learner._step
    clock = {"spent": 0.0, "epoch": 0}

    def timed(self: Learner, examples: Sequence[Example], place: int) -> float:
        began = time.process_time()
        loss = step(self, examples, place)
        clock["spent"] += time.process_time() - began
        return loss

    def told(epoch: int, _: dict[str, float]) -> None:
        seconds.append(clock["spent"])
        clock["spent"] = 0.0

    Learner._step = timed  # type: ignore[method-assign, assignment]
    try:
        supervised.fit(encoder, task, fold, adapter, [], recipe.training, told)
    finally:
        Learner._step = step  # type: ignore[method-assign]
    return seconds


def theirs(size: str, fold: Fold, task: Task, precision: str, epochs: int) -> list[float]:
    """Seconds of each epoch of a plain loop around transformers' classes."""
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    shape = ast.SIZES[size]
    extractor = ASTFeatureExtractor(max_length=FRAMES, mean=-6.85, std=5.55)
    config = ASTConfig(
        hidden_size=shape.dim,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.dim,
        max_length=FRAMES,
    )
    config.num_labels = CLASSES
    model: Any = ASTForAudioClassification(config).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-4, fused=True)
    random = np.random.default_rng(0)
    seconds = []
    for _ in range(epochs):
        began = time.process_time()
        for rows in _batches(random.permutation(len(fold.train))):
            examples = [fold.train[row] for row in rows]
            sounds = [decode(example.path, RATE) for example in examples]
            inputs = extractor(sounds, sampling_rate=RATE, return_tensors="pt")
            targets = torch.tensor([example.one_class for example in examples])
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = model(**inputs, labels=targets).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
        seconds.append(time.process_time() - began)
    return seconds


def _batches(order: np.ndarray) -> Iterator[np.ndarray]:
    yield from np.split(order, range(BATCH, len(order), BATCH))


def compare(data: Path, size: str, clips: int, epochs: int, repeats: int) -> list[dict[str, Any]]:
    """Rows of one size."""
    config = speechcommands.Config(version="v2-10")
    task = speechcommands.build(config, sources.locate(speechcommands.CORPUS, data))
    whole = task.folds[0]
    fold = Fold("some", whole.train[:: len(whole.train) // clips][:clips], whole.validation[:32],
                whole.test[:32])  # fmt: skip
    task = Task(task.name, task.classes, task.seconds, "some of v2-10", (fold,))
    ran = [
        {
            (side, precision): side(size, fold, task, precision, epochs)
            for precision in ("fp32", "bf16")
            for side in (ours, theirs)
        }
        for _ in range(repeats)
    ]
    rows = []
    for name, mine, peer in (
        ("as they come", "bf16", "fp32"),
        ("both bf16", "bf16", "bf16"),
        ("both fp32", "fp32", "fp32"),
    ):
        for when, part in (("first epoch", slice(0, 1)), (f"{epochs} epochs", slice(None))):
            speeds = [
                statistics.median(_speed(one[side][part], len(fold.train)) for one in ran)
                for side in ((ours, mine), (theirs, peer))
            ]
            rows.append(
                {
                    "name": f"fine-tuning AST {size}, {name}, {when} (clips/s)",
                    "ours": speeds[0],
                    "peer": speeds[1],
                    "ratio": speeds[0] / speeds[1],
                    "goal": GOAL,
                }
            )
    return rows


def _speed(seconds: Sequence[float], clips: int) -> float:
    """Clips a second over epochs."""
    return clips * len(seconds) / sum(seconds)


def probe(data: Path, checkpoint: Path | None) -> list[dict[str, Any]]:
    """Seconds to embed everything and to fit a line on ten words."""
    torch.set_num_threads(cores())
    began = time.perf_counter()
    files = embed.audio_files([data])
    if checkpoint is None:
        recipe = configs.build(recipes.Finetune, {"features": {"mean": -7.0, "std": 5.0}})
        encoder = models.build_encoder(models.model_config(recipe, 98, {"mean": -7.0, "std": 5.0}))
    else:
        encoder = models.load_encoder(checkpoint)
    embedded = embed.embed_files(encoder, files)
    middle = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        words = ["--adapter", "linear", "--task", "speechcommands", "--task.version", "v2-10"]
        recipe, start = adaptation.recipe_over(checkpoint, {}, words)
        task = recipe.task.build(sources.locate(speechcommands.CORPUS, data))
        outcome = adaptation.adapt(recipe, start, task, task.folds[0], Path(out))
    ended = time.perf_counter()
    print(
        f"{len(embedded.keys)} files embedded in {middle - began:.1f} s, linear probe "
        f"{ended - middle:.1f} s, test {100 * outcome.record.test:.1f} %"
    )
    spent = ended - began
    return [
        {
            "name": "embedding all sound and a linear probe (s; peer: the goal)",
            "ours": spent,
            "peer": PROBE_SECONDS,
            "ratio": PROBE_SECONDS / spent,
            "goal": 1.0,
        }
    ]


def main() -> int:
    """Run what is asked for, print it."""
    reuse_freed_memory()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the corpora")
    parser.add_argument("--size", nargs="+", choices=list(ast.SIZES), default=["micro", "tiny"])
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--probe", action="store_true", help="the second comparison alone")
    parser.add_argument("--checkpoint", type=Path, help="of the probe; else random weights")
    parser.add_argument("--json", type=Path, help="{name, ours, peer, ratio, goal}")
    arguments = parser.parse_args()
    if arguments.probe:
        rows = probe(arguments.data, arguments.checkpoint)
    else:
        sizes = (arguments.size, arguments.clips, arguments.epochs, arguments.repeats)
        rows = [row for size in sizes[0] for row in compare(arguments.data, size, *sizes[1:])]
    for row in rows:
        print(f"{row['name']:64s} {row['ours']:8.1f} {row['peer']:8.1f} {row['ratio']:6.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
