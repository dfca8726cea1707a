"""Steps that would spoil the weights are skipped, on all processes alike, and told of."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
SPOIL = '''
"""Spoils the first clip of some steps: {how}."""
from dataclasses import dataclass
import torch

@dataclass(frozen=True)
class Config:
    """When."""

    first: int = 3
    """Call that is spoiled first."""
    last: int = 3
    """Call that is spoiled last."""

class Spoil:
    def __init__(self, config):
        self.config, self.calls = config, 0
    def __call__(self, pictures, frames, draws):
        self.calls += 1
        if self.config.first <= self.calls <= self.config.last and draws.start == 0:
            pictures = pictures.clone()
            pictures[0, 0, 0] = float("inf")
        return pictures

def build(config):
    return Spoil(config)
'''
OBJECTIVE = '''
"""A mean of tokens whose gradient, not its value, is infinite at the third call."""
from dataclasses import dataclass
import torch

@dataclass(frozen=True)
class Config:
    """Nothing to set."""

class Sharp(torch.autograd.Function):
    @staticmethod
    def forward(context, value, factor):
        context.factor = factor
        return value.clone()
    @staticmethod
    def backward(context, gradient):
        return gradient * context.factor, None

class Steep(torch.nn.Module):
    views = 1
    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.calls = backbone, 0
    def forward(self, views, draws):
        self.calls += 1
        tokens = self.backbone(views[0].pictures, views[0].frames).patches
        factor = float("inf") if self.calls == 3 else 1.0
        return {"loss": Sharp.apply(tokens.float().square().mean(), factor)}
    def after_step(self, step, steps):
        pass
    def pictures(self, views, draws):
        return {}

def build(config, backbone):
    return Steep(backbone)
'''
CONTRASTIVE = (
    "--objective contrastive --objective.queue 24 --objective.norm batch "
    "--augments mixup my_lab.spoil --augments.mixup.partner bank --augments.mixup.bank_clips 20"
).split()


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lab")
    (folder / "my_lab").mkdir()
    (folder / "my_lab" / "spoil.py").write_text(SPOIL)
    (folder / "my_lab" / "steep.py").write_text(OBJECTIVE)
    return folder


def pretrain(shards: Path, lab: Path, out: Path, *words: str, processes: int = 1):
    entry = [sys.executable, "-m", "sslaudio", "pretrain"]
    if processes > 1:
        launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes"]
        entry = [sys.executable, *launch, str(processes), "sslaudio/pretrain.py"]
    return subprocess.run(
        [*entry, "--config", "demo", "--data.shards", str(shards), "--data.batch", "8",
         "--data.clip_seconds", "0.5", "--training.log_every", "1", "--training.checkpoint_every",
         "1", "--training.checkpoints_kept", "20", "--training.pictures_every", "0", "--out",
         str(out), *words],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": f"{lab}:{ROOT}"},
    )  # fmt: skip


def stored(out: Path, step: int) -> dict[str, torch.Tensor]:
    folder = out / "checkpoints" / f"step-{step:08d}"
    return {
        f"{file.name}/{name}": value
        for file in sorted(folder.glob("*.safetensors"))
        for name, value in load_file(file).items()
    }


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("processes", "variant"), [(1, "paper"), (2, "paper"), (1, "released")])
def test_a_step_of_infinite_loss_leaves_everything_as_it_was(
    shards, lab, tmp_path, processes, variant
):
    # The augment is called once a view: step 2 is calls 3 and 4.
    out = tmp_path / "run"
    done = pretrain(
        shards,
        lab,
        out,
        *CONTRASTIVE,
        "--objective.variant",
        variant,
        "--training.steps",
        "4",
        processes=processes,
    )

    assert done.returncode == 0, done.stderr
    before, skipped, after = (stored(out, step) for step in (1, 2, 3))
    assert before.keys() == skipped.keys()
    assert [name for name in before if not torch.equal(before[name], skipped[name])] == []
    assert all(torch.isfinite(value).all() for value in after.values())
    assert any(not torch.equal(before[name], after[name]) for name in before)
    (told,) = lines(out / "skipped.jsonl")
    assert told["step"] == 2 and len(set(told["keys"])) == 8
    metrics = lines(out / "metrics.jsonl")
    assert [line["training/skipped_steps"] for line in metrics] == [0, 1, 1, 1]
    assert ["objective/loss" in line for line in metrics] == [True, False, True, True]
    assert done.stderr.count("warning: step 2 is skipped") == 1


def test_an_infinite_gradient_of_a_finite_loss_is_skipped(shards, lab, tmp_path):
    out = tmp_path / "run"
    done = pretrain(shards, lab, out, "--objective", "my_lab.steep", "--training.steps", "4")

    assert done.returncode == 0, done.stderr
    before, skipped, after = (stored(out, step) for step in (2, 3, 4))
    assert all(torch.equal(before[name], skipped[name]) for name in before)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    (told,) = lines(out / "skipped.jsonl")
    assert told["step"] == 3 and math.isfinite(float(told["loss"]))


def test_too_many_in_a_row_stop_the_run_also_across_a_resume(shards, lab, tmp_path):
    out = tmp_path / "run"
    words = ["--augments", "my_lab.spoil", "--training.skips_in_a_row", "3"]
    spoiled = ["--augments.my_lab.spoil.first", "2", "--augments.my_lab.spoil.last", "9"]
    first = pretrain(shards, lab, out, *words, *spoiled, "--training.steps", "3")
    # Calls are counted anew: the second of the resumed run is step 5.
    again = pretrain(shards, lab, out, *words, *spoiled, "--training.steps", "9", "--resume")

    assert first.returncode == 0, first.stderr
    assert again.returncode == 2
    assert again.stderr.splitlines()[-1].startswith("sslaudio: 3 steps in a row, to step 7, had")
    assert [line["step"] for line in lines(out / "skipped.jsonl")] == [2, 3, 5, 6, 7]


def test_a_want_of_memory_names_the_settings_that_cure_it(shards, lab, tmp_path):
    # 4 GiB of addresses: enough to start, too few for 96 clips at a time.
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_AS, (4 << 30,) * 2); "
    run = "sys.argv[0] = 'sslaudio'; runpy.run_module('sslaudio', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", limit + run, "pretrain", "--config", "demo", "--data.shards",
         str(shards), "--data.batch", "64", "--data.clip_seconds", "60", "--backbone.patch", "16",
         "2", "--out", str(tmp_path / "run"), "--objective.hide", "replace",
         "--objective.mask_shape", "uniform", "--objective.mask_span", "none"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2, done.stderr[-2_000:]
    assert (
        last.startswith("sslaudio: out of memory at step 1: ")
        and "iB more could not be had" in last
    )
    assert "64 clips at a time (data.batch 64 / 1 processes / training.accumulation 1)" in last
    assert "training.accumulation to 2 for 32 at a time" in last
    assert "backbone.gradient_checkpointing to true" in last


def test_a_dry_run_tells_what_the_run_would_be_and_writes_nothing(shards, lab, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    done = pretrain(shards, lab, tmp_path / "run", "--dry-run", "--training.steps", "50")

    assert done.returncode == 0, done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    # By hand: half a second at 16 kHz; 25 ms windows every 10 ms; patches of 128 by 4.
    for told in ("[8, 8000]", "[8, 128, 48]", "1 x 12 a clip", "50 steps", "clips/s", "GiB"):
        assert told in done.stderr, told
