"""Losses of 20 steps of every objective on every backbone: one thread, float32.

python tests/golden/losses.py FILE.json
"""

import json
import sys
import tempfile
from pathlib import Path

import torch

from sslaudio import plugins
from sslaudio import recipe as recipes
from sslaudio.data import synth
from sslaudio.data.indexed import ShardStream
from sslaudio.features.front_end import FrontEnd
from sslaudio.training.launch import accelerator_for
from sslaudio.training.loop import Loop

STEPS = 20
FLAGS = (
    "--data.batch 8 --data.clip_seconds 0.64 --features.mel_bins 64 --features.mean -5 "
    "--features.std 4 --augments mixup resize_crop --augments.mixup.partner bank "
    "--augments.mixup.bank_clips 24 --training.precision fp32 --training.accumulation 2 "
    f"--training.warmup_steps 5 --training.log_every 1 --training.steps {STEPS} "
    "--backbone.drop_path 0.1 --training.pictures_every 0"
).split()
CASES = [f"{o} on {b}" for o in plugins.names("objectives") for b in plugins.names("backbones")]


def losses(case: str, shards: Path, out: Path) -> list[float]:
    """Of a run on one thread, in float32."""
    objective, _, backbone = case.partition(" on ")
    flags = [*FLAGS, "--data.shards", str(shards), "--objective", objective]
    recipe = recipes.read(None, [*flags, "--backbone", backbone])
    torch.manual_seed(recipe.training.seed)
    frames = recipe.features.frames(round(recipe.data.clip_seconds * recipe.features.sample_rate))
    accelerator = accelerator_for(recipe.training.precision)
    torch.set_num_threads(1)
    Loop(
        recipe.objective.build(recipe.backbone.build(recipe.features.bins, frames)),
        FrontEnd(recipe.features),
        [augment.build() for augment in recipe.augments],
        ShardStream(recipe.data, sample_rate=16_000, seed=recipe.training.seed, accumulation=2),
        recipe.training,
        out,
        accelerator,
        save_model=lambda: None,
    ).train()
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["objective/loss"] for line in lines]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder) / "synth"
        synth.build(shards, clips=100)
        told = {case: losses(case, shards, Path(folder) / case) for case in CASES}
    Path(sys.argv[1]).write_text(json.dumps(told, indent=1) + "\n")
