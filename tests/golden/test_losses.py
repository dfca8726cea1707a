"""Losses of 20 steps of every objective on every backbone, as they were written down.

A change that is not meant to change numbers leaves ``losses.json`` alone. One that is meant to
writes it anew, and its commit says why:

    python tests/golden/test_losses.py
"""

import json
import tempfile
from pathlib import Path

import pytest
import torch

from sslaudio import plugins
from sslaudio import recipe as recipes
from sslaudio.data import synth
from sslaudio.data.stream import Stream
from sslaudio.features.front_end import FrontEnd
from sslaudio.training.launch import accelerator_for
from sslaudio.training.loop import Loop

WRITTEN = Path(__file__).with_name("losses.json")
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
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        Loop(
            recipe.objective.build(recipe.backbone.build(recipe.features.bins, frames)),
            FrontEnd(recipe.features),
            [augment.build() for augment in recipe.augments],
            Stream(recipe.data, sample_rate=16_000, seed=recipe.training.seed, accumulation=2),
            recipe.training,
            out,
            accelerator,
            save_model=lambda: None,
        ).train()
    finally:
        torch.set_num_threads(threads)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["objective/loss"] for line in lines]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "synth"
    synth.build(folder, clips=100)
    return folder


def test_every_objective_is_written_down_on_every_backbone():
    assert list(json.loads(WRITTEN.read_text())) == CASES


@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_written_down(case, shards, tmp_path):
    written = json.loads(WRITTEN.read_text())[case]

    found = losses(case, shards, tmp_path / "run")

    assert len(found) == STEPS
    assert found == pytest.approx(written, rel=1e-5)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        synth.build(Path(folder) / "synth", clips=100)
        told = {c: losses(c, Path(folder) / "synth", Path(folder) / c) for c in CASES}
    WRITTEN.write_text(json.dumps(told, indent=1) + "\n")
