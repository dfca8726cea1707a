"""Runs whose blocks are compiled, in processes of their own: checks of shapes break compiling."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--config demo --data.batch 8 --data.clip_seconds 0.5 --training.log_every 1 "
    "--training.warmup_steps 2 --training.precision fp32 --training.pictures_every 2 "
    "--features.mean=-7 --features.std 5"
).split()
RUNS = """
import json, sys
from torch._dynamo.utils import counters
from sslaudio import cli
from sslaudio.training.loop import Loop

watch, graphs = Loop._watch, []


def counting(self, step):
    watch(self, step)
    graphs.append(counters["stats"]["unique_graphs"])


Loop._watch = counting
plain, compiled, *words = sys.argv[1:]
assert cli.run_entry("pretrain", ["--out", plain, *words]) == 0
assert graphs[-1] == 0
graphs.clear()
assert cli.run_entry("pretrain", ["--out", compiled, *words, "--training.compile", "true"]) == 0
print(json.dumps(graphs))
"""


def program(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def losses(out: Path) -> list[float]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["objective/loss"] for line in lines]


def both(shards: Path, folder: Path, *words: str, steps: int = 4) -> None:
    """A plain and a compiled run: the same losses, and no graph after the second step."""
    outs = (folder / "plain", folder / "compiled")
    given = [*map(str, outs), *FLAGS, "--training.steps", str(steps)]
    done = program("-c", RUNS, *given, "--data.shards", str(shards), *words)
    assert done.returncode == 0, done.stderr[-3_000:]
    plain, compiled = map(losses, outs)
    assert compiled == pytest.approx(plain, rel=1e-3)
    graphs = json.loads(done.stdout.splitlines()[-1])
    assert graphs[1] > 0
    assert graphs[2:] == [graphs[2]] * (steps - 1)


def test_a_compiled_run_has_the_plain_ones_losses_and_compiles_once(shards, tmp_path):
    both(shards, tmp_path, "--backbone.depth", "2")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "words",
    [
        "--backbone.drop_path 0.2 --backbone.gradient_checkpointing true --backbone.depth 2",
        "--objective contrastive --objective.drop_in student --backbone.patch 16 8",
        "--objective contrastive --objective.gradient_cache true --training.accumulation 2",
        "--objective masked_patch --objective.hide drop --backbone.depth 2",
        "--backbone mast --backbone.last_stride 1 --objective masked_patch",
    ],
)
def test_it_holds_for(shards, tmp_path, words):
    both(shards, tmp_path, *words.split())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_compiled_run_resumes_to_the_same_bits(shards, tmp_path):
    words = ["-m", "sslaudio", "pretrain", *FLAGS, "--data.shards", str(shards)]
    words += ["--training.compile", "true", "--training.checkpoint_every", "2"]
    words += ["--training.steps", "4", "--backbone.drop_path", "0.2"]
    for name in ("whole", "cut"):
        assert program(*words, "--out", str(tmp_path / name)).returncode == 0
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000004")

    done = program(*words, "--out", str(tmp_path / "cut"), "--resume")

    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert [name for name in one if not one[name].equal(other[name])] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_compiled_processes_have_the_plain_ones_losses(shards, tmp_path):
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    for name in ("false", "true"):
        done = program(
            *launch, "sslaudio/pretrain.py", *FLAGS, "--data.shards", str(shards),
            "--training.steps", "3", "--training.compile", name, "--out", str(tmp_path / name),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3_000:]

    assert losses(tmp_path / "true") == pytest.approx(losses(tmp_path / "false"), rel=1e-3)


def test_a_machine_without_a_compiler_is_told_which_key_to_change(shards, tmp_path):
    done = program(
        "-m", "sslaudio", "pretrain", *FLAGS, "--data.shards", str(shards), "--training.steps", "1",
        "--training.compile", "true", "--out", str(tmp_path / "run"), CXX="no-such-compiler",
    )  # fmt: skip

    assert done.returncode == 2
    assert "has no C++ compiler (no-such-compiler); set training.compile" in done.stderr
